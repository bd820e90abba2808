package dialect

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// slots are none, at one instant.
type slots struct{ Slots }

func (slots) Now() time.Time { return time.Unix(1_000_000_000, 0) }

// teller answers with the credential of whoever calls, and the licence time.
type teller struct{ bare }

func (teller) Handler(d plugin.Desk) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, vouched := d.Caller(r)
		fmt.Fprint(w, c.Credential, " ", vouched, " ", d.Now().Unix(), " ", r.Header.Get("Authorization"))
	})
}

// configOf is what Open needs for some listeners.
func configOf(t *testing.T, listeners string) Config {
	t.Helper()
	c, err := config.Load(config.Source{Data: []byte("listeners: [" + listeners + "]\n")})
	if err != nil {
		t.Fatal(err)
	}
	c.State.Dir, c.State.RuntimeDir = t.TempDir(), t.TempDir()
	return Config{Settings: func() *config.Config { return c }, Dialects: []plugin.Dialect{teller{bare{"toy"}}},
		Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Slots: slots{}, Server: api.New(api.Config{})}
}

// freePort returns an address of loopback that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A listener that cannot be opened leaves none open: neither an address nor a store is taken when Open returns.
func TestOpenIsAllOrNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	first := freePort(t)
	c := configOf(t, fmt.Sprintf(`{address: "%s", dialect: toy, insecure_loopback: true}, `+
		`{address: "%s", dialect: toy, insecure_loopback: true}`, first, taken.Addr()))
	if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "listeners[1]: ") ||
		!strings.Contains(err.Error(), "choose another address") {
		t.Fatalf("an address that is taken: %v", err)
	}
	l, err := net.Listen("tcp", first)
	if err != nil {
		t.Fatalf("the first listener is still open: %v", err)
	}
	l.Close()
	taken.Close()
	a, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if keys := a.Keys(); len(a.Listeners()) != 2 || len(keys) != 1 || keys[0].Dialect != "toy" {
		t.Errorf("%d listeners, keys %v", len(a.Listeners()), keys)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if l, err = net.Listen("tcp", first); err != nil {
		t.Fatalf("after Close: %v", err)
	}
	l.Close()
}

// A call over TCP reaches the dialect with its caller, and without a token of the listener's.
func TestRun(t *testing.T) {
	t.Parallel()
	c := configOf(t, `{address: "127.0.0.1:0", dialect: toy, insecure_loopback: true}`)
	a, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	l := a.Listeners()[0]
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	resp, err := http.Get("http://" + l.Address() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "loopback true 1000000000 " {
		t.Errorf("%q, %v", b, err)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// full has no slots.
type full struct{ Slots }

func (full) Acquire(context.Context, *enforcer.Acquire) (api.Grant, *enforcer.Denial) {
	return api.Grant{}, &enforcer.Denial{Code: enforcer.NoSlots, Hint: "wait too (wait_seconds), or try again later"}
}

// A denial of a dialect names no field of the local API.
func TestDenialNamesNoField(t *testing.T) {
	t.Parallel()
	c := configOf(t, "")
	c.Slots = full{}
	d := &desk{c: &c, system: "toy"}
	_, _, denial := d.Acquire(t.Context(), &enforcer.Acquire{Lifetime: enforcer.LifetimeHeld}, nil)
	if denial == nil || denial.Hint != "wait too, or try again later" {
		t.Errorf("%+v", denial)
	}
}

// A lease lives by no process over a dialect: a request says nothing of how long its caller lives.
func TestLifetimesOfSessions(t *testing.T) {
	t.Parallel()
	c := configOf(t, "")
	d := &desk{c: &c, system: "toy"}
	for _, l := range []enforcer.Lifetime{enforcer.LifetimeProcess, enforcer.LifetimeConnection} {
		if _, _, denial := d.Acquire(t.Context(), &enforcer.Acquire{Lifetime: l}, nil); denial == nil ||
			denial.Code != enforcer.BadRequest || denial.Field != "lifetime" {
			t.Errorf("%s: %v", l, denial)
		}
	}
}
