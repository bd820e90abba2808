package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// moment is something great that happens to an agent with a million leases.
type moment struct {
	name    string
	goal    goal
	prepare func() error // before it, unmeasured; nil: nothing
	f       func() error
	without func(time.Duration) error // the same load without the moment; nil: none
	after   func() error              // nil: nothing
}

// calm hires a caller for [longest]: what its own collector of garbage does is in none of its pairs.
func calm(ctx context.Context, socket string) (*crew, error) {
	return hire(ctx, 1, "caller", "-socket", socket, "-calm")
}

// longest has a caller make pairs while f runs, and returns the longest of them in ms.
func longest(c *crew, f func() error) (float64, error) {
	over := make(chan error, 1)
	go func() { over <- f() }()
	most, last := 0.0, false
	for {
		w, err := c.work(20 * time.Millisecond)
		if err != nil {
			return 0, errors.Join(err, <-over)
		}
		most = max(most, w.Max/1000)
		if last {
			return most, nil
		}
		select {
		case err := <-over:
			if err != nil {
				return 0, err
			}
			last = true // once more: f may be over before its consequences are
		default:
		}
	}
}

// rest does nothing for a time.
func rest(d time.Duration) error {
	time.Sleep(d)
	return nil
}

// moments measures the longest pair while something happens to an agent with a million leases, beside the longest in
// as long a time without it.
func (s *suite) moments(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		site.mode = "0666" // another user lists, too
		if err := errors.Join(site.configure(),
			site.sign(ctx, "many.lic", "seats=unlimited", "streams=1000", "none=1")); err != nil {
			return err
		}
		return site.serve(ctx, func(agent *exec.Cmd) error {
			n := s.times(1_000_000)
			if err := take(site.socket, n, `{"pool":"seats","ttl_seconds":86400}`); err != nil {
				return err
			}
			c, err := calm(ctx, site.socket)
			if err != nil {
				return err
			}
			held := fmt.Sprintf(", %d held", n)
			for _, m := range []func() error{
				func() error { return s.lists(ctx, site, agent, c, held) },
				func() error { return s.replacements(ctx, site, c, held) },
				func() error { return s.moment(c, compaction(site, held)) },
				func() error { return s.deaths(ctx, site, c, held) },
			} {
				if err == nil {
					err = m()
				}
			}
			return errors.Join(err, c.dismiss())
		})
	})
}

// moment measures the longest pair while something happens.
func (s *suite) moment(c *crew, m moment) error {
	if m.without == nil {
		m.without = rest
	}
	var runs []figure
	for range min(3, s.medianOf()) {
		if m.prepare != nil {
			if err := m.prepare(); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		begin := time.Now()
		with, err := longest(c, m.f)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		took := time.Since(begin)
		if m.after != nil {
			if err := m.after(); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		without, err := longest(c, func() error { return m.without(min(took, 3*time.Second)) })
		if err != nil {
			return fmt.Errorf("without %s: %w", m.name, err)
		}
		runs = append(runs, figure{with, without, with / without})
	}
	s.add("scale: longest acquire+release while "+m.name, "ms", m.goal, runs)
	return nil
}

// compaction is the journal's: pairs are made, many at a time, until it has been rewritten.
func compaction(site *site, held string) moment {
	journal := filepath.Join(site.run, "leases.journal")
	pairs := func(over func() bool) error {
		t, err := dial(site.socket)
		if err != nil {
			return err
		}
		defer t.conn.Close()
		for begin := time.Now(); !over(); {
			if err := t.pipe(50); err != nil {
				return err
			}
			if time.Since(begin) > time.Minute {
				return errors.New("the journal is not rewritten after a minute")
			}
		}
		return nil
	}
	return moment{name: "the journal is compacted" + held, goal: atMost(30), f: func() error {
		was := int64(0)
		return pairs(func() bool {
			i, err := os.Stat(journal)
			if err != nil || i.Size() < was {
				return err == nil
			}
			was = i.Size()
			return false
		})
	}, without: func(d time.Duration) error {
		end := time.Now().Add(d)
		return pairs(func() bool { return time.Now().After(end) })
	}}
}

// pipe acquires and releases n times, all at once.
func (t *talk) pipe(n int) error {
	if _, err := t.conn.Write(bytes.Repeat([]byte(acquireLine), n)); err != nil {
		return err
	}
	var b []byte
	for range n {
		answer, err := t.in.ReadString('\n')
		if err != nil {
			return err
		}
		line, err := releaseLine(answer)
		if err != nil {
			return err
		}
		b = append(b, line...)
	}
	if _, err := t.conn.Write(b); err != nil {
		return err
	}
	for range n {
		if _, err := t.in.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return nil
}

// replacements has five licences take each other's place.
func (s *suite) replacements(ctx context.Context, site *site, pairs *crew, held string) error {
	var files [2]string
	for i := range files {
		var err error
		files[i], err = site.signBeside(ctx, fmt.Sprintf("many-%d.lic", i), "host", "seats=unlimited", "none=1",
			fmt.Sprintf("streams=%d", 2000+i))
		if err != nil {
			return err
		}
	}
	c := client(site.socket)
	defer c.CloseIdleConnections()
	at := 0
	return s.moment(pairs, moment{name: "a licence is replaced" + held, goal: atMost(10), f: func() error {
		for range 5 {
			at++
			if err := copyInto(site.folder, "many.lic", files[at%2]); err != nil {
				return err
			}
			if err := until(func() (bool, error) {
				var p struct{ Limit int }
				err := call(c, "GET", "/v1/pools/streams", nil, &p)
				return p.Limit == 2000+at%2, err
			}, "the licence is in force"); err != nil {
				return err
			}
		}
		return nil
	}})
}

// deaths has a process take leases, kills it, and waits until they are free.
func (s *suite) deaths(ctx context.Context, site *site, pairs *crew, held string) error {
	n := s.times(100_000)
	c := client(site.socket)
	defer c.CloseIdleConnections()
	before, err := seats(c)
	if err != nil {
		return err
	}
	var holder *exec.Cmd
	var free []float64
	err = s.moment(pairs, moment{
		name: fmt.Sprintf("a holder of %d leases dies", n) + held, goal: atMost(10),
		prepare: func() (err error) {
			holder, err = begin(ctx, "-socket", site.socket, "-leases", fmt.Sprint(n))
			return err
		},
		f: func() error {
			begin := time.Now()
			end(holder)
			err := until(func() (bool, error) {
				now, err := seats(c)
				return now <= before, err
			}, "all leases of the dead process are free")
			free = append(free, millis(time.Since(begin)))
			return err
		},
	})
	s.add(fmt.Sprintf("scale: all %d leases of a dead holder are free%s", n, held), "ms", goal{}, plain(free...))
	return err
}

// seats returns how many slots of the pool seats are in use.
func seats(c *http.Client) (int, error) {
	var p struct {
		InUse int `json:"in_use"`
	}
	err := call(c, "GET", "/v1/pools/seats", nil, &p)
	return p.InUse, err
}

// until waits until ok says yes, at most a minute.
func until(ok func() (bool, error), what string) error {
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		if yes, err := ok(); yes || err != nil {
			return err
		}
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("it is not so after a minute that %s", what)
		}
	}
}

// somebody is a user who holds nothing.
const somebody = 64_999

// lists measures the listing of leases: of all, of a user who holds none, and of a pool in which none are held.
func (s *suite) lists(ctx context.Context, site *site, agent *exec.Cmd, pairs *crew, held string) error {
	for _, l := range []struct {
		name       string
		uid, times int
		query      string
		took       goal
	}{
		// The first, while the memory is that of the leases.
		{"an administrator lists all leases in pages", 0, 1, "?limit=1000", goal{}},
		{"an administrator lists all leases in one answer", 0, 1, "", goal{}},
		{"a user who holds none lists leases", somebody, 20, "", atMost(2)},
		{"an administrator lists a pool without leases", 0, 20, "?pool=none", atMost(2)},
	} {
		lister, err := hire(ctx, 1, "lister", "-socket", site.socket, "-query", l.query, "-uid", fmt.Sprint(l.uid))
		if err != nil && l.uid != 0 {
			fmt.Fprintln(os.Stderr, "another user cannot call here, perhaps because of TMPDIR; left out:", l.name, err)
			continue
		}
		if err != nil {
			return err
		}
		var took, growth []float64
		for range min(3, s.medianOf()) { // no pairs beside: memory and time are the list's
			before, err := resident(agent.Process.Pid)
			if err := errors.Join(err, resetPeak(agent.Process.Pid)); err != nil {
				return err
			}
			var times []float64
			for begin := time.Now(); len(times) < l.times && time.Since(begin) < 3*time.Second; {
				w, err := lister.work(0)
				if err != nil {
					return err
				}
				times = append(times, w.P50/1000)
			}
			peak, err := memoryOf(agent.Process.Pid, "VmHWM:")
			if err != nil {
				return err
			}
			took, growth = append(took, median(times)), append(growth, (peak-before)/1024)
		}
		s.add("scale: time in which "+l.name+held, "ms", l.took, plain(took...))
		if l.times == 1 {
			s.add("scale: growth of resident memory while "+l.name+held, "MiB", atMost(16), plain(growth...))
		}
		err = s.moment(pairs, moment{name: l.name + held, goal: atMost(5), f: func() error {
			_, err := lister.work(0)
			return err
		}})
		if err := errors.Join(err, lister.dismiss()); err != nil {
			return err
		}
	}
	return nil
}

// lister is a client process that lists leases as a user, a list whole for each line that it reads.
func lister(socket, query string, uid int, in io.Reader, out io.Writer) error {
	if uid != 0 {
		if err := become(uid); err != nil {
			return err
		}
	}
	c := client(socket)
	if err := call(c, "GET", "/v1/ready", nil, nil); err != nil { // the connection is no part of a list
		return err
	}
	return toil(in, out, func(time.Duration) (work, error) {
		begin := time.Now()
		err := list(c, query)
		took := micros(time.Since(begin))
		return work{Pairs: 1, P50: took, Max: took}, err
	})
}

// list reads a list of leases whole: in one answer, or in pages if the query has a limit. It decodes none of them: what
// a client makes of a list is its own work, of which the row of another caller would have more than of the agent's.
func list(c *http.Client, query string) error {
	var end tail
	for after := ""; ; {
		res, err := c.Get("http://usher/v1/leases" + query + after)
		if err := readTo(&end, res, err); err != nil || !strings.Contains(query, "limit=") {
			return err
		}
		_, next, more := strings.Cut(string(end), `"next":"`)
		if !more {
			return nil
		}
		next, _, _ = strings.Cut(next, `"`)
		after = "&after=" + url.QueryEscape(next)
	}
}

// tail is the end of what was written to it.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	const most = 128 // the place of the next page, and some more
	*t = append(*t, b[max(0, len(b)-most):]...)
	*t = append((*t)[:0], (*t)[max(0, len(*t)-most):]...)
	return len(b), nil
}

// read reads an answer whole, and throws it away.
func read(res *http.Response, err error) error { return readTo(io.Discard, res, err) }

// readTo reads an answer whole.
func readTo(out io.Writer, res *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(res.Body, 4096))
		return errors.Join(errors.New(res.Status+": "+strings.TrimSpace(string(b))), err)
	}
	_, err = io.Copy(out, res.Body)
	return err
}
