package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// agent serves a handler on a socket, as an agent would, until the test ends.
func agent(t testing.TB, h http.Handler) *client.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go s.Serve(l)
	c := client.New(filepath.Join(dir, "s"))
	t.Cleanup(func() {
		c.Close()
		s.Close()
		os.RemoveAll(dir)
	})
	return c
}

func answer(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func TestProblem(t *testing.T) {
	c := agent(t, answer(409, "application/problem+json",
		`{"status":409,"code":"no_slots","detail":"pool streams: all are in use","hint":"try later","limit":3,`+
			`"in_use":3,"retry_after_seconds":7}`))
	_, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
	if !errors.Is(err, client.ErrNoSlots) || errors.Is(err, client.ErrNotHolder) {
		t.Fatalf("got %v", err)
	}
	var p *client.Error
	if !errors.As(err, &p) || p.Error() != "pool streams: all are in use" || *p.Limit != 3 ||
		*p.RetryAfterSeconds != 7 || p.Hint != "try later" {
		t.Errorf("got %+v", p)
	}
}

func TestNotAnAgent(t *testing.T) {
	c := agent(t, answer(502, "text/html", "<h1>Bad gateway</h1>"))
	if _, err := c.License(t.Context()); !errors.Is(err, client.ErrInternal) || !strings.Contains(err.Error(), "502") {
		t.Errorf("got %v", err)
	}
	c = agent(t, answer(200, "application/json", "no json"))
	if _, err := c.License(t.Context()); !errors.Is(err, client.ErrAgentAway) {
		t.Errorf("got %v", err)
	}
}

func TestAway(t *testing.T) {
	c := client.New(filepath.Join(t.TempDir(), "none"))
	_, err := c.License(t.Context())
	if !errors.Is(err, client.ErrAgentAway) || !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), "no agent answers on "+c.Socket()) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.License(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSocketFromEnvironment(t *testing.T) {
	t.Setenv("USHER_SOCKET", "/a/b")
	if got := client.New("").Socket(); got != "/a/b" {
		t.Errorf("got %s", got)
	}
	t.Setenv("USHER_SOCKET", "")
	if got := client.New("").Socket(); got != client.DefaultSocket {
		t.Errorf("got %s", got)
	}
}

func TestEvents(t *testing.T) {
	c := agent(t, answer(200, "text/event-stream",
		": hello\n\nevent: license.changed\ndata: {\"type\":\"license.changed\",\"code\":\"VALID\"}\n\nevent: "+
			"x\ndata: {\"type\":\"x\"}\n\n"))
	var seen []string
	var last error
	for ev, err := range c.Events(t.Context()) {
		if err != nil {
			last = err
			break
		}
		seen = append(seen, ev.Type)
	}
	if strings.Join(seen, " ") != "license.changed x" || !errors.Is(last, client.ErrAgentAway) ||
		!strings.Contains(last.Error(), "the stream has ended") {
		t.Errorf("got %v, then %v", seen, last)
	}
}
