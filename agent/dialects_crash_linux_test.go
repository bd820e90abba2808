package agent_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// toyProcess is an agent that speaks toys in a process of its own.
type toyProcess struct {
	*house
	cmd *exec.Cmd
}

// toysApart makes a house whose agent is a process of its own.
func toysApart(t *testing.T, limit int64) *toyProcess {
	h, _ := withToys(t, limit)
	h.stop()
	if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &toyProcess{house: h}
	p.run()
	t.Cleanup(p.kill)
	return p
}

// run starts the agent and returns when it listens and the licence is good.
func (p *toyProcess) run() {
	p.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), toyAgent+"="+p.path("usher.yaml"))
	var log strings.Builder
	p.cmd.Stderr = &log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	deadline, rest := time.Now().Add(60*time.Second), pause()
	for {
		if l, err := p.License(context.Background()); err == nil && l.State == "valid" {
			return
		}
		if time.Now().After(deadline) {
			p.kill()
			p.t.Fatalf("the agent is not ready after 30 s: %s", log.String())
		}
		rest()
	}
}

func (p *toyProcess) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.cmd = nil
	}
}

// What a dialect was told is kept over any number of kills: each lease with the data it had last, draws and
// adjustments, client tokens, the store. Callers are who they were, by the kernel's word, a token, and a key.
func TestDialectSurvivesKill(t *testing.T) {
	t.Parallel()
	p := toysApart(t, 40)
	who := func() []*caller {
		at := p.listening()
		return []*caller{callerOf(t, at[0].Address), callerOf(t, at[1].Address, bearer(tokenOne)...),
			callerOf(t, at[3].Address, "Toy-Key", "a")}
	}
	type state struct{ ttl, held, borrow toyReply }
	var states []state
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	draw := toyRequest{Pool: "uses", N: 1, Lifetime: "draw", Token: "draw", Data: "of the draw"}
	for i, c := range who() {
		s := state{c.ok("POST", "/lease", toyRequest{Pool: "streams", N: 1, TTL: 3600, Token: "t", Data: "first"}),
			c.ok("POST", "/lease",
				toyRequest{Pool: "streams", N: 2, Lifetime: "held", Data: strings.Repeat("x", plugin.MaxLeaseData)}),
			c.ok("POST", "/lease",
				toyRequest{Pool: "streams", N: 3, Lifetime: "borrow", Until: until, Data: "borrowed"})}
		c.ok("POST", "/lease", draw)
		c.ok("POST", "/adjust", toyRequest{Pool: "uses", By: 1})
		c.ok("POST", "/adjust", toyRequest{Pool: "uses", By: -1})
		c.ok("POST", "/store", toyRequest{Changes: []plugin.Change{{Key: fmt.Sprint("key/", i),
			Value: []byte(s.held.ID)}, {Key: "gone", Value: []byte("x")}}})
		c.ok("POST", "/store", toyRequest{Changes: []plugin.Change{{Key: "gone"}}})
		states = append(states, s)
	}
	for round := range 3 {
		for i, c := range who() {
			states[i].ttl.Data, states[i].held.Data = fmt.Sprint("ttl ", round), fmt.Sprint("held ", round)
			c.ok("PATCH", "/lease/"+states[i].ttl.ID, toyRequest{Data: states[i].ttl.Data})
			c.ok("PATCH", "/lease/"+states[i].held.ID, toyRequest{Data: states[i].held.Data})
		}
		p.kill()
		p.run()
		for i, c := range who() {
			s := states[i]
			if l := c.ok("GET", "/leases", toyRequest{}).Leases; len(l) != 3 {
				t.Fatalf("round %d: %d leases: %+v", round, len(l), l)
			}
			for _, want := range []toyReply{s.ttl, s.held, s.borrow} {
				got := c.ok("GET", "/lease/"+want.ID, toyRequest{})
				if !got.Found || got.Data != want.Data || got.N != want.N || got.Expires.Before(want.Expires) {
					t.Errorf("round %d: %+v is found again as %+v", round, want, got)
				}
			}
			if again := c.ok("POST", "/lease", toyRequest{Pool: "streams", N: 1, TTL: 3600,
				Token: "t"}); !again.Replayed || again.ID != s.ttl.ID || again.Data != s.ttl.Data {
				t.Errorf("round %d: the token is answered %+v", round, again)
			}
			if again := c.ok("POST", "/lease", draw); !again.Replayed || again.Data != draw.Data {
				t.Errorf("round %d: the draw's token is answered %+v", round, again)
			}
			c.ok("PUT", "/lease/"+s.ttl.ID, toyRequest{})
			got := c.ok("GET", "/store/key/"+fmt.Sprint(i), toyRequest{})
			if got.Value != s.held.ID || c.ok("GET", "/store/gone", toyRequest{}).Found {
				t.Errorf("round %d: the store has %+v", round, got)
			}
		}
		if m, err := p.Pool(context.Background(), "uses"); err != nil || m.InUse != 3 {
			t.Errorf("round %d: %+v, %v; 3 were drawn", round, m, err)
		}
		if s, err := p.Pool(context.Background(), "streams"); err != nil || s.InUse != 18 {
			t.Errorf("round %d: %+v, %v; 18 are held", round, s, err)
		}
	}
	for i, c := range who() {
		c.ok("DELETE", "/lease/"+states[i].ttl.ID, toyRequest{})
		c.ok("DELETE", "/lease/"+states[i].held.ID, toyRequest{})
	}
	p.kill()
	p.run()
	for _, c := range who() {
		if l := c.ok("GET", "/leases", toyRequest{}).Leases; len(l) != 1 {
			t.Errorf("what was given back is there: %+v", l)
		}
	}
}

// While an agent is killed at any moment, a store never forgets what it has acknowledged, nor holds a part of an Apply.
func TestStoreUnderKill(t *testing.T) {
	t.Parallel()
	p := toysApart(t, 4)
	acknowledged := 0
	for round := range 5 {
		c := callerOf(t, p.listening()[0].Address)
		some := make(chan struct{}) // closed when a few of the round are acknowledged
		done := make(chan int)
		go func() {
			n := acknowledged
			for {
				body := fmt.Sprintf(`{"changes":[{"Key":"a","Value":%q},{"Key":"b","Value":%q}]}`, number(n+1),
					number(n+1))
				r, err := postTo(c, "/store", body)
				if err != nil { // killed
					done <- n
					return
				}
				if strings.Contains(r, "error") {
					t.Errorf("%s", r)
				}
				if n++; n == acknowledged+3 {
					close(some)
				}
			}
		}()
		select {
		case <-some:
		case n := <-done:
			t.Fatalf("round %d: the agent ended after %d", round, n)
		case <-time.After(30 * time.Second):
			t.Fatalf("round %d: nothing is acknowledged in 30 s", round)
		}
		p.kill()
		acknowledged = <-done
		p.run()
		c = callerOf(t, p.listening()[0].Address)
		a, b := c.ok("GET", "/store/a", toyRequest{}), c.ok("GET", "/store/b", toyRequest{})
		n, err := strconv.Atoi(a.Value)
		if err != nil || a.Value != b.Value || n < acknowledged || n > acknowledged+1 {
			t.Fatalf("round %d: %q and %q are kept, and %d was acknowledged", round, a.Value, b.Value, acknowledged)
		}
		acknowledged = n
	}
}

// number is n as JSON has the bytes of its decimals.
func number(n int) string { return base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(n))) }

// postTo posts to a toy that may be killed meanwhile.
func postTo(c *caller, target, body string) (string, error) {
	res, err := c.http.Post("http://localhost"+target, "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}
