package agent_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// site is a house whose licence is a whole site's, and the vendor's server, which serves blocks and can be away.
type site struct {
	*house
	registry *registry.Registry
	away     atomic.Bool
}

func openSite(t *testing.T, ttl time.Duration) *site {
	t.Helper()
	o := &site{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		o.registry.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	o.house = open(t, "upstream: {pools_url: "+server.URL+"}\n")
	var err error
	if o.registry, err = registry.Open(registry.Config{Dir: t.TempDir(), Signer: o.signer}); err != nil {
		t.Fatal(err)
	}
	if err := o.registry.ServePools(ttl, agent.SinceBoot); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.registry.Close() })
	return o
}

// out is how many slots agents have.
func (o *site) out() (n int64) {
	for _, b := range o.registry.OutBlocks() {
		n += b.Slots
	}
	return n
}

// ofSite makes a licence's pool a whole site's.
func ofSite(c *usher.Claims) {
	p := c.Pools["streams"]
	p.Scope = ""
	c.Pools["streams"] = p
}

// eventually waits until something is so.
func (h *house) eventually(what string, so func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !so() {
		if time.Now().After(deadline) {
			h.t.Fatalf("it never happened: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A pool that is a whole site's is granted from blocks: taken ahead, grown for who waits, kept over a restart, given
// back on a graceful stop, and out of use before anybody else may have them.
func TestSiteBlocks(t *testing.T) {
	t.Parallel()
	o := openSite(t, 6*time.Second)
	o.drop("a.lic", o.sign("L1", 8, ofSite))
	o.until("in force", inForce("L1"))
	o.eventually("a first block", func() bool { return o.out() > 0 })
	s, err := client.Open(t.Context(), client.WithSocket(o.Socket()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Acquire(t.Context(),
		wire.AcquireRequest{Pool: "streams", N: new(int64(7)), Lifetime: "held", WaitSeconds: 20}); err != nil {
		t.Fatalf("who waits has no slots, though the site has: %v", err)
	}
	if n := o.out(); n < 7 || n > 8 {
		t.Fatalf("7 are in use, and %d are out", n)
	}
	// A graceful restart keeps what is in use, and goes on with it.
	o.stop()
	o.eventually("idle slots are given back", func() bool { return o.out() == 7 })
	o.start()
	o.until("after a restart", inForce("L1"))
	p, err := o.Pool(t.Context(), "streams")
	if err != nil || p.InUse != 7 || p.Budget == nil || *p.Budget < 7 {
		t.Errorf("after a restart: %+v, %v", p, err)
	}
	// The server is away: nothing is handed out before others may have it, and what is held is kept.
	o.away.Store(true)
	o.eventually("the budget is over", func() bool {
		p, err := o.Pool(context.Background(), "streams")
		return err == nil && p.Budget != nil && *p.Budget == 0 && p.InUse == 7
	})
	if _, err := o.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("without a budget: %v", err)
	}
	o.eventually("the block is over for the server too", func() bool { return o.out() == 0 })
	o.away.Store(false)
	o.eventually("a block for what is held", func() bool { return o.out() >= 7 })
}
