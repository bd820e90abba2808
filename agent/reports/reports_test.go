package reports

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// remote is an upstream that is told, and whose answers a test decides.
type remote struct {
	plugin.Upstream

	mu     sync.Mutex
	answer func() error // nil: all is well
	told   []string     // what each report said
	at     []time.Time
	states []string // that came with the reports
	now    int      // how many reports are under way
}

func (r *remote) Label() string { return "job" }

func (r *remote) Report(ctx context.Context, p *plugin.Report) ([]byte, error) {
	r.mu.Lock()
	if r.now++; r.now > 1 {
		panic("two reports at a time")
	}
	said := string(p.Code)
	for _, l := range p.Leases {
		said += " " + l.Labels["job"]
	}
	r.told, r.at, r.states = append(r.told, said), append(r.at, time.Now()), append(r.states, string(p.State))
	answer := r.answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
	}()
	if answer != nil {
		if err := answer(); errors.Is(err, context.DeadlineExceeded) {
			<-ctx.Done()
			return nil, ctx.Err()
		} else if err != nil {
			return nil, err
		}
	}
	return []byte("state of " + said), nil
}

func (r *remote) last() (n int, said string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) == 0 {
		return 0, ""
	}
	return len(r.told), r.told[len(r.told)-1]
}

func (r *remote) set(answer func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// scene is an agent whose standing a test sets.
type scene struct {
	t      *testing.T
	remote *remote
	kept   map[string][]byte
	stop   func()
	asked  int
	*Reports

	mu   sync.Mutex
	code enforcer.Code
	jobs []string
}

func (s *scene) start() {
	s.t.Helper()
	r, err := New(Config{Upstreams: map[string]plugin.Upstream{"fake": s.remote}, File: "reports.json",
		Read: func(f string) ([]byte, error) {
			if b, ok := s.kept[f]; ok {
				return b, nil
			}
			return nil, fs.ErrNotExist
		},
		Write: func(f string, b []byte) error {
			kept := maps.Clone(s.kept)
			kept[f] = b
			s.kept = kept
			return nil
		},
		Standing: func(system, label string) (plugin.Report, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			r := plugin.Report{LicenseID: system, Code: s.code}
			for _, j := range s.jobs {
				r.Leases = append(r.Leases, plugin.Bearer{Labels: map[string]string{label: j}})
			}
			return r, s.code != ""
		},
		Follow: func(string, func()) {}, CallWithin: 5 * time.Second, Told: func(string) { s.asked++ }})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	s.Reports, s.stop = r, func() {
		cancel()
		<-done
	}
}

// put changes the standing.
func (s *scene) put(code enforcer.Code, jobs ...string) {
	s.mu.Lock()
	s.code, s.jobs = code, jobs
	s.mu.Unlock()
	s.Changed()
}

func pass(d time.Duration) {
	time.Sleep(d) // of a bubble's time
	synctest.Wait()
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, remote: &remote{}, kept: map[string][]byte{}}
	s.start()
	return s
}

// Nothing is reported before the first verdict. A burst of changes is one report, of the last of them, and reports keep
// their distance. What has not changed is not reported. What a report returned comes with the next, over a restart too.
func TestReportsCoalesce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.Changed()
		pass(time.Minute)
		if n, _ := s.remote.last(); n != 0 {
			t.Errorf("%d reports before the first verdict", n)
		}
		for i := range 1000 {
			s.put(enforcer.Valid, fmt.Sprint(i))
		}
		pass(time.Minute)
		if n, said := s.remote.last(); n != 1 || said != "VALID 999" {
			t.Errorf("a burst makes %d reports, the last %q", n, said)
		}
		for i := range 100 { // one each 10 ms
			s.put(enforcer.Valid, fmt.Sprint(i))
			pass(10 * time.Millisecond)
		}
		pass(time.Minute)
		if n, said := s.remote.last(); n > 4 || said != "VALID 99" {
			t.Errorf("after a second of changes there are %d reports, the last %q", n, said)
		}
		before, _ := s.remote.last()
		s.put(enforcer.Valid, "99")
		pass(time.Hour)
		if n, _ := s.remote.last(); n != before {
			t.Error("what has not changed is reported")
		}
		s.put(enforcer.Expired)
		pass(time.Minute)
		if s.asked != 2 {
			t.Errorf("another code was told %d times", s.asked)
		}
		s.stop()
		s.start()
		s.put(enforcer.Valid, "7")
		pass(time.Minute)
		s.stop()
		if n := len(s.remote.states); s.remote.states[n-1] != "state of EXPIRED" {
			t.Errorf("after a restart the state is %q", s.remote.states[n-1])
		}
	})
}

// A remote side that fails, hangs or is overloaded is asked again with back-off, one report at a time, and told the
// last standing in the end, in order. Changes meanwhile make no further tries.
func TestReportsAreTriedAgain(t *testing.T) {
	for name, fail := range map[string]func() error{
		"away":     func() error { return plugin.Transiently("away") },
		"hangs":    func() error { return context.DeadlineExceeded },
		"broken":   func() error { return errors.New("broken") },
		"refuses":  func() error { return &plugin.Error{Class: plugin.Refused, Code: enforcer.Revoked} },
		"overload": func() error { return &plugin.Error{Class: plugin.Transient, RetryAfter: time.Minute} },
	} {
		bubble.Test(t, func(t *testing.T) {
			s := newScene(t)
			s.remote.set(fail)
			for i := range 3600 {
				s.put(enforcer.Valid, fmt.Sprint(i))
				pass(time.Second)
			}
			if n, _ := s.remote.last(); n < 5 || n > 40 {
				t.Errorf("%s: %d tries in an hour", name, n)
			}
			for i := 2; i < len(s.remote.at); i++ {
				if d := s.remote.at[i].Sub(s.remote.at[i-1]); d < backOffLeast ||
					name == "overload" && d < time.Minute {
					t.Errorf("%s: try %d after %v", name, i, d)
				}
			}
			s.put(enforcer.Expired, "last")
			s.remote.set(nil)
			pass(2 * backOffMost)
			n, said := s.remote.last()
			if said != "EXPIRED last" {
				t.Errorf("%s: in the end it is told %q", name, said)
			}
			pass(time.Hour)
			if again, _ := s.remote.last(); again != n {
				t.Errorf("%s: a report that has succeeded is made again", name)
			}
			s.stop()
		})
	}
}
