package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"time"
)

// beRelay measures Relay, which somebody has started with a licence, beside the agent: a node's claim and
// release over HTTP on loopback, beside an acquire and release over HTTP on the agent's socket. Relay is no part of
// this repository.
func (s *suite) beRelay(ctx context.Context) error {
	if s.relay == "" {
		return nil
	}
	return s.withAgent(ctx, func(site *site, agent *exec.Cmd) error {
		relay, err := hire(ctx, 1, "relay-caller", "-socket", s.relay)
		if err != nil {
			return err
		}
		usher, err := hire(ctx, 1, "http-caller", "-socket", site.socket, "-whole")
		if err != nil {
			return errors.Join(err, relay.dismiss())
		}
		c, err := s.duel(10, sliceOfOne, [2]side{{relay, 0}, {usher, agent.Process.Pid}})
		s.add("relay: Relay's claim+release, p50, beside Usher's acquire+release over HTTP", "µs", goal{},
			c.figures(p50))
		return errors.Join(err, relay.dismiss(), usher.dismiss())
	})
}

// relayCaller is a client process that claims and releases a licence of Relay as one node, over one kept
// connection. The calls are those of Relay's README: PUT and DELETE of /v1/nodes/{fingerprint}.
func relayCaller(url string, in io.Reader, out io.Writer) error {
	ask := func(method string, want int) error {
		req, err := http.NewRequest(method, url+"/v1/nodes/usher-bench", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		switch {
		case err != nil:
			return err
		case res.StatusCode == http.StatusGone:
			return errors.New("relay has no free licence: add one with relay add, before relay serve")
		case res.StatusCode != want:
			return fmt.Errorf("%s %s: %s: %s", method, url, res.Status, bytes.TrimSpace(b))
		}
		return nil
	}
	return toil(in, out, func(d time.Duration) (work, error) {
		return repeat(d, func() (time.Duration, error) {
			begin := time.Now()
			err := ask("PUT", http.StatusCreated)
			if err == nil {
				err = ask("DELETE", http.StatusNoContent)
			}
			return time.Since(begin), err
		})
	})
}
