package holders

import (
	"iter"
	"sync"

	"github.com/usher-agent/usher/enforcer"
)

// groups are leases that live by one process alone, by that process. The zero value has none.
type groups struct {
	all  map[*enforcer.Holder]*group
	last *group // of the lease that was added last
}

// group is the leases of one holder.
type group struct {
	by   *enforcer.Holder
	n    int
	rows [][]*enforcer.Lease // none is ever copied: a million leases would fill much memory for nothing
}

// groupRow is how many leases a row has at the most.
const groupRow = 4096

// add adds a lease, which mostly is of the same holder as the one before.
func (x *groups) add(l *enforcer.Lease) {
	if x.last == nil || x.last.by != l.Holder {
		if x.last = x.all[l.Holder]; x.last == nil {
			if x.all == nil {
				x.all = map[*enforcer.Holder]*group{}
			}
			x.last = &group{by: l.Holder}
			x.all[l.Holder] = x.last
		}
	}
	x.last.add(l)
}

func (g *group) add(l *enforcer.Lease) {
	last := len(g.rows) - 1
	switch {
	case last < 0:
		g.rows = append(g.rows, []*enforcer.Lease{l})
	case len(g.rows[last]) < groupRow:
		g.rows[last] = append(g.rows[last], l)
	default:
		g.rows = append(g.rows, append(make([]*enforcer.Lease, 0, groupRow), l))
	}
	g.n++
}

// leases calls yield with each lease in the order in which they were added, until it returns false.
func (g *group) leases(yield func(*enforcer.Lease) bool) {
	for _, row := range g.rows {
		for _, l := range row {
			if !yield(l) {
				return
			}
		}
	}
}

// ids is leases for their ids.
func (g *group) ids() iter.Seq[enforcer.LeaseID] {
	return func(yield func(enforcer.LeaseID) bool) {
		for l := range g.leases {
			if !yield(l.ID) {
				return
			}
		}
	}
}

// beside runs f and g, at the same time where that is worth a goroutine for n leases.
func beside(n int, f, g func()) {
	if n < groupRow {
		f()
		g()
		return
	}
	var other sync.WaitGroup
	other.Go(g)
	f()
	other.Wait()
}
