package fleet

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

var (
	lasts  = flag.Duration("fleet.lasts", 45*time.Second, "for how long TestFleetUnderFaults makes faults")
	seed   = flag.Uint64("fleet.seed", 0, "of the faults; 0: at random")
	binary = flag.String("fleet.usher", "", "the usher to prove; empty: it is built")
	forced = flag.Bool("fleet.proxies", false, "whether proxies cut the ways, also where namespaces can be made")
)

// holds is for how long after its answer a caller counts on a slot at most. A slot that is granted at the last instant
// before an agent's fence may be used for a sixteenth of its lease and a second more.
const holds = 400 * time.Millisecond

// now is CLOCK_MONOTONIC, which does not know of the agents' time namespaces.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// grant is n slots that a caller has counted on, from the reading of the answer to the call that gave them back, and no
// longer than holds.
type grant struct {
	agent     int
	n         int64
	lease     string
	call      time.Duration
	from, end time.Duration
	withdrawn bool // the agent did not know it at its release: it had answered late, and taken it back
}

// story is what all callers have seen.
type story struct {
	mu     sync.Mutex // guards all below
	grants []grant
	denied int
	failed int
	limits []limit
	why    map[string]int
}

// limit is the lowest that any agent may have in force since a time.
type limit struct {
	since time.Duration
	n     int64
}

func (s *story) lowest(at time.Duration) (n int64) {
	for _, l := range s.limits {
		if l.since <= at {
			n = l.n
		}
	}
	return n
}

// caller takes slots of an agent and gives them back until ctx ends.
func (s *story) caller(ctx context.Context, n *node, i int) {
	rng := rand.New(rand.NewPCG(uint64(n.i), uint64(i)))
	for ctx.Err() == nil {
		s.once(ctx, n, 1+rng.Int64N(3), rng)
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.Int64N(int64(150 * time.Millisecond)))):
		}
	}
}

func (s *story) once(ctx context.Context, n *node, slots int64, rng *rand.Rand) {
	asking, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	g := grant{agent: n.i, n: slots, call: now()}
	l, err := n.client.Acquire(asking, wire.AcquireRequest{Pool: "streams", N: &slots, Lifetime: "ttl", TTLSeconds: 2,
		WaitSeconds: rng.Float64() * 2})
	g.from = now()
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if errors.Is(err, client.ErrNoSlots) {
			s.denied++
		} else {
			s.failed++
			if s.why == nil {
				s.why = map[string]int{}
			}
			s.why[strings.ReplaceAll(err.Error(), n.dir, "")]++
		}
		return
	}
	g.lease = l.ID
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(rng.Int64N(int64(holds)))):
	}
	g.end = min(now(), g.from+holds)
	for asked := now(); ; { // how it is known afterwards, however long the agent stands still
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		err := n.client.Release(again, g.lease, false)
		cancel()
		if err == nil {
			break
		}
		if errors.Is(err, client.ErrLeaseUnknown) {
			g.withdrawn = now()-g.from < 2*time.Second || asked-g.from > holds*2
			break
		}
		if ctx.Err() != nil || now()-asked > time.Minute {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = append(s.grants, g)
}

// check walks over every instant: all that callers count on is within the lowest limit. It returns what is not, and
// which grants were part of it.
func (s *story) check() (wrong []string, part []grant) {
	type step struct {
		at time.Duration
		n  int64
		g  int
	}
	var steps []step
	for i, g := range s.grants {
		steps = append(steps, step{g.from, g.n, i}, step{g.end, -g.n, i})
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.n, b.n)) })
	held, now := int64(0), map[int]bool{}
	for _, st := range steps {
		if held += st.n; st.n < 0 {
			delete(now, st.g)
			continue
		}
		now[st.g] = true
		if most := s.lowest(st.at); held > most {
			text := fmt.Sprintf("at %s %d slots are counted on, and the limit is %d:", st.at, held, most)
			for i := range now {
				g := s.grants[i]
				text += fmt.Sprintf(" agent%d %d since %s", g.agent-members, g.n, g.from)
				part = append(part, g)
			}
			wrong = append(wrong, text)
		}
	}
	return wrong, part
}

// linearize has porcupine find an order of all takings and givings that one counter explains. Each part has one limit.
func (s *story) linearize(dir string) error {
	type change struct{ n, most int64 }
	m := porcupine.Model{
		Init: func() any { return int64(0) },
		Step: func(state, input, _ any) (bool, any) {
			used, c := state.(int64)+input.(change).n, input.(change)
			return used >= 0 && (c.n < 0 || used <= c.most), used
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+d", input.(change).n) },
	}
	var ops []porcupine.Operation
	for i, g := range s.grants {
		ops = append(ops, porcupine.Operation{ClientId: i, Input: change{g.n, s.lowest(g.from)}, Call: int64(g.call),
			Return: int64(g.from)},
			porcupine.Operation{ClientId: i, Input: change{n: -g.n}, Call: int64(g.end), Return: int64(g.end) + 1})
	}
	result, info := porcupine.CheckOperationsVerbose(m, ops, time.Minute)
	if result == porcupine.Ok {
		return nil
	}
	path := filepath.Join(dir, "fleet.html")
	if err := porcupine.VisualizePath(m, info, path); err != nil {
		return err
	}
	return fmt.Errorf("no order of the calls explains what was granted (%s): see %s", result, path)
}

// untilServed waits until each agent has granted a slot once, and returns how long that took.
func (w *world) untilServed(within time.Duration) time.Duration {
	w.t.Helper()
	began, one := time.Now(), int64(1)
	for _, n := range w.nodes[members:] {
		for {
			ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
			l, err := n.client.Acquire(ctx, wire.AcquireRequest{Pool: "streams", N: &one, Lifetime: "ttl",
				TTLSeconds: 2, WaitSeconds: 3})
			if err == nil {
				n.client.Release(ctx, l.ID, false)
				cancel()
				break
			}
			cancel()
			if time.Since(began) > within {
				w.t.Fatalf("%s has no slot after %s: %v", n, within, err)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	return time.Since(began)
}

// Five agents share a licence through three members of etcd. Agents and members are killed, stopped, and cut off from
// each other, one way and both, answers come late, agents come back in other time namespaces, and a licence with fewer
// slots comes. At each instant all callers together count on no more slots than the lowest limit, and one counter
// explains all answers. When all is well again, each agent is served.
func TestFleetUnderFaults(t *testing.T) {
	const most, fewer = 12, 7
	w := openWorld(t, most)
	s := &story{limits: []limit{{0, most}}}
	t.Logf("by %s; first served after %s", w.net, w.untilServed(2*time.Minute).Round(100*time.Millisecond))
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-fleet.seed=%d", *seed)
	x := w.trouble(*seed)
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for _, n := range w.nodes[members:] {
		for i := range 3 {
			callers.Go(func() { s.caller(ctx, n, i) })
		}
	}
	began, lower := time.Now(), time.Duration(0)
	for time.Since(began) < *lasts {
		<-time.After(200 * time.Millisecond)
		x.step()
		if lower == 0 && time.Since(began) > *lasts/2 {
			for _, n := range w.nodes[members:] {
				w.license(n, fewer)
			}
			lower = now() + 2*ttl // by then each agent has heard of it from a block, or is at its fence
			s.mu.Lock()
			s.limits = append(s.limits, limit{lower, fewer})
			s.mu.Unlock()
		}
	}
	x.calm()
	cancel()
	callers.Wait()
	took := w.untilServed(time.Minute)
	s.report(t, x, took)
}

// report judges the story.
func (s *story) report(t *testing.T, x *trouble, took time.Duration) {
	wrong, part := s.check()
	late := 0
	for _, g := range part {
		if g.withdrawn {
			late++
		}
	}
	t.Logf("%d grants, %d denials, %d calls without an answer; all served %s after the last fault; faults: %v",
		len(s.grants), s.denied, s.failed, took.Round(100*time.Millisecond), x.counts)
	t.Log(s.why)
	if late > 0 { // docs/proof.md, "Stopped beyond the fence"
		t.Logf("%d grants were answered too late, and withdrawn at once; without them:", late)
		s.grants = slices.DeleteFunc(s.grants, func(g grant) bool { return g.withdrawn })
		wrong, _ = s.check()
		if late > 1+x.counts["stopped"]/20 {
			t.Errorf("%d late answers in %d stops", late, x.counts["stopped"])
		}
	}
	for _, text := range wrong {
		t.Error(text)
	}
	dir := os.Getenv("ARTIFACTS")
	if dir == "" {
		dir = t.TempDir()
	}
	if err := s.linearize(dir); err != nil {
		t.Error(err)
	}
	if len(s.grants) < 100 {
		t.Errorf("only %d grants: nothing was at stake", len(s.grants))
	}
}
