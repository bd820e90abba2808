package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// talk is one session, spoken by hand: the same code for the agent and for the bare server.
type talk struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(socket string) (*talk, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &talk{c, bufio.NewReader(c)}, nil
}

func (t *talk) ask(line string) (string, error) {
	if _, err := t.conn.Write([]byte(line)); err != nil {
		return "", err
	}
	return t.in.ReadString('\n')
}

const acquireLine = `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}` + "\n"

// pair acquires and releases once.
func (t *talk) pair() error {
	answer, err := t.ask(acquireLine)
	if err != nil {
		return err
	}
	line, err := releaseLine(answer)
	if err != nil {
		return err
	}
	if answer, err = t.ask(line); err == nil && !succeeded(answer) {
		err = errors.New(answer)
	}
	return err
}

// releaseLine is the release of what an acquire got.
func releaseLine(answer string) (string, error) {
	_, rest, ok := strings.Cut(answer, `"result":{"id":"`)
	if !ok || len(rest) < 32 {
		return "", fmt.Errorf("an acquire got %q", answer)
	}
	return `{"jsonrpc":"2.0","id":2,"method":"lease.release","params":{"id":"` + rest[:32] + `"}}` + "\n", nil
}

// succeeded says whether an answer is a result.
func succeeded(answer string) bool { return strings.Contains(answer, `"result"`) }

// serveCanned answers every line of a connection with answer.
func serveCanned(socket string, answer func(net.Conn)) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			answer(c)
		}()
	}
}

// The canned answers are of the size of the agent's.
var (
	cannedLease = []byte(`{"jsonrpc":"2.0","id":1,"result":{"id":"0123456789abcdef0123456789abcdef",` +
		`"pool":"streams","n":1,"items":[{"pool":"streams","n":1}],"lifetime":"process","liveness":"peerpidfd",` +
		`"state":"held","acquired_at":"2026-05-01T12:00:00.123456789Z","expires_at":null,` +
		`"holder":{"uid":1000,"gid":1000,"pid":12345,"exe":"/usr/bin/some-product"}}}` + "\n")
	cannedDone = []byte(`{"jsonrpc":"2.0","id":2,"result":{}}` + "\n")
)

// canned returns the answer to a line.
func canned(line []byte) []byte {
	if bytes.Contains(line[:min(60, len(line))], []byte("release")) {
		return cannedDone
	}
	return cannedLease
}

// answerCanned answers line after line.
func answerCanned(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if _, err := c.Write(canned(line)); err != nil {
			return
		}
	}
}

// duellists are an agent and the canned server, ready.
type duellists struct {
	sockets [2]string
	servers [2]int
}

// besideCanned runs f beside an agent of the site and a canned server.
func (s *suite) besideCanned(ctx context.Context, site *site, agent *exec.Cmd, f func(duellists) error) error {
	socket := filepath.Join(site.dir, "c")
	canned, err := startServer(ctx, "canned", socket, answers(socket))
	if err != nil {
		return err
	}
	defer end(canned)
	return f(duellists{[2]string{site.socket, socket}, [2]int{agent.Process.Pid, canned.Process.Pid}})
}

// answers says whether a server takes connections.
func answers(socket string) func() bool {
	return func() bool {
		t, err := dial(socket)
		if err == nil {
			t.conn.Close()
		}
		return err == nil
	}
}

// session measures acquire and release in a session, of one caller and of many, beside a canned server.
func (s *suite) session(ctx context.Context) error {
	if err := s.withAgent(ctx, func(site *site, agent *exec.Cmd) error {
		return s.besideCanned(ctx, site, agent, func(d duellists) error {
			return s.three(ctx, "session", "a canned server", 12, d, [3]goal{ratioAtMost(1.3), ratioAtLeast(0.7),
				ratioAtLeast(0.7)})
		})
	}); err != nil {
		return err
	}
	return s.onDisk(ctx)
}

// underRules measures one caller of an agent with 1,000 rules beside the same agent without.
func (s *suite) underRules(ctx context.Context) error {
	return s.withAgent(ctx, func(bare *site, without *exec.Cmd) error {
		return s.onSite(ctx, func(ruled *site) error {
			if err := errors.Join(ruled.install(0), ruled.addRules()); err != nil {
				return err
			}
			return ruled.serve(ctx, func(with *exec.Cmd) error {
				c, err := s.single(ctx, 12, "caller", [2]string{ruled.socket, bare.socket},
					[2]int{with.Process.Pid, without.Process.Pid})
				s.add("session: acquire+release, p50, with 1,000 rules, beside the same without", "µs",
					ratioAtMost(1.05),
					c.figures(p50))
				return err
			})
		})
	})
}

// addRules adds the rules of [thousandRules] to the configuration of an agent that has not started.
func (s *site) addRules() error {
	f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	const most = 1 << 40
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "policies:\n  - {name: each, max: %d, per: user}\n  - {name: end, max_hold: 1000h}\n", most)
	for i := 2; i < 1000; i++ {
		match := fmt.Sprintf("uid: [%d]", i)
		if i%2 != 0 {
			match = fmt.Sprintf("group: [group%d*]", i)
		}
		fmt.Fprintf(w, "  - {name: rule-%d, match: {%s}, max: %d}\n", i, match, most)
	}
	return errors.Join(w.Flush(), f.Close())
}

// onDisk measures one caller of an agent whose runtime folder lies on a disk. Nothing is demanded of that.
func (s *suite) onDisk(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		if err := errors.Join(site.install(0), site.moveRuntime()); err != nil {
			return err
		}
		return site.serve(ctx, func(agent *exec.Cmd) error {
			return s.besideCanned(ctx, site, agent, func(d duellists) error {
				c, err := s.single(ctx, 6, "caller", d.sockets, d.servers)
				name := "session: acquire+release, p50, runtime folder on a disk, beside a canned server"
				s.add(name, "µs", goal{}, c.figures(p50))
				return err
			})
		})
	})
}

// callers is how many acquire and release at once.
const callers = 64

// three measures two servers with one caller, with many callers of one process, and with as many processes.
func (s *suite) three(ctx context.Context, what, other string, rounds int, d duellists, goals [3]goal) error {
	c, err := s.single(ctx, rounds, "caller", d.sockets, d.servers)
	if err != nil {
		return err
	}
	name := what + ": acquire+release"
	s.add(name+", p50, beside "+other, "µs", goals[0], c.figures(p50))
	s.addCPU(name, c)
	for i, way := range []struct {
		name               string
		processes, session int
	}{{"goroutines", 1, callers}, {"processes", callers, 1}} {
		c, err := s.many(ctx, max(1, rounds/2), way.processes, way.session, d)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s: acquire+release of %d %s", what, callers, way.name)
		s.add(name+", beside "+other, "1/s", goals[1+i], c.figures(rate))
		s.addCPU(name, c)
	}
	return nil
}

// many measures the throughput of many callers.
func (s *suite) many(ctx context.Context, rounds, processes, sessions int, d duellists) (c contest, err error) {
	sides, dismiss, err := s.crews(ctx, processes, "caller", d.sockets, d.servers, "-sessions", fmt.Sprint(sessions))
	defer func() { err = errors.Join(err, dismiss()) }()
	if err != nil {
		return nil, err
	}
	return s.duel(rounds, sliceOfMany, sides)
}

// self measures a canned server beside another: what differs from 1 is what this machine adds to any ratio. One that
// reads and writes as the agent does shows how much of the agent's ratios is that.
func (s *suite) self(ctx context.Context) error {
	if s.usher == "" {
		return nil
	}
	return errors.Join(s.beCanned(ctx, "self: canned", "canned", "its like"),
		s.beCanned(ctx, "self: canned with direct calls", "canned-direct", "one without"))
}

// beCanned measures a canned server in a role beside one in the common role.
func (s *suite) beCanned(ctx context.Context, what, role, other string) error {
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var d duellists
	for i, role := range []string{role, "canned"} {
		d.sockets[i] = filepath.Join(dir, fmt.Sprint(i))
		canned, err := startServer(ctx, role, d.sockets[i], answers(d.sockets[i]))
		if err != nil {
			return err
		}
		defer end(canned)
		d.servers[i] = canned.Process.Pid
	}
	return s.three(ctx, what, other, 4, d, [3]goal{})
}
