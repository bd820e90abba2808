package soak

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// op is one call as the harness knows it afterwards.
type op struct {
	record
	Segment int   // between two quiet points
	Client  int   // which of the sixteen
	Done    int64 // 0: no answer came
	Killed  int64 // when the client was killed; 0: it lives
	Gone    int64 // when a killed client's leases were seen to be gone
}

// listing is what the agent listed as held for an admin.
type listing struct {
	From, To int64
	Held     map[string]string // the call that asked for each lease
}

// history is everything that was recorded.
type history struct {
	mu       sync.Mutex // guards all below
	Limits   map[string]int64
	Ops      []*op
	Listings []listing
	Kills    []int64 // when the agent was dead
	byOp     map[string]*op
	Lost     []record
	grants   int
	segment  int
	inSeg    int
	found    int            // leases that were surely held and listed
	waits    map[part][]*op // the calls that were ready to wait
}

// part is one pool between two quiet points.
type part struct {
	segment int
	pool    string
}

func (h *history) add(client int, r record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch r.Event {
	case "call":
		o := &op{record: r, Segment: h.segment, Client: client}
		h.Ops = append(h.Ops, o)
		h.byOp[r.Op] = o
		h.inSeg++
	case "done":
		o := h.byOp[r.Op]
		o.Done, o.Result, o.Lease, o.Last = r.At, r.Result, r.Lease, r.Last
		if r.Result == "granted" {
			h.grants++
		}
	case "lost":
		h.Lost = append(h.Lost, r)
	}
}

// span is n slots of a pool that were held, from a call to an end.
type span struct {
	id              string
	client, segment int
	pool            string
	n               int64
	call, answer    int64 // of the grant
	end, gone       int64 // the release's call or the kill; its answer or when the lease was seen to be gone
	phantom         bool  // no answer came: it may have been granted
}

// phantomGrace is how long after a dead client's leases were gone a request of its may still lie unread in a socket.
const phantomGrace = int64(time.Second)

func (h *history) spans() (all []span) {
	releases := map[string]*op{}
	for _, o := range h.Ops {
		if o.Kind == "release" {
			releases[o.Lease] = o
		}
	}
	for _, o := range h.Ops {
		if o.Kind != "acquire" || o.Result == "denied" {
			continue
		}
		s := span{id: o.Lease, client: o.Client, segment: o.Segment, call: o.At, answer: o.Done, end: math.MaxInt64,
			gone: math.MaxInt64}
		if o.Killed > 0 {
			s.end, s.gone = o.Killed, o.Gone
		}
		if s.phantom = o.Done == 0; s.phantom {
			s.gone = min(s.gone, math.MaxInt64-phantomGrace) + phantomGrace
		} else if r := releases[o.Lease]; r != nil {
			s.end = min(s.end, r.At)
			if r.Done > 0 {
				s.gone = r.Done
			}
		}
		for pool, n := range o.Items {
			s.pool, s.n = pool, n
			all = append(all, s)
		}
	}
	return all
}

// sweep walks over every instant. It returns every violation of: surely-held ≤ limit; no denial while surely-free ≥ n;
// every lease that is surely held is listed; draws are counted once.
func (h *history) sweep() (wrong []string) {
	spans := h.spans()
	type step struct{ at, n int64 }
	possibly := map[string][]step{} // how much may be held from an instant on
	for pool, limit := range h.Limits {
		var sure, may []step
		for _, s := range spans {
			if s.pool != pool {
				continue
			}
			if !s.phantom && s.answer < s.end {
				sure = append(sure, step{s.answer, s.n}, step{s.end, -s.n})
			}
			may = append(may, step{s.call, s.n}, step{s.gone, -s.n})
		}
		held := int64(0)
		slices.SortFunc(sure, func(a, b step) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
		for _, st := range sure {
			if held += st.n; held > limit {
				wrong = append(wrong,
					fmt.Sprintf("%s: %d slots are surely held at %d, and the limit is %d", pool, held, st.at, limit))
			}
		}
		// At one instant a grant counts before an end: possibly held is an upper bound.
		slices.SortFunc(may, func(a, b step) int { return cmp.Or(cmp.Compare(a.at, b.at), -cmp.Compare(a.n, b.n)) })
		held = 0
		for i, st := range may {
			held += st.n
			may[i].n = held
		}
		possibly[pool] = may
	}
	for _, o := range h.Ops {
		if o.Kind != "acquire" || o.Result != "denied" || h.queued(o) {
			continue
		}
		free := true
		for pool, n := range o.Items {
			steps, most := possibly[pool], int64(0)
			first, _ := slices.BinarySearchFunc(steps, o.Last, func(st step, at int64) int {
				return cmp.Compare(st.at, at)
			})
			for i := max(0, first-1); i < len(steps) && steps[i].at <= o.Done; i++ {
				most = max(most, steps[i].n)
			}
			free = free && h.Limits[pool]-most >= n
		}
		if free {
			wrong = append(wrong,
				fmt.Sprintf("%s: %v was denied from %d to %d, and it was surely free", o.Op, o.Items, o.Last, o.Done))
		}
	}
	wrong = append(wrong, h.unlisted(spans)...)
	for _, o := range h.Ops {
		if o.Result == "missing" && !slices.ContainsFunc(h.Kills, func(at int64) bool {
			return o.At <= at && at <= o.Done
		}) {
			wrong = append(wrong, fmt.Sprintf("lease %s is lost: its release, the only one, found none", o.Lease))
		}
	}
	for _, r := range h.Lost {
		wrong = append(wrong, fmt.Sprintf("lease %s is lost: %s", r.Lease, r.Why))
	}
	return wrong
}

// unlisted compares the agent's lists with the history: everything that is surely held is listed, nothing that is
// surely over is, and each call has the lease that its answer named.
func (h *history) unlisted(spans []span) (wrong []string) {
	for _, l := range h.Listings {
		for _, s := range spans {
			_, listed := l.Held[s.id]
			switch {
			case s.phantom:
			case !listed && s.answer < l.From && s.end > l.To:
				wrong = append(wrong, fmt.Sprintf("lease %s of client %d is lost: surely held, and not listed at %d",
					s.id, s.client, l.From))
			case listed && s.gone < l.From:
				wrong = append(wrong, fmt.Sprintf("lease %s of client %d has come back: surely over, and listed at %d",
					s.id, s.client, l.From))
			case listed && s.answer < l.From && s.end > l.To:
				h.found++
			}
		}
		for id, call := range l.Held {
			switch o := h.byOp[call]; {
			case o == nil:
				wrong = append(wrong, fmt.Sprintf(
					"lease %s, listed at %d, was asked for by %q, which nobody has called", id, l.From, call))
			case o.Done > 0 && o.Lease != id:
				wrong = append(wrong,
					fmt.Sprintf("lease %s, listed at %d, is a second one of %s, which was answered %s %s", id, l.From,
						call, o.Result, o.Lease))
			}
		}
	}
	return wrong
}

// queued says whether another call waited in a pool of a call's during it: waiters go first, so that a denial is right
// though slots are free.
func (h *history) queued(o *op) bool {
	if h.waits == nil {
		h.waits = map[part][]*op{}
		for _, w := range h.Ops {
			for pool := range w.Items {
				if w.Wait {
					h.waits[part{w.Segment, pool}] = append(h.waits[part{w.Segment, pool}], w)
				}
			}
		}
	}
	for pool := range o.Items {
		if slices.ContainsFunc(h.waits[part{o.Segment, pool}], func(w *op) bool {
			return w != o && w.At <= o.Done && (w.Done == 0 || w.Done >= o.Last)
		}) {
			return true
		}
	}
	return false
}

// change is a call's effect on a pool: n > 0 takes, n < 0 gives back.
type change struct {
	n      int64
	denied bool
}

// model is a pool: a number of slots in use.
func model(limit int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, input, _ any) (bool, any) {
			used, c := state.(int64), input.(change)
			if c.denied {
				return used+c.n > limit, used
			}
			return used+c.n <= limit && used+c.n >= 0, used + c.n
		},
		DescribeOperation: func(input, _ any) string {
			if c := input.(change); c.denied {
				return fmt.Sprintf("%d denied", c.n)
			}
			return fmt.Sprintf("%+d", input.(change).n)
		},
	}
}

// linearize checks the history with porcupine, pool by pool and from quiet point to quiet point. It draws faults into
// dir. It leaves out a call whose answer never came, and with it the denials that it could explain, and counts them.
func (h *history) linearize(dir string) (wrong []string, checked, excused int) {
	parts := map[part][]porcupine.Operation{}
	phantoms := map[part][]span{}
	for _, s := range h.spans() {
		p := part{s.segment, s.pool}
		if s.phantom {
			phantoms[p] = append(phantoms[p], s)
			continue
		}
		parts[p] = append(parts[p],
			porcupine.Operation{ClientId: s.client, Input: change{n: s.n}, Call: s.call, Return: s.answer})
		if s.gone < math.MaxInt64 {
			parts[p] = append(parts[p],
				porcupine.Operation{ClientId: s.client, Input: change{n: -s.n}, Call: s.end, Return: s.gone})
		}
	}
	for _, o := range h.Ops {
		// of several pools, one is the reason: the sweep's
		if o.Kind != "acquire" || o.Result != "denied" || len(o.Items) > 1 {
			continue
		}
		for pool, n := range o.Items {
			p := part{o.Segment, pool}
			if o.Wait || h.queued(o) || slices.ContainsFunc(phantoms[p], func(s span) bool {
				return s.call < o.Done && s.gone > o.Last
			}) {
				excused++
				continue
			}
			parts[p] = append(parts[p], porcupine.Operation{ClientId: o.Client, Input: change{n: n, denied: true},
				Call: o.Last, Return: o.Done})
		}
	}
	for p, ops := range parts {
		checked += len(ops)
		m := model(h.Limits[p.pool])
		if porcupine.CheckOperationsTimeout(m, ops, 60*time.Second) == porcupine.Ok {
			continue
		}
		result, info := porcupine.CheckOperationsVerbose(m, ops, 60*time.Second) // draws cost more to keep
		file := filepath.Join(dir, fmt.Sprintf("%s-%d.html", p.pool, p.segment))
		wrong = append(wrong, fmt.Sprintf("%s, segment %d, %d operations: porcupine says %s: see %s", p.pool, p.segment,
			len(ops), result, file))
		if err := porcupine.VisualizePath(m, info, file); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong, checked, excused
}

// keep writes the history where it stays.
func (h *history) keep(t *testing.T, dir string) {
	t.Helper()
	b, err := json.Marshal(h)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "history.json"), b, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
	t.Logf("the history is kept in %s", dir)
}
