package agent_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// renewed has all site servers, and agents that start after it, have a later issue of their licence.
func renewed(t *testing.T, all []*siteServer, change func(*usher.Claims)) {
	t.Helper()
	limit := int64(10)
	claims := usher.Claims{ID: "L1", Product: "acme", Issued: time.Now().Unix() - 5,
		Pools:      map[string]usher.Pool{"streams": {Max: &limit}},
		SiteServer: &usher.Confirmation{Thumbprint: usher.Describe(all[0].licence).SiteServer}}
	change(&claims)
	doc, err := all[0].signer.Sign(&claims)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if err := os.WriteFile(s.path("site.lic"), doc, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// deadly stands before site servers. It kills the first one that has taken draws, before the answer reaches the agent,
// and nobody is behind its address from then on.
type deadly struct {
	mu   sync.Mutex
	dead *siteServer
}

func (d *deadly) before(t *testing.T, s *siteServer) (address string) {
	t.Helper()
	to, err := url.Parse("http://" + s.address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	proxy.ModifyResponse = func(res *http.Response) error {
		if res.StatusCode != http.StatusOK || !strings.HasSuffix(res.Request.URL.Path, "/draw") {
			return nil
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.dead == nil {
			d.dead = s
			s.kill()
		}
		if d.dead == s {
			return http.ErrAbortHandler
		}
		return nil
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	return srv.URL
}

func (d *deadly) killed() *siteServer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// drawn returns how many draws of the only meter the hosts of a fleet have taken.
func (e *etcd) drawn(t *testing.T) int64 {
	t.Helper()
	store := fleet.Dial([]string{e.url}, "", "", nil)
	defer store.Close()
	res, err := store.Txn(t.Context(), &fleet.Txn{Then: []fleet.Op{{List: "/usher/m/"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range res.Got[0] {
		if strings.HasSuffix(kv.Key, "/s") {
			var sum struct{ Drawn int64 }
			if err := json.Unmarshal([]byte(kv.Value), &sum); err != nil {
				t.Fatal(err)
			}
			return sum.Drawn
		}
	}
	return 0
}

// Agents draw from a meter through site servers, which draw from etcd. One is killed when it has taken draws and not
// answered: the agent has the same draws from the other, and the meter has no more taken than the agents have.
func TestBrokersDraw(t *testing.T) {
	t.Parallel()
	e, brokers, _ := openBrokers(t, 10, 2)
	renewed(t, brokers, func(c *usher.Claims) {
		most := int64(40)
		c.Meters = map[string]usher.Meter{"pages": {Max: &most, Resets: "month"}}
	})
	d := &deadly{}
	agents := brokers[0].agentsOf(2, "pools_urls: ['"+d.before(t, brokers[0])+"', '"+d.before(t, brokers[1])+"']")
	draw := func(c *crashing, n int64) {
		t.Helper()
		if _, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "pages", N: &n, WaitSeconds: 200}); err != nil {
			t.Fatal(err)
		}
	}
	draw(agents[0], 3) // the new store's quarantine is as long as slots may be in use
	if d.killed() == nil {
		t.Fatal("no site server was asked for draws")
	}
	draw(agents[1], 4)
	draw(agents[0], 5)
	agents[1].kill()
	agents[1].run()
	draw(agents[1], 1)
	var had, used, meter int64
	polled(t, "the meter has taken what the agents have", func() bool {
		had, used, meter = 0, 0, e.drawn(t)
		for _, c := range agents {
			p, err := c.Pool(context.Background(), "pages")
			if err != nil || p.Budget == nil {
				return false
			}
			had, used = had+*p.Budget, used+p.InUse
		}
		return had == meter
	})
	if used != 13 || meter > 40 {
		t.Errorf("13 draws of 40 are %d, the agents have %d, and the meter %d", used, had, meter)
	}
}
