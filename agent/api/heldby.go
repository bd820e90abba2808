package api

import (
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// A denial names mostHolders holders at most, of the oldest holdersAmong leases that may be of the caller's.
const mostHolders, holdersAmong = 5, 32

// holdersOf returns some of those who hold what a request lacks, as far as a caller may know of them: an admin of all,
// others of their own leases.
func (s *Server) holdersOf(d *enforcer.Denial, p *peer, admin bool) (out []wire.HeldBy) {
	if d.Code != enforcer.NoSlots && d.Code != enforcer.DeniedByPolicy || !d.HasUsage || d.InUse == 0 {
		return nil
	}
	f := enforcer.Filter{Pool: d.Pool}
	if !admin {
		f.User = new(p.caller(false).Who())
	}
	for _, l := range s.slots.Oldest(f, holdersAmong) {
		if len(out) == mostHolders {
			break
		}
		if !admin && !p.sees(l.Holder) {
			continue
		}
		h := holderOf(l.Holder)
		if !admin {
			h.Labels = nil // they may hold what a caller that is no admin is shown nowhere
		}
		for _, it := range l.Items {
			if it.Pool == d.Pool {
				out = append(out, wire.HeldBy{Holder: &h, N: it.N, Of: it.Of, Since: l.AcquiredAt.UTC(),
					EndsAt: Instant(l.ExpiresAt)})
			}
		}
	}
	return out
}
