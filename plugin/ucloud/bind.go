package ucloud

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// bound is a job that holds a slot, by its lease.
type bound struct {
	license int64
	job     string
	lease   enforcer.LeaseID
	holder  holder
	at      int64
}

// held returns the jobs whose slots a holder has.
func (x *request) held(h holder) []bound {
	if list, ok := x.jobs[h]; ok {
		return list
	}
	var out []bound
	for _, l := range x.Leases(h.caller()) {
		var d data
		if json.Unmarshal(l.Data.Bytes, &d) == nil && holderOf(l.Holder.Caller) == h {
			out = append(out, bound{d.License, d.Job, l.ID, h, l.AcquiredAt.UnixNano()})
		}
	}
	if x.jobs == nil {
		x.jobs = map[holder][]bound{}
	}
	x.jobs[h] = out
	return out
}

// bound returns the jobs that hold a slot of a licence, the first bound first. The leases say which they are, and no
// list beside them that could be wrong.
func (x *request) bound(r *record) (out []bound) {
	for _, h := range r.Holders {
		for _, b := range x.held(h) {
			if b.license == r.ID {
				out = append(out, b)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b bound) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(len(a.job), len(b.job)), cmp.Compare(a.job, b.job))
	})
	return out
}

// bind takes a slot for a job, unless the job has one. The caller holds making, and calls undoAll when a later step of
// the request fails.
func (x *request) bind(r *record, job string) *Fault {
	if slices.ContainsFunc(x.bound(r), func(b bound) bool { return b.job == job }) {
		return nil
	}
	name := fmt.Sprintf("%s with ID '%s'", r.Product.ID, r.id())
	if s := x.state(r); s != StateReady {
		why := name + " is not ready"
		if r.State == StateReady {
			why += ": " + x.reason()
		}
		return refuse(http.StatusBadRequest, why)
	}
	o, f := x.usable(r.Product)
	if f != nil {
		return f
	}
	h := holderOf(x.who.caller)
	if f := x.enlist(r, h); f != nil {
		return f
	}
	// The same binding twice takes one slot, so that a grant whose answer is lost is found again: it is not taken back.
	l, _, d := x.Acquire(context.WithoutCancel(x.r.Context()), &enforcer.Acquire{Caller: x.who.caller, Pool: o.pool,
		N: 1, Lifetime: enforcer.LifetimeHeld, Labels: map[string]string{labelJob: job, labelLicense: r.id()}},
		data{r.ID, job}.encode())
	if d != nil {
		return denied(d, name)
	}
	delete(x.jobs, h)
	x.granted = true
	x.undo = append(x.undo, func() {
		x.Release(&enforcer.Release{ID: l.ID, Caller: x.who.caller}) // nobody heard of it
		delete(x.jobs, h)
	})
	return nil
}

// enlist writes a holder into a licence's record, and nothing else of it: the rest of the request may yet be refused.
func (x *request) enlist(r *record, h holder) *Fault {
	if slices.Contains(r.Holders, h) {
		return nil
	}
	// Holders without a lease are forgotten.
	r.Holders = slices.DeleteFunc(r.Holders, func(h holder) bool {
		return !slices.ContainsFunc(x.held(h), func(b bound) bool { return b.license == r.ID })
	})
	if len(r.Holders) >= maxHolders {
		return refuse(http.StatusBadRequest, "Too many callers hold slots of this licence")
	}
	r.Holders = append(r.Holders, h)
	stored := x.find(r.id())
	if stored == nil {
		return errGone
	}
	stored.Holders = r.Holders
	return x.save([]*record{stored})
}

// undoAll gives back what the request has taken.
func (x *request) undoAll() {
	for _, f := range slices.Backward(x.undo) {
		f()
	}
	x.undo, x.granted = nil, false
}

// unbind gives the slots of a job back; an empty job stands for all. A job without a slot is no fault.
func (x *request) unbind(r *record, job string) *Fault {
	for _, b := range x.bound(r) {
		if job != "" && b.job != job {
			continue
		}
		d := x.Release(&enforcer.Release{ID: b.lease, Caller: b.holder.caller()})
		if d != nil && d.Code != enforcer.LeaseUnknown {
			return denied(d, r.Product.ID)
		}
		delete(x.jobs, b.holder)
	}
	return nil
}

// updateItem is an item of control.update.
type updateItem struct {
	ID     string `json:"id"`
	Update *struct {
		Timestamp *int64   `json:"timestamp"` // ignored: the agent's own clock counts
		State     *string  `json:"state"`
		Status    *string  `json:"status"`
		Binding   *Binding `json:"binding"`
	} `json:"update"`
}

// check returns the fault of an item.
func (i *updateItem) check(x *request) *Fault {
	u := i.Update
	if u == nil {
		return refuse(http.StatusBadRequest, "An item needs its update")
	}
	if u.State != nil {
		switch {
		case !slices.Contains([]string{StatePreparing, StateReady, StateUnavailable}, *u.State):
			return errBad
		case !x.provides():
			return refuse(http.StatusForbidden, "Forbidden")
		}
	}
	if b := u.Binding; b != nil && (b.Kind != Bind && b.Kind != Unbind || !jobName(b.Job)) {
		return refuse(http.StatusBadRequest, "A binding needs the kind BIND or UNBIND, and a job's id in digits")
	}
	return nil
}

// provides reports whether the caller speaks for the provider.
func (x *request) provides() bool {
	return x.who.admin || x.who.role == ProviderRole || x.who.role == roleService
}

// update takes a provider's updates: states, texts and bindings. On a socket the owner of a licence may bind its jobs.
// All items are checked before the first is applied, and if one is refused none stays.
func (x *request) update() (any, *Fault) {
	if x.who.token && !x.provides() {
		return nil, refuse(http.StatusForbidden, "Forbidden")
	}
	items, f := bulk[updateItem](x)
	if f != nil {
		return nil, f
	}
	x.making.Lock()
	defer x.making.Unlock()
	records := map[string]*record{}
	for i := range items {
		item := &items[i]
		r := x.may(item.ID, Edit)
		if r == nil || x.elsewhere(r) {
			return nil, refuse(http.StatusNotFound,
				"Not found or permission denied ("+plugin.Short(item.ID)+")")
		}
		if f := item.check(x); f != nil {
			return nil, f
		}
		if records[item.ID] == nil {
			records[item.ID] = r
		}
	}
	var changed []*record
	last := map[string]string{} // what the request wants of a licence's job in the end
	job := func(i *updateItem) string { return i.ID + "/" + i.Update.Binding.Job }
	for i := range items {
		if b := items[i].Update.Binding; b != nil {
			last[job(&items[i])] = b.Kind
		}
	}
	for i := range items {
		r := records[items[i].ID]
		wanted := items[i].Update.Binding != nil && last[job(&items[i])] == Bind
		if f := x.note(r, &items[i], wanted); f != nil {
			x.undoAll()
			return nil, f
		}
		if !slices.Contains(changed, r) {
			changed = append(changed, r)
		}
	}
	if f := x.save(changed); f != nil {
		x.undoAll()
		return nil, f
	}
	// Slots come free only when all else has succeeded.
	for i := range items {
		if b := items[i].Update.Binding; b != nil && last[job(&items[i])] == Unbind {
			if f := x.unbind(records[items[i].ID], b.Job); f != nil {
				return nil, f
			}
		}
	}
	return Empty{}, nil
}

// note applies an item to its record, and takes the slot of its job where one is wanted.
func (x *request) note(r *record, item *updateItem, wanted bool) *Fault {
	u := item.Update
	if wanted {
		if f := x.bind(r, u.Binding.Job); f != nil {
			return f
		}
	}
	kept := Update{Timestamp: ms(x.Now()), State: u.State, Binding: u.Binding}
	if u.State != nil {
		r.State = *u.State
	}
	if u.Status != nil {
		kept.Status = new(clip(*u.Status, maxStatus))
	}
	r.Updates = append(r.Updates, kept)
	return nil
}
