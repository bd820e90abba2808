package main

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
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
	_, rest, ok := strings.Cut(answer, `"result":{"id":"`)
	if !ok {
		return errors.New(answer)
	}
	_, err = t.ask(`{"jsonrpc":"2.0","id":2,"method":"lease.release","params":{"id":"` + rest[:32] + `"}}` + "\n")
	return err
}

// serveCanned answers every line with a canned one of the size that the agent's answer has.
func serveCanned(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	lease := `{"jsonrpc":"2.0","id":1,"result":{"id":"0123456789abcdef0123456789abcdef","pool":"streams","n":1,"items":[{"pool":"streams","n":1}],"lifetime":"process","liveness":"peerpidfd","state":"held","acquired_at":"2026-05-01T12:00:00.123456789Z","expires_at":null,"holder":{"uid":1000,"gid":1000,"pid":12345,"exe":"/usr/bin/some-product"}}}` + "\n"
	done := `{"jsonrpc":"2.0","id":2,"result":{}}` + "\n"
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			in := bufio.NewReader(c)
			for {
				line, err := in.ReadSlice('\n')
				if err != nil {
					return
				}
				answer := lease
				if strings.Contains(string(line[:60]), "release") {
					answer = done
				}
				if _, err := c.Write([]byte(answer)); err != nil {
					return
				}
			}
		}()
	}
}

// session measures acquire and release in a session, and how soon a waiter has the slot of a holder that was killed.
func (s *suite) session(ctx context.Context) error {
	if s.usher == "" {
		return nil
	}
	site, err := setUp(ctx, s.usher)
	if err != nil {
		return err
	}
	defer os.RemoveAll(site.dir)
	if err := copyInto(site.folder, "bench.lic", site.licences[0]); err != nil {
		return err
	}
	cmd, _, err := site.start(ctx)
	if err != nil {
		return err
	}
	defer stop(cmd) //nolint:errcheck // it is only told to end
	self, err := os.Executable()
	if err != nil {
		return err
	}
	canned := filepath.Join(site.dir, "c")
	bare := exec.CommandContext(ctx, self, "-canned", canned)
	if err := bare.Start(); err != nil {
		return err
	}
	defer bare.Process.Kill() //nolint:errcheck // it has nothing to lose
	for begin := time.Now(); ; {
		if t, err := dial(canned); err == nil {
			t.conn.Close()
			break
		}
		if time.Since(begin) > 5*time.Second {
			return errors.New("the canned server does not answer")
		}
		time.Sleep(time.Millisecond)
	}
	slice := func(socket string) (float64, error) {
		t, err := dial(socket)
		if err != nil {
			return 0, err
		}
		defer t.conn.Close()
		var took []float64
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
			begin := time.Now()
			if err := t.pair(); err != nil {
				return 0, err
			}
			took = append(took, micros(time.Since(begin)))
		}
		return median(took), nil
	}
	var values, limits []float64
	for range s.medianOf() {
		var a, b []float64
		for range s.times(10) {
			x, err := slice(site.socket)
			if err != nil {
				return err
			}
			y, err := slice(canned)
			if err != nil {
				return err
			}
			a, b = append(a, x), append(b, y)
		}
		values, limits = append(values, median(a)), append(limits, median(b))
	}
	s.add("session: acquire+release, p50, beside a canned server", "µs", "ratio ≤ 1.3", values, limits)
	return s.crowd(ctx, site.socket, canned)
}
