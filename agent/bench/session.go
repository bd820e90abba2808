package main

import (
	"bufio"
	"context"
	"errors"
	"net"
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

// serveCanned answers every line with a canned one of the size of the agent's answer.
func serveCanned(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	lease := `{"jsonrpc":"2.0","id":1,"result":{"id":"0123456789abcdef0123456789abcdef","pool":"streams","n":1,` +
		`"items":[{"pool":"streams","n":1}],"lifetime":"process","liveness":"peerpidfd","state":"held",` +
		`"acquired_at":"2026-05-01T12:00:00.123456789Z","expires_at":null,"holder":{"uid":1000,"gid":1000,` +
		`"pid":12345,"exe":"/usr/bin/some-product"}}}` + "\n"
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

// session measures acquire and release in a session, of one caller and of many, beside a canned server.
func (s *suite) session(ctx context.Context) error {
	return s.withAgent(ctx, func(site *site, _ *exec.Cmd) error {
		canned := filepath.Join(site.dir, "c")
		end, err := startSelf(ctx, func() bool {
			t, err := dial(canned)
			if err == nil {
				t.conn.Close()
			}
			return err == nil
		}, "-canned", canned)
		if err != nil {
			return err
		}
		defer end()
		values, limits, err := s.beside(
			10,
			func() (float64, error) { return pairsOf(site.socket) },
			func() (float64, error) { return pairsOf(canned) },
		)
		if err != nil {
			return err
		}
		s.add("session: acquire+release, p50, beside a canned server", "µs", "ratio ≤ 1.3", values, limits)
		return s.crowd(ctx, site.socket, canned)
	})
}

// pairsOf returns the median time of an acquire and release of one session in a slice of 100 ms, in µs.
func pairsOf(socket string) (p50 float64, err error) {
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
