package fleet

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"syscall"
	"time"
)

// trouble makes faults, one or more at a time, and ends them.
type trouble struct {
	*world
	rng    *rand.Rand
	ends   map[string]func() // by what has the fault
	until  map[string]time.Time
	counts map[string]int
	timens bool // time namespaces can be made here
}

func (w *world) trouble(seed uint64) *trouble {
	x := &trouble{world: w, rng: rand.New(rand.NewPCG(seed, 1)), ends: map[string]func(){},
		until: map[string]time.Time{}, counts: map[string]int{}}
	x.timens = exec.Command("unshare", "--time", "--boottime", "1000", "true").Run() == nil
	return x
}

// fault begins a fault of something that has none.
func (x *trouble) fault(of, kind string, least, most time.Duration, begin, end func()) {
	if x.ends[of] != nil {
		return
	}
	lasts := least + time.Duration(x.rng.Int64N(int64(most-least)))
	x.t.Logf("%s: %s for %s", of, kind, lasts.Round(100*time.Millisecond))
	x.counts[kind]++
	begin()
	x.ends[of], x.until[of] = end, time.Now().Add(lasts)
}

// step ends what is over, and may begin something.
func (x *trouble) step() {
	for of, at := range x.until {
		if time.Now().After(at) {
			x.end(of)
		}
	}
	if len(x.ends) < 3 && x.rng.IntN(5) == 0 {
		if x.rng.IntN(5) < 2 {
			if len(x.ends) == 0 || x.rng.IntN(6) == 0 { // else there is mostly no quorum
				x.ofEtcd()
			}
		} else {
			x.ofAgent(x.nodes[members+x.rng.IntN(agents)])
		}
	}
}

func (x *trouble) end(of string) {
	end := x.ends[of]
	delete(x.ends, of)
	delete(x.until, of)
	end()
}

func (x *trouble) calm() {
	for of := range x.until {
		x.end(of)
	}
}

// stop stops a process for a while.
func (x *trouble) stop(n *node, least, most time.Duration) {
	x.fault(n.String(), "stopped", least, most, func() { n.signal(syscall.SIGSTOP) },
		func() { n.signal(syscall.SIGCONT) })
}

func (x *trouble) die(n *node, most time.Duration) {
	x.fault(n.String(), "killed", 100*time.Millisecond, most, n.kill, n.start)
}

// cut takes ways away for a while.
func (x *trouble) cut(of *node, kind string, least, most time.Duration, ways ...[2]int) {
	var cut [][2]int
	x.fault(of.String(), kind, least, most, func() {
		for _, w := range ways {
			if x.net.cut(w[0], w[1], true) {
				cut = append(cut, w)
			}
		}
	}, func() {
		for _, w := range cut {
			x.net.cut(w[0], w[1], false)
		}
	})
}

func (x *trouble) ofEtcd() {
	m := x.rng.IntN(members)
	n := x.nodes[m]
	var out, in [][2]int
	for o := range members {
		if o != m {
			out, in = append(out, [2]int{m, o}), append(in, [2]int{o, m})
		}
	}
	switch x.rng.IntN(8) {
	case 0:
		x.die(n, 4*time.Second)
	case 1, 2: // beyond the leases that it knows, so that it ends them when it goes on
		x.stop(x.leader(m), ttl, 2*ttl+4*time.Second)
	case 3:
		x.stop(n, time.Second, 8*time.Second)
	case 4:
		x.cut(n, "cut off from the other members", 2*time.Second, 9*time.Second, append(out, in...)...)
	case 5:
		x.cut(n, "not heard by the other members", 2*time.Second, 9*time.Second, out...)
	case 6:
		x.cut(n, "does not hear the other members", 2*time.Second, 9*time.Second, in...)
	case 7: // no quorum
		if other := x.nodes[(m+1)%members]; x.ends[n.String()] == nil && x.ends[other.String()] == nil {
			x.stop(n, 2*time.Second, 7*time.Second)
			x.stop(other, 2*time.Second, 7*time.Second)
		}
	}
}

func (x *trouble) ofAgent(n *node) {
	var out, in, all [][2]int
	for m := range members {
		out, in = append(out, [2]int{n.i, m}), append(in, [2]int{m, n.i})
	}
	all = append(append(all, out...), in...)
	switch x.rng.IntN(8) {
	case 0:
		x.die(n, 3*ttl)
	case 1:
		x.stop(n, time.Second, 3*ttl)
	case 2:
		x.cut(n, "cut off from etcd", time.Second, 3*ttl, all...)
	case 3:
		x.cut(n, "not heard by etcd", time.Second, 3*ttl, out...)
	case 4:
		x.cut(n, "does not hear etcd", time.Second, 3*ttl, in...)
	case 5:
		m := x.rng.IntN(members)
		x.cut(n, "cut off from one member", time.Second, 2*ttl, [2]int{n.i, m}, [2]int{m, n.i})
	case 6:
		late := fmt.Sprintf("%dms", 200+x.rng.IntN(1200))
		x.fault(n.String(), "late answers", 2*time.Second, 2*ttl, func() { x.net.slow(n.i, late) },
			func() { x.net.slow(n.i, "") })
	case 7:
		if !x.timens {
			return
		}
		x.fault(n.String(), "killed, and back in another time namespace", 0, ttl, n.kill, func() {
			on := fmt.Sprint(1000 + x.rng.IntN(1e6))
			n.through = []string{"unshare", "--time", "--monotonic", on, "--boottime", on}
			n.start()
		})
	}
}
