package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
)

// Many callers share one session, and some give up at any moment: each gets its own answer, and no lease is left.
func TestManyCallersOneSession(t *testing.T) {
	f := startFake(t)
	f.set(func() { f.limit = 1000 })
	s := f.open(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 200 {
				ctx, cancel := t.Context(), func() {}
				if i%2 == 0 {
					ctx, cancel = context.WithTimeout(ctx, rand.N(300*time.Microsecond))
				}
				l, err := s.Acquire(ctx, client.Slots("streams", 1))
				cancel()
				switch {
				case errors.Is(err, context.DeadlineExceeded) && i%2 == 0:
				case err != nil:
					t.Error(err)
				default:
					if id := l.Info().ID; id == "" || id != l.ID() {
						t.Errorf("lease %q says that it is %q", l.ID(), id)
					}
					if err := l.Close(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	f.holds(t, 0)
}

// manual is an agent whose test says each word; it answers hello itself.
func manual(t *testing.T, serve func(c net.Conn, next func() said)) string {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var over sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		over.Wait()
	})
	over.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewScanner(c)
		next := func() said {
			r := said{c: &fakeConn{Conn: c}}
			for in.Scan() && json.Unmarshal(in.Bytes(), &r) == nil && r.ID == nil {
			}
			return r
		}
		hello := next()
		hello.answer(`{"versions":[1]}`)
		serve(c, next)
	})
	return path
}

// A call that ends while its answer is half there spoils neither the session nor the next answer.
func TestHalfAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	half, given := make(chan struct{}), make(chan struct{})
	path := manual(t, func(c net.Conn, next func() said) {
		_ = next() // the session's own licence.get, which never gets an answer
		asked := next()
		whole := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{"pools":[{"name":"first"}]}}`+"\n", *asked.ID)
		fmt.Fprint(c, whole[:len(whole)/2])
		close(half)
		<-given
		fmt.Fprint(c, whole[len(whole)/2:])
		asked = next()
		asked.answer(`{"pools":[{"name":"second"}]}`)
		asked = next()
		asked.answer(`{"pools":[{"name":"` + strings.Repeat("x", 1<<20) + `"}]}`)
		next() // until the session is closed
	})
	s, err := client.Open(t.Context(), client.WithSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() {
		<-half
		cancel()
	}()
	if _, err := s.Pools(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	close(given)
	if p, err := s.Pools(t.Context()); err != nil || p[0].Name != "second" {
		t.Errorf("the next answer: %+v, %v", p, err)
	}
	if p, err := s.Pools(t.Context()); err != nil || len(p[0].Name) != 1<<20 {
		t.Errorf("a long answer: %v", err)
	}
}

// A call with a latest time ends then, and a later answer goes to nobody.
func TestAskUntil(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	acquire(t, s)
	f.set(func() { f.silent = true })
	if err := client.AskUntil(s, time.Now().Add(time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an agent that is silent: %v", err)
	}
	f.set(func() { f.silent = false })
	if err := client.AskUntil(s, time.Now().Add(time.Minute)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
