package keygen

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// The server activates machines of an expired licence whose access is only restricted. An expired licence grants no
// slot here. So such a machine is a record in the dialect's store until the licence is renewed: it is counted, shown,
// pinged, changed and deleted like any other, and gets its slot with the first request after the renewal, if one is
// free.

// How many machines without a slot one user and all users together may have here.
const (
	maxSlotless    = 50
	maxAllSlotless = 500
)

const slotlessPrefix = "slotless/"

// activatesExpired reports whether the licence has expired, nothing else is wrong with it that would stop the server
// from activating machines, and its policy lets it do so.
func (x *request) activatesExpired() bool {
	s := x.about
	a, strategy := &s.terms.Attributes, s.terms.Policy.ExpirationStrategy
	return s.raw != nil && !s.judged.InForce && a.Expiry != nil && a.Expiry.Before(x.now) &&
		(strategy == "" || strategy == expiryRestrict) && s.found(enforcer.Expired) && x.caller.SameUser(x.caller) &&
		!slices.ContainsFunc(s.judged.Findings, func(f enforcer.Finding) bool {
			return f.Code != enforcer.Expired && f.Code != enforcer.Overdue && f.Code != enforcer.HeartbeatDead &&
				f.Code != enforcer.HeartbeatNotStarted
		})
}

// slotlessOf begins the store's keys of a licence's machines without a slot.
func slotlessOf(license string) string { return slotlessPrefix + namedID("license", license) + "/" }

// slotlessHere begins the keys of the caller's.
func (x *request) slotlessHere() string {
	return slotlessOf(x.about.license.ID) + namedID("user", fmt.Sprint(x.caller.UID), x.caller.Credential) + "/"
}

// slotless returns the caller's machines that have no slot, the oldest first.
func (x *request) slotless() []*kept {
	if x.about == nil || x.about.raw == nil || !x.caller.SameUser(x.caller) {
		return nil
	}
	here, _ := x.slotlessUnder(x.slotlessHere())
	slices.SortStableFunc(here, func(a, b *kept) int { return a.Made.Compare(b.Made) })
	return here
}

// slotlessUnder returns the licence's machines without a slot whose keys begin with prefix, and the keys of those that
// are gone: they have died, and may not be revived any more.
func (x *request) slotlessUnder(prefix string) (out []*kept, gone []string) {
	x.Store().Range(prefix, func(key string, value []byte) bool {
		k := &kept{lease: &enforcer.Lease{Lifetime: enforcer.LifetimeHeld}, key: key}
		if json.Unmarshal(value, &k.record) == nil && k.Kind == recordMachine {
			k.lease.Items, k.lease.AcquiredAt = x.amounts(&k.record), k.Made
			out = append(out, k)
		}
		return true
	})
	out = slices.DeleteFunc(out, func(k *kept) bool {
		life, last := x.life(k)
		dead := life == Dead && !x.keepsDead(k.Kind) && (last.IsZero() || !x.mayRevive(k, last))
		if dead {
			gone = append(gone, k.key)
		}
		return dead
	})
	return out, gone
}

// forgetSlotless removes the records of machines that are gone and, where the store has as many as it may, of licences
// that are no longer there. It returns how many the caller and all users have. making is held.
func (x *request) forgetSlotless() (mine, all int) {
	_, gone := x.slotlessUnder(slotlessOf(x.about.license.ID))
	var keys []string
	x.Store().Range(slotlessPrefix, func(key string, _ []byte) bool {
		keys = append(keys, key)
		return true
	})
	if len(keys)-len(gone) >= maxAllSlotless {
		for _, key := range keys {
			if !slices.ContainsFunc(x.about.verdict.Licenses, func(j enforcer.Judged) bool {
				return j.License != nil && strings.HasPrefix(key, slotlessOf(j.License.ID))
			}) {
				gone = append(gone, key)
			}
		}
	}
	for _, key := range gone {
		if d := x.keepSlotless(key, nil); d != nil {
			x.Log().Warn("the record of a machine that is gone was not removed", "error", d.Detail)
			return len(keys), len(keys) // the store can keep nothing now
		}
	}
	for _, key := range keys {
		if slices.Contains(gone, key) {
			continue
		}
		if all++; strings.HasPrefix(key, x.slotlessHere()) {
			mine++
		}
	}
	return mine, all
}

// amounts returns what a machine takes of the pools.
func (x *request) amounts(rec *record) []enforcer.Item {
	items := []enforcer.Item{{Pool: PoolMachines, N: 1}}
	for _, p := range []struct {
		name string
		n    int64
	}{{PoolCores, number(rec.Cores)}, {PoolMemory, number(rec.Memory)}, {PoolDisk, number(rec.Disk)}} {
		if _, counted := x.about.license.Pools[p.name]; counted && p.n > 0 {
			items = append(items, enforcer.Item{Pool: p.name, N: p.n})
		}
	}
	return items
}

// makeSlotless keeps a machine of an expired licence, within the limits that the licence has, as the server does.
// making is held.
func (x *request) makeSlotless(rec *record) *response {
	for pool, n := range x.takenWithout() {
		for _, it := range x.amounts(rec) {
			t, known := x.about.license.Pools[pool]
			if it.Pool != pool || !known || t.Max.Plus(t.Overage).Covers(sum(n, it.N)) {
				continue
			}
			code := machineLimits[pool]
			if pool == PoolMachines {
				code = machineLimits[""]
			}
			return invalid(code, fmt.Sprintf("%s exceeded maximum allowed for license (%d)", counted[code], t.Max),
				"/data")
		}
	}
	mine, all := x.forgetSlotless()
	if mine >= maxSlotless || all >= maxAllSlotless {
		return invalid("MACHINE_LIMIT_EXCEEDED", fmt.Sprintf("the license has expired, and the agent keeps at most %d "+
			"machines of a user, and %d in all, of expired licenses: delete some, or renew the license", maxSlotless,
			maxAllSlotless), "/data")
	}
	if rec.ID == "" {
		rec.ID = newID()
	}
	if rec.Made = x.now; x.beatsFromCreation(rec.Kind) {
		rec.Beat = x.now
	}
	k := &kept{record: *rec, key: x.slotlessHere() + rec.ID, lease: &enforcer.Lease{Lifetime: enforcer.LifetimeHeld}}
	if d := x.keep(k); d != nil {
		return denied(d, nil)
	}
	return &response{status: http.StatusCreated, doc: object{"data": x.machineObject(k, "")},
		location: x.at("machines", k.ID)}
}

// takenWithout returns what is taken of the pools of machines, by leases and by all users' machines without a slot.
func (x *request) takenWithout() map[string]int64 {
	taken := map[string]int64{PoolMachines: 0, PoolCores: 0, PoolMemory: 0, PoolDisk: 0}
	for _, p := range x.Pools() {
		if _, ok := taken[p.Name]; ok && !p.Meter {
			taken[p.Name] += p.InUse
		}
	}
	here, _ := x.slotlessUnder(slotlessOf(x.about.license.ID))
	for _, k := range here {
		for _, it := range k.lease.Items {
			taken[it.Pool] = sum(taken[it.Pool], it.N)
		}
	}
	return taken
}

// seat gives the caller's machines without a slot the slots that are free, once the licence is in force again.
func (x *request) seat() {
	if x.about == nil || !x.about.judged.InForce || len(x.slotless()) == 0 {
		return
	}
	x.making.Lock()
	defer x.making.Unlock()
	for _, k := range x.slotless() {
		has := slices.ContainsFunc(x.Leases(x.caller), func(l *enforcer.Lease) bool { // a crash came in between
			there := x.open(l, recordMachine)
			return there != nil && there.ID == k.ID
		})
		if !has && !x.seated(k) {
			continue
		}
		if d := x.release(k); d != nil {
			x.Log().Warn("a machine has its slot, and is still recorded as one without", "machine", k.ID, "error",
				d.Detail)
		}
	}
}

// seated takes the slot of one machine. It asks only where there is room, so that each request of a machine beyond the
// limit is no denial of its own. making is held.
func (x *request) seated(k *kept) bool {
	items := x.amounts(&k.record)
	for _, p := range x.Pools() {
		for _, it := range items {
			if it.Pool == p.Name && (p.Paused || !p.Budget.Plus(p.Overage).Covers(sum(p.InUse, it.N))) {
				return false
			}
		}
	}
	rec := k.record
	r := &enforcer.Acquire{Caller: x.caller, Items: items, Lifetime: enforcer.LifetimeHeld}
	if !x.keepsDead(rec.Kind) && (x.mustBeat(rec.Kind) || !rec.Beat.IsZero()) {
		r.Lifetime, r.TTL = enforcer.LifetimeTTL, x.ttl()
		rec.Unstarted, rec.Beat = rec.Beat.IsZero(), time.Time{} // the lease has the time of the last ping from now on
	}
	b, err := json.Marshal(&rec)
	if err != nil {
		return false
	}
	_, _, d := x.Acquire(context.WithoutCancel(x.r.Context()), r, b)
	return d == nil
}

// unseated reports whether a machine that a scope names, or any where it names none, has no slot though the licence is
// in force: it is one machine too many.
func (x *request) unseated(scope *Scope) bool {
	if !x.about.judged.InForce {
		return false
	}
	if scope == nil {
		scope = &Scope{}
	}
	names, given := scope.machines()
	return slices.ContainsFunc(x.slotless(), func(k *kept) bool {
		switch {
		case scope.Machine != nil && *scope.Machine == k.ID, given && slices.Contains(names, k.Fingerprint):
			return true
		}
		return scope.Machine == nil && !given
	})
}

// noSlot refuses what a licence in force gives only to a machine with a slot; nil: it has one.
func (x *request) noSlot(k *kept) *response {
	if k.key == "" || !x.about.judged.InForce {
		return nil
	}
	return invalid("MACHINE_LIMIT_EXCEEDED", "the machine was activated while the license had expired, and no slot is "+
		"free for it: delete other machines, or have the license extended", "/data/relationships/machine")
}

// keepSlotless replaces the record of a machine without a slot; nil removes it.
func (x *request) keepSlotless(key string, value []byte) *enforcer.Denial {
	err := x.Store().Apply(plugin.Change{Key: key, Value: value})
	if err != nil {
		return &enforcer.Denial{Code: enforcer.Storage, Detail: err.Error()}
	}
	return nil
}
