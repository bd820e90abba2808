package agent_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// Who asks while the agent starts is not told that there is no licence: it is answered when the folder has been read.
func TestAskedBeforeTheFirstVerdict(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	h.stop()
	run := h.startLater()
	c, err := net.Dial("unix", h.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c,
		`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`); err != nil {
		t.Fatal(err)
	}
	run()
	in := bufio.NewScanner(c)
	if !in.Scan() || !strings.Contains(in.Text(), `"state":"held"`) {
		t.Errorf("%s, %v", in.Text(), in.Err())
	}
}

// tally counts what many callers get.
type tally struct{ held, grants, denials atomic.Int64 }

// hammer acquires and releases until ctx ends. No licence grants more than most slots.
func (y *tally) hammer(ctx context.Context, t *testing.T, socket string, seed uint64, most int64) {
	random := rand.New(rand.NewPCG(seed, 7))
	c := client.New(socket)
	defer c.Close()
	for ctx.Err() == nil {
		// Callers without rest would take all there is of a small machine from the agent that they wait for.
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.Int64N(int64(60 * time.Millisecond)))):
		}
		n := 1 + random.Int64N(2)
		l, err := c.Acquire(context.Background(), wire.AcquireRequest{Pool: "streams", N: &n})
		switch {
		case errors.Is(err, client.ErrNoSlots), errors.Is(err, client.ErrLicenseMissing):
			y.denials.Add(1)
			continue
		case err != nil:
			t.Errorf("acquire: %v", err)
			return
		}
		y.grants.Add(1)
		// Counted after the grant and before the release, so never more than are held.
		if now := y.held.Add(n); now > most {
			t.Errorf("%d slots are held, and no licence grants more than %d", now, most)
		}
		if random.IntN(4) == 0 {
			if _, err := c.Renew(context.Background(), l.ID, 0); err != nil {
				t.Errorf("renew: %v", err)
			}
		}
		y.held.Add(-n)
		if err := c.Release(context.Background(), l.ID, false); err != nil {
			t.Errorf("release: %v", err)
			return
		}
	}
}

// A thousand licences are dropped, replaced and removed while eight callers acquire and release: no error that
// the story does not explain, no slot over the limit, no goroutine left.
func TestThousandLicences(t *testing.T) {
	rounds := 500 // of two licences each
	if testing.Short() {
		rounds = 50
	}
	ignore := goleak.IgnoreCurrent()
	h := open(t, "")
	const few, many = 3, 5
	docs := [2][]byte{h.sign("few", few, nil), h.sign("many", many, func(c *usher.Claims) { c.Issued++ })}
	ctx, cancel := context.WithCancel(t.Context())
	var tally tally
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() { tally.hammer(ctx, t, h.Socket(), uint64(i), many) })
	}
	follow := h.follow()
	for round := range rounds {
		h.drop("a.lic", docs[0])
		follow("dropped", inForce("few"))
		h.drop("a.lic", docs[1])
		follow("replaced", inForce("many"))
		if err := os.Remove(filepath.Join(h.path("l"), "a.lic")); err != nil {
			t.Fatal(err)
		}
		// A file counts as removed when it has been gone for a quarter of a second; mostly the next comes sooner.
		if round%25 == 0 {
			follow("removed", code("NOT_FOUND"))
		}
		if t.Failed() {
			break
		}
	}
	cancel()
	callers.Wait()
	h.drop("a.lic", docs[1])
	h.until("the last", inForce("many"))
	p, err := h.Pool(t.Context(), "streams")
	if err != nil {
		t.Fatal(err)
	}
	if p.InUse != 0 || p.Leases != 0 || p.Peak > many {
		t.Errorf("at the end: %+v", p)
	}
	if tally.grants.Load() == 0 || tally.denials.Load() == 0 {
		t.Errorf("%d grants and %d denials show nothing", tally.grants.Load(), tally.denials.Load())
	}
	t.Logf("%d grants, %d denials", tally.grants.Load(), tally.denials.Load())
	h.stop()
	goleak.VerifyNone(t, ignore)
}

// A licence expires while slots are held: nobody gets more, those held stand until termination.
func TestExpiry(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	end := time.Now().Add(2 * time.Second).Unix()
	h.drop("a.lic", h.sign("short", 3, func(c *usher.Claims) { c.Expires = end }))
	l := h.until("dropped", inForce("short"))
	if l.Until == nil || l.Until.Unix() != end || l.CoveredUntil == nil || l.CoveredUntil.Unix() != end {
		t.Errorf("until %v, covered until %v", l.Until, l.CoveredUntil)
	}
	lease, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
	if err != nil {
		t.Fatal(err)
	}
	h.until("expired", code("EXPIRED"))
	if time.Now().Unix() < end {
		t.Error("it expired too soon")
	}
	_, err = h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
	if !errors.Is(err, client.ErrLicenseExpired) ||
		!strings.Contains(err.Error(), "licence short (a.lic): it expired at") {
		t.Errorf("acquire: %v", err)
	}
	var p *client.Error
	if errors.As(err, &p); p.Status != 403 || p.Verdict == nil || p.Verdict.Code != "EXPIRED" {
		t.Errorf("problem %+v", p)
	}
	// The end of grace (none) is the termination: drained leases end then.
	h.untilGone(lease.ID)
}

func (h *house) untilGone(id string) {
	h.t.Helper()
	deadline, rest := time.Now().Add(60*time.Second), pause()
	for {
		_, err := h.Lease(context.Background(), id)
		if errors.Is(err, client.ErrLeaseUnknown) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("lease %s is still held: %v", id, err)
		}
		rest()
	}
}

// A ttl lease that nobody renews comes back by itself; one that a session holds does not.
func TestTTL(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	s, err := client.Open(t.Context(), client.WithSocket(h.Socket()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	held, err := s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 1})
	if err != nil {
		t.Fatal(err)
	}
	lost, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 1})
	if err != nil {
		t.Fatal(err)
	}
	h.untilGone(lost.ID)
	if l, err := h.Lease(t.Context(), held.ID()); err != nil || l.State != "held" {
		t.Errorf("the lease that is renewed: %+v, %v", l, err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	if p, err := h.Pool(t.Context(), "streams"); err != nil || p.InUse != 0 {
		t.Errorf("after all: %+v, %v", p, err)
	}
	// Forced by an admin, who is the agent's own user here.
	held, err = s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Release(t.Context(), held.ID(), true); err != nil {
		t.Fatal(err)
	}
	<-held.Done()
	if !errors.Is(held.Err(), client.ErrLeaseUnknown) || !strings.Contains(held.Err().Error(), "forced") {
		t.Errorf("lost: %v", held.Err())
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
}

// Keys come and go with a reload; a configuration with a fault changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	good := h.config
	h.config = good + "      revoked: true\n"
	r, err := h.Reload(t.Context())
	if err != nil || len(r.Restart) != 0 || len(r.Changed) != 1 || r.Changed[0] != "license.trust[k1]" {
		t.Fatalf("%+v, %v", r, err)
	}
	l := h.until("revoked", code("UNTRUSTED_KEY"))
	if !strings.Contains(l.Reason, `licence a.lic: signed by key "k1", which is revoked`) {
		t.Errorf("reason %q", l.Reason)
	}
	h.config = good + "nonsense: 1\n"
	if _, err := h.Reload(t.Context()); !errors.Is(err, client.ErrBadRequest) ||
		!strings.Contains(err.Error(), `unknown key "nonsense"`) {
		t.Errorf("a faulty configuration: %v", err)
	}
	h.config = strings.Replace(good, "product: acme", "product: other", 1)
	if r, err := h.Reload(t.Context()); err != nil || len(r.Restart) != 1 || r.Restart[0] != "product" {
		t.Errorf("%+v, %v", r, err)
	}
	h.until("believed again", inForce("a"))
}

// A licence may come inline; it is one document among those of the folder.
func TestInlineLicence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	private, public, err := issue.MakeKey(dir, "k2", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := s.Sign(&usher.Claims{ID: "inline", Product: "acme", Issued: 1,
		Pools: map[string]usher.Pool{"seats": {Scope: "host"}}})
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, "    - kid: k2\n      key_file: "+public+"\n", "USHER_LICENSE="+string(doc))
	l := h.until("inline", inForce("inline"))
	if l.Licenses[0].Document != "USHER_LICENSE" {
		t.Errorf("it is called %q", l.Licenses[0].Document)
	}
	settings, err := h.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings {
		if strings.Contains(s.Value, string(doc[:40])) {
			t.Errorf("%s shows the licence", s.Key)
		}
	}
}

// Install says what would change, changes it, and refuses what could never count here.
func TestInstall(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	ctx := t.Context()
	r, err := h.Install(ctx, h.sign("a", 8, nil), "", true)
	if err != nil || !r.DryRun || strings.Join(r.Changes, "; ") != "verdict NOT_FOUND → VALID; streams 8 (new)" {
		t.Fatalf("%+v, %v", r, err)
	}
	if l, err := h.License(ctx); err != nil || l.Code != "NOT_FOUND" {
		t.Errorf("a dry run installs: %+v, %v", l, err)
	}
	if _, err := h.Install(ctx, h.sign("a", 8, nil), "", false); err != nil {
		t.Fatal(err)
	}
	next := h.sign("b", 12, func(c *usher.Claims) {
		c.Issued += 5
		c.Expires = time.Date(2099, 1, 31, 0, 0, 0, 0, time.UTC).Unix()
	})
	r, err = h.Install(ctx, next, "", true)
	if err != nil || strings.Join(r.Changes, "; ") != "streams 8 → 12; until 2099-01-31" {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = h.Install(ctx, next, "", false); err != nil || r.License.Limits["streams"] == nil ||
		*r.License.Limits["streams"] != 12 {
		t.Fatalf("%+v, %v", r, err)
	}
	for name, test := range map[string]struct {
		doc  []byte
		want string
	}{
		"noise":     {[]byte("hello"), "it is not a licence of any known system"},
		"truncated": {next[:150], "it has been cut off"},
		"other product": {h.sign("c", 1, func(c *usher.Claims) { c.Product = "other" }),
			`it is for product "other", and this agent serves acme`},
		"other agent": {h.sign("d", 1, func(c *usher.Claims) { c.AgentKeys = []string{strings.Repeat("A", 43)} }),
			"it is bound to another agent's key"},
	} {
		if _, err := h.Install(ctx, test.doc, "", false); !errors.Is(err, client.ErrDocumentRefused) ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.Install(ctx, next, "../out.lic", false); err == nil {
		t.Error("a document is installed outside the folder")
	}
	if err := h.Remove(ctx, "b.lic"); err != nil {
		t.Fatal(err)
	}
	if l, err := h.License(ctx); err != nil || !inForce("a")(l) {
		t.Errorf("after Remove: %+v, %v", l, err)
	}
	if _, err := h.Rollback(ctx, "b.lic"); err != nil {
		t.Fatal(err)
	}
	h.until("brought back", inForce("b"))
	if err := h.Remove(ctx, "none.lic"); !errors.Is(err, client.ErrDocumentUnknown) {
		t.Errorf("remove what is not there: %v", err)
	}
}

// A restart finds the last good bytes of a file that was broken meanwhile.
func TestRestartWithABrokenFile(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	h.stop()
	h.drop("a.lic", []byte("broken"))
	h.start()
	h.until("the last good one", inForce("a"))
	h.until("the fault told", func(l *wire.License) bool {
		return inForce("a")(l) && slices.ContainsFunc(l.Warnings, func(w wire.Warning) bool {
			return w.Code == "DOCUMENT" &&
				strings.Contains(w.Detail, "document a.lic is broken, and its last good version counts on")
		})
	})
}

// Events tell of the licence and of leases, as they happen.
func TestEvents(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var seen []string
	for ev, err := range h.Events(ctx) {
		if err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		seen = append(seen, strings.TrimSpace(ev.Type+" "+ev.Code+ev.Cause))
		switch len(seen) {
		case 1:
			h.drop("a.lic", h.sign("a", 2, nil))
		case 2:
			l, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Renew(ctx, l.ID, 0); err != nil {
				t.Fatal(err)
			}
			if err := h.Release(ctx, l.ID, false); err != nil {
				t.Fatal(err)
			}
		}
		if len(seen) == 5 {
			break
		}
	}
	want := "license.changed NOT_FOUND, license.changed VALID, lease.granted, lease.renewed, lease.ended released"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Nothing is collected while the journals are read; an agent that is ready collects again.
func TestCollectsWhenReady(t *testing.T) {
	open(t, "")
	goal := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(5 * time.Millisecond) { // others may start beside
		if metrics.Read(goal); goal[0].Value.Uint64() != math.MaxUint64 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("an agent that has been ready for 30 s collects no garbage")
		}
	}
}
