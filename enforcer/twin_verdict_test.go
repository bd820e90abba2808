package enforcer

import (
	"time"

	"pgregory.net/rapid"
)

// issue draws the licences that may be in force.
func (s *twin) issue(t *rapid.T) {
	for i, id := range []string{"L0", "L1", "L2"} {
		l := &License{ID: id, System: "usher", Issued: s.now.Add(time.Duration(i) * time.Hour),
			OnExpiry: rapid.SampledFrom([]OnExpiry{Drain, Revoke, Keep}).Draw(t, "on_expiry")}
		if rapid.Bool().Draw(t, "ends") {
			l.Expires = s.now.Add(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour}).Draw(t, "expires"))
		}
		if rapid.IntRange(0, 2).Draw(t, "free") == 0 {
			l.Role = RoleFree
		}
		if rapid.IntRange(0, 3).Draw(t, "supersedes") == 0 {
			l.Supersedes = []string{"L1"}
		}
		s.licences = append(s.licences, l)
	}
}

// licence has another verdict, which at times turns into others by itself before the next is judged.
func (s *twin) licence(t *rapid.T) {
	v := s.verdict(t, s.m.verdict != nil)
	if at := s.now; v.Good() {
		for range rapid.IntRange(0, 2).Draw(t, "turns") {
			next := s.verdict(t, true)
			at = at.Add(time.Duration(rapid.Int64Range(1, 30).Draw(t, "in")) * time.Second)
			next.JudgedAt = at
			if v.Until.IsZero() {
				v.Until = at
			}
			v.Next = append(v.Next, next)
			if !next.Good() {
				break
			}
		}
	}
	s.judge(t, v)
}

// judge puts a verdict in force.
func (s *twin) judge(t *rapid.T, v *Verdict) {
	s.do(t, &SetVerdict{v})
	s.m.judge(v, s.now)
	s.takeOver(t)
	s.serve(t, true)
}

func (s *twin) verdict(t *rapid.T, mayBeBad bool) *Verdict {
	base := rapid.SampledFrom(s.licences).Draw(t, "base")
	v := &Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{}, Meters: map[string]MeterGrant{},
		OnExpiry: base.OnExpiry, TerminatesAt: base.Expires,
		Licenses:    []Judged{{License: base, InForce: true, Code: Valid}},
		MaxBorrow:   rapid.SampledFrom([]time.Duration{0, 20 * time.Second, 20 * time.Hour}).Draw(t, "max_borrow"),
		EarlyReturn: rapid.Bool().Draw(t, "early_return")}
	for _, l := range s.licences {
		code := rapid.SampledFrom([]Code{"", Superseded, Expired, Revoked, "spare"}).Draw(t, "of "+l.ID)
		if l == base || code == "" {
			continue
		}
		j := Judged{License: l, Code: code}
		if code == "spare" {
			j.Code, j.Spare = Superseded, true
		}
		v.Licenses = append(v.Licenses, j)
	}
	if mayBeBad && rapid.IntRange(0, 3).Draw(t, "bad") == 0 {
		v.State, v.Code, v.Reason = StateExpired, Expired, "it expired"
		v.Licenses[0].InForce = false
	}
	if v.Good() && rapid.IntRange(0, 5).Draw(t, "paused") == 0 {
		v.Code, v.Paused = ValidInGrace, "the upstream says: it is not available"
	}
	if !base.Expires.IsZero() {
		v.CoveredUntil = s.now.Add(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour}).Draw(t, "covered"))
	}
	if v.Good() || rapid.Bool().Draw(t, "terms stay") {
		for _, p := range poolNames {
			if rapid.IntRange(0, 4).Draw(t, "has "+p) > 0 {
				limit := Limit(rapid.Int64Range(0, 6).Draw(t, "limit"))
				g := PoolGrant{Name: p, Limit: limit, Budget: limit,
					Overage: Limit(rapid.Int64Range(0, 1).Draw(t, "overage")),
					CountBy: rapid.SampledFrom([]CountBy{CountLease, CountLease, CountUser, CountProcess, CountProcess,
						CountPod, CountHost, "user/2", "host/3", "process+label:job", "pod+user", "label:job/2"}).Draw(
						t,
						"by")}
				if g.CountBy == CountLease && rapid.IntRange(0, 3).Draw(t, "narrowed") == 0 {
					g.HoldersBy = rapid.SampledFrom([]CountBy{CountProcess, CountPod, "pod+user/2"}).Draw(t,
						"holders by")
				}
				if rapid.IntRange(0, 3).Draw(t, "a share is over") == 0 {
					g.Kept, g.Bounded = Limit(rapid.Int64Range(0, 3).Draw(t, "kept")), true
				}
				if rapid.IntRange(0, 2).Draw(t, "in parts") == 0 {
					g.Quantum = rapid.SampledFrom([]int64{4, 6}).Draw(t, "quantum")
				}
				v.Pools[p] = g
			}
		}
		for _, p := range meterNames {
			if rapid.IntRange(0, 4).Draw(t, "has "+p) > 0 {
				v.Meters[p] = s.meter(t, p)
			}
		}
	}
	return v
}
