package enforcer

// Filter says which leases are listed. The zero value is all.
type Filter struct {
	User *User  // that owns them; nil: whoever does
	Pool string // that they hold slots of; empty: whichever they do
}

func (f *Filter) has(l *Lease) bool {
	return (f.User == nil || l.Holder.Who() == *f.User) && (f.Pool == "" || l.item(f.Pool).N != 0)
}

// item returns the item of a lease that is of a pool; the zero value: it has none.
func (l *Lease) item(pool string) Item {
	for _, it := range l.Items {
		if it.Pool == pool {
			return it
		}
	}
	return Item{}
}

// Page returns leases behind a place of the list that a filter makes, in the order of their grants, and looks at no
// more than most. next is where the next page begins; more says that there may be one. A lease never changes its place:
// pages that follow on each other have each lease once that is held throughout, whatever else begins and ends
// meanwhile.
func (e *Enforcer) Page(f Filter, after Cursor, most int) (out []*Lease, next Cursor, more bool) {
	return e.AppendPage(nil, f, after, most)
}

// AppendPage is Page that appends the leases to out. It looks into no lease but the last where it need not: each is
// somewhere else in memory, and others wait.
func (e *Enforcer) AppendPage(out []*Lease, f Filter, after Cursor, most int) (_ []*Lease, next Cursor, more bool) {
	leases, exact := e.shortest(f)
	revoking := e.Revoking()
	var last *held
	leases(after, func(h *held) bool {
		if more = most == 0; more {
			return false
		}
		most--
		last = h
		switch {
		case !exact && !f.has(h.Lease):
		case revoking:
			out = append(out, e.view(h))
		default:
			out = append(out, h.Lease)
		}
		return true
	})
	if next = after; last != nil {
		next = CursorOf(last.Lease)
	}
	return out, next, more
}

// shortest returns the shortest list that has all that a filter lets through; exact: and nothing else.
func (e *Enforcer) shortest(f Filter) (leases func(Cursor, func(*held) bool), exact bool) {
	var lists []*series
	if f.User != nil {
		a := e.accounts[*f.User]
		if a == nil {
			a = &account{}
		}
		lists = append(lists, &a.leases)
	}
	if f.Pool != "" {
		p := e.pools[f.Pool]
		if p == nil || p.members == nil {
			p = &pool{members: &series{}}
		}
		lists = append(lists, p.members)
	}
	if len(lists) == 0 {
		return e.after, true
	}
	least := lists[0]
	for _, s := range lists[1:] {
		if s.n < least.n {
			least = s
		}
	}
	return least.after, len(lists) == 1
}

// after calls yield with the leases behind a place in the list of all, in their order, until it returns false.
func (e *Enforcer) after(c Cursor, yield func(*held) bool) {
	type run struct {
		next func() (*held, bool)
		at   *held
	}
	var runs []run
	for _, t := range e.tenures {
		if t.granted.n == 0 {
			continue
		}
		next := t.granted.from(c)
		if h, ok := next(); ok {
			runs = append(runs, run{next, h})
		}
	}
	for len(runs) > 1 {
		first := 0
		for i := range runs {
			if CursorOf(runs[i].at.Lease).compare(CursorOf(runs[first].at.Lease)) < 0 {
				first = i
			}
		}
		if !yield(runs[first].at) {
			return
		}
		if h, ok := runs[first].next(); ok {
			runs[first].at = h
		} else {
			runs[first] = runs[len(runs)-1]
			runs = runs[:len(runs)-1]
		}
	}
	for _, r := range runs { // nothing is compared any more
		for h, ok := r.at, true; ok && yield(h); {
			h, ok = r.next()
		}
	}
}

// Leases returns the leases that keep accepts (all for nil), in no particular order.
func (e *Enforcer) Leases(keep func(*Lease) bool) []*Lease {
	var out []*Lease
	if keep == nil {
		out = make([]*Lease, 0, e.Len())
	}
	revoking := e.Revoking()
	for _, t := range e.tenures { // not by their ids: what was granted together lies together
		for _, b := range t.granted.blocks {
			fetch(b.leases)
			for _, h := range b.leases {
				switch {
				case keep != nil && !keep(h.Lease):
				case revoking:
					out = append(out, e.view(h))
				default:
					out = append(out, h.Lease)
				}
			}
		}
	}
	return out
}

// fetch reads a little of each lease, as [Table.Touch] does of a place: a processor fetches several at a time, and each
// is at hand when it is looked at.
//
//go:noinline
func fetch(leases []*held) (read byte) {
	for _, h := range leases {
		read += byte(h.TTL) + byte(len(h.Others))
		if h.Unconfirmed {
			read++
		}
	}
	return read
}
