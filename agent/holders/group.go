package holders

import (
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
	rows []groupRow // none is ever copied: a million leases would fill much memory for nothing
}

// groupRow is some leases, and their ids beside them: those are gone through without a look at the leases, each of
// which is somewhere else in memory.
type groupRow struct {
	leases []*enforcer.Lease
	ids    []enforcer.LeaseID
}

// rowSize is how many leases a row has at the most.
const rowSize = 4096

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
	if last < 0 || len(g.rows[last].ids) == rowSize {
		row := groupRow{}
		if last >= 0 { // where one row was filled, the next is likely to be
			row.leases, row.ids = make([]*enforcer.Lease, 0, rowSize), make([]enforcer.LeaseID, 0, rowSize)
		}
		g.rows = append(g.rows, row)
		last++
	}
	row := &g.rows[last]
	row.leases, row.ids = append(row.leases, l), append(row.ids, l.ID)
	g.n++
}

// leases calls yield with each lease in the order in which they were added, until it returns false.
func (g *group) leases(yield func(*enforcer.Lease) bool) {
	for _, row := range g.rows {
		for _, l := range row.leases {
			if !yield(l) {
				return
			}
		}
	}
}

// ids is leases for their ids.
func (g *group) ids(yield func(enforcer.LeaseID) bool) {
	for _, row := range g.rows {
		for _, id := range row.ids {
			if !yield(id) {
				return
			}
		}
	}
}

// beside runs f and g, at the same time where that is worth a goroutine for n leases.
func beside(n int, f, g func()) {
	if n < rowSize {
		f()
		g()
		return
	}
	var other sync.WaitGroup
	other.Go(g)
	f()
	other.Wait()
}
