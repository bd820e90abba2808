package keygen

import (
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// revive returns how long a dead machine or process keeps its place.
func (x *request) revive() time.Duration {
	return heartbeat(true, &x.about.terms.Policy, nil).Grace
}

// ttl returns how long a lease lasts without a ping.
func (x *request) ttl() time.Duration {
	return min(time.Duration(x.heartbeatSeconds())*time.Second+x.revive(), enforcer.MaxTTL)
}

// keepsDead reports whether the policy keeps dead machines or processes: they hold their places until they are deleted.
func (x *request) keepsDead(kind string) bool {
	return kind != recordNode && x.about.terms.Policy.HeartbeatCull == keepDead
}

// mustBeat reports whether a machine or process must keep a heartbeat, whether or not it has begun one.
func (x *request) mustBeat(kind string) bool {
	return kind != recordMachine || x.about.terms.Attributes.RequireHeartbeat
}

// beatsFromCreation reports whether its creation counts as the first ping.
func (x *request) beatsFromCreation(kind string) bool {
	return x.mustBeat(kind) && (kind != recordMachine || x.about.terms.Policy.HeartbeatBasis != fromFirstPing)
}

// lasting returns the lifetime of a new machine's or process's lease, and begins its heartbeat where that begins with
// its creation.
func (x *request) lasting(r *enforcer.Acquire, rec *record) {
	begins := x.beatsFromCreation(rec.Kind)
	switch {
	case x.keepsDead(rec.Kind):
		if r.Lifetime = enforcer.LifetimeHeld; begins {
			rec.Beat = x.now
		}
	case x.mustBeat(rec.Kind):
		r.Lifetime, r.TTL, rec.Unstarted = enforcer.LifetimeTTL, x.ttl(), !begins
	default:
		r.Lifetime = enforcer.LifetimeHeld
	}
}

// lastPing returns the time of the last ping; zero: there was none.
func (x *request) lastPing(k *kept) time.Time {
	switch {
	case !k.Beat.IsZero():
		return k.Beat
	case k.lease.Lifetime != enforcer.LifetimeTTL, k.Unstarted:
		return time.Time{}
	}
	last := k.lease.ExpiresAt.Add(-k.lease.TTL)
	if last.After(x.now) { // a restart has extended the lease
		return x.now
	}
	return last
}

// life returns the state of a machine's or process's heartbeat, and the time of the last ping.
func (x *request) life(k *kept) (l Life, last time.Time) {
	interval := time.Duration(k.Interval) * time.Second
	switch last = x.lastPing(k); {
	case last.IsZero() && (!x.mustBeat(k.Kind) || !k.Made.Add(interval).Before(x.now)):
		return NotStarted, last
	case last.IsZero(), last.Add(interval).Before(x.now):
		return Dead, last
	}
	return Alive, last
}

// beats reports whether a machine must keep a heartbeat from now on.
func (x *request) beats(k *kept) bool { return x.mustBeat(k.Kind) || !x.lastPing(k).IsZero() }

// mayRevive reports whether a ping revives a dead machine or process. A lease that ends with its heartbeat stands for
// as long as the policy lets it be revived.
func (x *request) mayRevive(k *kept, last time.Time) bool {
	switch {
	case x.about.terms.Policy.HeartbeatResurrection == alwaysRevive:
		return true
	case last.IsZero(): // it was made before there was the duty, or it has missed its first ping
		return k.lease.Lifetime == enforcer.LifetimeHeld && !x.keepsDead(k.Kind)
	case k.lease.Lifetime == enforcer.LifetimeTTL:
		return true
	}
	until := last.Add(time.Duration(k.Interval)*time.Second + x.revive())
	return x.revive() > 0 && !until.Before(x.now)
}

// ping renews a lease. keygen-go ends its whole process when a ping fails. So as long as the lease stands, the answer
// is good, even if the journal could not record the renewal. Only a dead machine or process that the policy does not
// let be revived is refused.
func (x *request) ping(k *kept) (revived Life, a *response) {
	if life, last := x.life(k); life == Dead {
		if !x.mayRevive(k, last) {
			return "", invalid(map[string]string{recordMachine: "MACHINE_HEARTBEAT_DEAD",
				recordProcess: "PROCESS_HEARTBEAT_DEAD"}[k.Kind], "is dead", "/data/attributes/lastHeartbeat")
		}
		revived = Resurrected
	}
	switch {
	case k.key != "", x.keepsDead(k.Kind) && k.lease.Lifetime == enforcer.LifetimeHeld:
		k.Beat = x.now
		x.note(k)
		return revived, nil
	case k.lease.Lifetime != enforcer.LifetimeTTL:
		x.become(k, enforcer.LifetimeTTL) // a machine that begins to ping must go on
		return Alive, nil
	}
	if l, d := x.Renew(&enforcer.Renew{ID: k.lease.ID, Caller: x.caller}); d == nil {
		k.lease = l
	} else {
		x.Log().Warn("a ping was answered without a renewal of its lease", "lease", k.lease.ID.String(), "error",
			d.Detail)
	}
	if k.Unstarted {
		k.Unstarted = false
		x.note(k)
	}
	return revived, nil
}

// note keeps what a record has learned. What cannot be kept counts for this answer alone.
func (x *request) note(k *kept) {
	if d := x.keep(k); d != nil {
		x.Log().Warn("what a call changed of a machine or process is not kept", "id", k.ID, "error", d.Detail)
	}
}

// keep replaces the record on a lease.
func (x *request) keep(k *kept) *enforcer.Denial {
	b, err := json.Marshal(&k.record)
	if err != nil || len(b) > plugin.MaxLeaseData {
		return &enforcer.Denial{Code: enforcer.TooLarge, Detail: "the record is too large"}
	}
	if k.key != "" {
		return x.keepSlotless(k.key, b)
	}
	return x.SetData(k.lease.ID, x.caller, b)
}

func (x *request) pingMachine() *response {
	k := x.machine(x.args[0])
	if k == nil {
		return noMachineOf(x.args[0])
	}
	revived, a := x.ping(k)
	if a != nil {
		return a
	}
	return show(x.machineObject(k, revived))
}

// resetMachine ends the heartbeat of a machine that began to ping without being obliged to.
func (x *request) resetMachine() *response {
	k := x.machine(x.args[0])
	switch {
	case k == nil:
		return noMachineOf(x.args[0])
	case x.mustBeat(recordMachine):
		return forbidden("", "You do not have permission to complete the request: the machine must keep a heartbeat")
	case !k.Beat.IsZero():
		k.Beat = time.Time{}
		if d := x.keep(k); d != nil {
			return denied(d, nil)
		}
	case k.lease.Lifetime == enforcer.LifetimeTTL:
		x.become(k, enforcer.LifetimeHeld)
	}
	return show(x.machineObject(k, ""))
}

// become replaces a machine's lease by one of another lifetime. If no slot is free for both, the machine has none for a
// moment. The dialect makes no other machine then, but another holder of the pool may take the slot. A machine that
// cannot get the new lease keeps the old one.
func (x *request) become(k *kept, lifetime enforcer.Lifetime) {
	x.making.Lock()
	defer x.making.Unlock()
	if now := x.get(k.Kind, k.ID); now == nil || now.lease.Lifetime == lifetime {
		if now != nil {
			*k = *now
		}
		return
	}
	k.Beat, k.Unstarted = time.Time{}, false
	b, err := json.Marshal(k.record)
	if err != nil || len(b) > plugin.MaxLeaseData {
		return // with its id and date the record has become too large
	}
	acquire := func(lifetime enforcer.Lifetime) (*enforcer.Lease, *enforcer.Denial) {
		// The client token keeps the lease if the ping's answer cannot be delivered.
		r := &enforcer.Acquire{Caller: x.caller, Items: k.lease.Items, Lifetime: lifetime, Token: newID()}
		if lifetime == enforcer.LifetimeTTL {
			r.TTL = x.ttl()
		}
		l, _, d := x.Acquire(x.r.Context(), r, b)
		return l, d
	}
	old := k.lease
	l, d := acquire(lifetime)
	switch {
	case d == nil:
		x.release(k)
	case d.Code == enforcer.NoSlots:
		x.release(k)
		if l, d = acquire(lifetime); d != nil {
			if l, d = acquire(old.Lifetime); d != nil {
				x.Log().Error("a machine has lost its slot to another holder of the pool", "machine", k.ID, "error",
					d.Detail)
				return
			}
		}
	default:
		x.Log().Warn("a machine's lease stays as it is", "machine", k.ID, "lifetime", string(old.Lifetime), "error",
			d.Detail)
		return
	}
	k.lease = l
}
