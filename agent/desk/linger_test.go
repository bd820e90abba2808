package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// keep has each user's slots linger for an hour.
func (k *keptStore) keep() {
	k.SetPolicies(enforcer.NewPolicies([]enforcer.Policy{{Name: "keep", Linger: time.Hour}}))
}

// lingering says how many slots of the pool streams linger, and how many are in use.
func (k *keptStore) lingering() (lingering, inUse int64) {
	p, _ := k.Pool("streams")
	return p.Lingering, p.InUse
}

// Slots that linger are kept for their user over restarts and compactions of the journals, for the rest of their time,
// whatever lease they are of. Those that the user has taken back, and those whose time is over, do not come again.
func TestLingerOutlivesRestarts(t *testing.T) {
	t.Parallel()
	for _, compacted := range []bool{false, true} {
		for _, lifetime := range []enforcer.Lifetime{enforcer.LifetimeTTL, enforcer.LifetimeHeld} {
			k := openKept(t)
			k.keep()
			ann := enforcer.Acquire{Pool: "streams", Caller: enforcer.Caller{UID: 1000}, Lifetime: lifetime}
			for range 3 {
				l, _, d := k.get(ann)
				if d != nil {
					t.Fatal(d)
				}
				k.wall = k.wall.Add(time.Second)
				if d := k.Release(&enforcer.Release{ID: l.ID, Caller: ann.Caller}); d != nil {
					t.Fatal(d)
				}
			}
			if n, used := k.lingering(); n != 1 || used != 0 {
				t.Fatalf("%d linger, %d are in use", n, used)
			}
			until := k.wall.Add(time.Hour)
			k.wall = k.wall.Add(40 * time.Minute)
			k.restart(compacted, false)
			k.keep()
			all := enforcer.Acquire{Pool: "streams", N: 9, Caller: enforcer.Caller{UID: 1001}}
			if _, d := k.Acquire(t.Context(), &all); d == nil || d.Code != enforcer.DeniedByPolicy ||
				d.Rule != "keep" || !d.Next.Equal(until) {
				t.Errorf("compacted %t, %s: another is told %+v", compacted, lifetime, d)
			}
			l, _, d := k.get(ann)
			if d != nil {
				t.Errorf("compacted %t, %s: its user: %v", compacted, lifetime, d)
			}
			k.restart(compacted, false)
			k.keep()
			if n, _ := k.lingering(); n != 0 {
				t.Errorf("compacted %t, %s: what was taken back lingers again", compacted, lifetime)
			}
			if d := k.Release(&enforcer.Release{ID: l.ID, Caller: ann.Caller}); d != nil {
				t.Fatal(d)
			}
			k.close()
			k.wall = k.wall.Add(time.Hour) // it passes while the agent is away
			k.open()
			k.keep()
			if n, _ := k.lingering(); n != 0 {
				t.Errorf("compacted %t, %s: %d linger after their time", compacted, lifetime, n)
			}
		}
	}
}

// What lingers by a rule that is taken away ends with it, and does not come again after a crash under a later rule of
// that name.
func TestLingerEndsWithItsRule(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	k.keep()
	l, _, _ := k.get(enforcer.Acquire{Pool: "streams"})
	if d := k.Release(&enforcer.Release{ID: l.ID}); d != nil {
		t.Fatal(d)
	}
	k.SetPolicies(enforcer.NewPolicies([]enforcer.Policy{{Name: "other", Linger: time.Hour}}))
	k.restart(false, false)
	k.keep()
	if n, _ := k.lingering(); n != 0 {
		t.Errorf("%d linger", n)
	}
}

// A licence that is away for a moment, as while its file is replaced or a restart has not read it yet, ends nothing
// that lingers.
func TestLingerOutlivesALicence(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	k.keep()
	l, _, _ := k.get(enforcer.Acquire{Pool: "streams"})
	if d := k.Release(&enforcer.Release{ID: l.ID}); d != nil {
		t.Fatal(d)
	}
	was := k.Verdict()
	k.SetVerdict(&enforcer.Verdict{State: enforcer.StateMissing, Code: enforcer.NotFound}, 0)
	k.SetVerdict(was, 0)
	if n, _ := k.lingering(); n != 1 {
		t.Errorf("%d linger", n)
	}
}

// A clock that was wrong when the slots were released does not make them linger for longer after a restart.
func TestLingerAfterAWrongClock(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	right := k.wall
	k.wall = right.Add(20 * time.Hour) // believed at once, and proved by nothing
	k.keep()
	l, _, _ := k.get(enforcer.Acquire{Pool: "streams"})
	if d := k.Release(&enforcer.Release{ID: l.ID}); d != nil {
		t.Fatal(d)
	}
	k.close()
	k.wall = right
	k.open()
	k.keep()
	now := k.Now()
	if all := k.core.Lingers(); len(all) != 1 || all[0].Until.Sub(now) > time.Hour {
		t.Errorf("it is %v, and what lingers is %+v", now, all)
	}
}

// Records of what lingers, and of what the site's rules need or do, have versions of their own, which an agent that
// knows no such thing refuses to read, and nothing else has.
func TestRecordsOfRules(t *testing.T) {
	t.Parallel()
	known := enforcer.ProfileOf(enforcer.Profile{Login: "ann", Groups: "100\nusers", Cgroup: "/a.slice"})
	lease := func(p, other enforcer.ProfileRef) *enforcer.Lease {
		return &enforcer.Lease{ID: enforcer.LeaseID{1}, Items: []enforcer.Item{{Pool: "streams", N: 1}},
			Lifetime: enforcer.LifetimeTTL, Holder: &enforcer.Holder{Caller: enforcer.Caller{UID: 1, Profile: p}},
			Others: []*enforcer.Holder{{Caller: enforcer.Caller{UID: 2, Profile: other}}}}
	}
	kept := &enforcer.Linger{Lease: enforcer.LeaseID{1}, Item: enforcer.Item{Pool: "streams", N: 1}, Rule: "keep"}
	none := enforcer.ProfileRef{}
	for name, c := range map[string]struct {
		ev       enforcer.Event
		profiles bool
		version  byte
	}{
		"a profile that is kept": {enforcer.Event{Kind: enforcer.EventGranted, Lease: lease(known, none)}, true,
			recordVersionRules},
		"a co-holder's": {enforcer.Event{Kind: enforcer.EventChanged, Lease: lease(none, known)}, true,
			recordVersionRules},
		"one that no rule looks at": {enforcer.Event{Kind: enforcer.EventGranted, Lease: lease(known, known)}, false,
			recordVersion},
		"none": {enforcer.Event{Kind: enforcer.EventGranted, Lease: lease(none, none)}, true, recordVersion},
		"max_hold": {enforcer.Event{Kind: enforcer.EventEnded, Lease: lease(none, none),
			Cause: enforcer.CauseMaxHold}, true, recordVersionRules},
		"idle": {enforcer.Event{Kind: enforcer.EventEnded, Lease: lease(none, none), Cause: enforcer.CauseIdle}, false,
			recordVersionRules},
		"another end": {enforcer.Event{Kind: enforcer.EventEnded, Lease: lease(known, none),
			Cause: enforcer.CauseExpired}, false, recordVersion},
		"lingers": {enforcer.Event{Kind: enforcer.EventLingers, Linger: kept}, true, recordVersionLingers},
		"over": {enforcer.Event{Kind: enforcer.EventLingerOver, Linger: kept, Cause: enforcer.CauseRevoked}, false,
			recordVersionLingers},
	} {
		b := encode(nil, &c.ev, c.profiles)
		if b[0] != c.version {
			t.Errorf("%s: version %d, want %d", name, b[0], c.version)
		}
		got, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return c.ev.Lease }, newSameParts())
		if err != nil || got.Kind != c.ev.Kind || got.Cause != c.ev.Cause {
			t.Errorf("%s: read back as %+v, %v", name, got, err)
			continue
		}
		if l := got.Lease; l != nil && c.ev.Kind != enforcer.EventEnded {
			want := none
			if c.profiles {
				want = c.ev.Lease.Holder.Profile
			}
			if l.Holder.Profile != want || c.profiles && l.Others[0].Profile != c.ev.Lease.Others[0].Profile {
				t.Errorf("%s: the profiles are read back as %v, %v", name, l.Holder.Profile, l.Others[0].Profile)
			}
		}
	}
}
