package fleet_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/registrar"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

var (
	loadBrokers = flag.Int("fleet.brokers", 0, "how many site servers the agents of -fleet.load have")
	loadKill    = flag.Int("fleet.kill", 0, "how many of the site servers die at one instant, after the load")
	loadSpan    = flag.Duration("fleet.span", 30*time.Second, "for how long the load of site servers is counted")
)

const (
	brokerTTL = 10 * time.Second
	blockTTL  = registry.DefaultBlockTTL
	slotWait  = 5 * time.Second
	loadStep  = 250 * time.Millisecond
	perAgent  = 10 // slots of the licence for each agent, half of them needed
)

// tier is site servers that have their slots from one simulated store, and agents that have theirs from them. All but
// the store and the network between them is what runs for real: the servers with their stores and their signatures, the
// agents' clients with theirs, and the keepers of the agents' blocks.
type tier struct {
	t       *testing.T
	sim     fleet.Sim
	signer  *issue.Signer
	terms   []siteTerm    // of one product: agents have them in turn
	ttl     time.Duration // of the site servers in the fleet
	lends   time.Duration // for how long they give blocks
	mu      sync.Mutex    // guards servers
	servers map[string]*siteServer
	names   []string
	users   []*user
	begin   time.Time
	limit   int64
	wrong   string
	// late is how long a request is on its way to a server, and its answer on the way back; nil: a millisecond or two.
	late func() (there, back time.Duration)
	// slow is how long a server waits before and after each call to the store; nil: not at all.
	slow func() time.Duration

	asked, refused        atomic.Int64 // calls of agents
	counts                atomic.Bool
	acquires, denied, lat atomic.Int64
	lost                  atomic.Int64 // slots that an agent held and may not hold any more
	longest               atomic.Int64
}

// siteTerm is a licence.
type siteTerm struct {
	*enforcer.License
	doc []byte
}

func (y *tier) now() time.Duration { return time.Hour + time.Since(y.begin) }

// siteServer is one site server.
type siteServer struct {
	dir      string
	registry *registry.Registry
	handler  http.Handler
	down     atomic.Bool
	stop     func() // kills it
	leave    func() // stops it in order
}

// RoundTrip brings a request to a server of the tier.
func (y *tier) RoundTrip(req *http.Request) (*http.Response, error) {
	there, back := time.Millisecond+time.Duration(rand.Int64N(int64(time.Millisecond))), time.Duration(0)
	if y.late != nil {
		there, back = y.late()
	}
	if err := pause(req.Context(), there); err != nil {
		return nil, err
	}
	s := y.server(req.URL.Hostname())
	if s.down.Load() {
		return nil, errors.New("connection refused")
	}
	y.asked.Add(1)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		y.refused.Add(1)
	}
	if err := pause(req.Context(), back); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// pause waits unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// server returns the server of a name that runs, or ran last.
func (y *tier) server(name string) *siteServer {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.servers[name]
}

// openTier makes licences of one product, each with as many slots, and site servers with these slots.
func openTier(t *testing.T, servers int, limit int64, ids ...string) *tier {
	y := &tier{t: t, sim: fleet.OpenSim(), begin: time.Now(), limit: limit, ttl: brokerTTL,
		lends: blockTTL, servers: map[string]*siteServer{}}
	private, _, err := issue.MakeKey(t.TempDir(), "v1", "")
	y.must(err)
	y.signer, err = issue.LoadSigner(private, "")
	y.must(err)
	for i, id := range ids {
		doc, err := y.signer.Sign(&usher.Claims{ID: id, Product: "acme", Issued: time.Now().Unix() - 100 + int64(i),
			Pools: map[string]usher.Pool{"streams": {Max: &limit}}})
		y.must(err)
		l, p := usher.Format{}.Verify(doc, []plugin.Anchor{y.signer.Anchor})
		if p != nil {
			t.Fatal(p.Reason)
		}
		y.terms = append(y.terms, siteTerm{l, doc})
	}
	for i := range servers {
		y.serve(fmt.Sprint("site-", i))
	}
	return y
}

func (y *tier) must(err error) {
	if err != nil {
		y.t.Helper()
		y.t.Fatal(err)
	}
}

// serve starts one site server.
func (y *tier) serve(name string) {
	dir, err := os.MkdirTemp(y.t.TempDir(), "s")
	y.must(err)
	y.names = append(y.names, name)
	y.run(name, dir)
}

// run starts a site server that has a folder.
func (y *tier) run(name, dir string) {
	g, err := registry.Open(registry.Config{Dir: dir, Signer: y.signer, Now: time.Now, RunDir: dir, BootID: "boot"})
	y.must(err)
	for _, term := range y.terms {
		_, err = g.Admit(term.doc)
		y.must(err)
	}
	y.must(g.ServePools(y.lends, y.now))
	ctx, cancel := context.WithCancel(context.Background())
	s := &siteServer{dir: dir, registry: g, handler: g.Handler()}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- registrar.Lend(ctx, &registrar.Config{Signer: y.signer, BlockTTL: y.lends, Uptime: y.now, RunDir: dir,
			Log: slog.New(slog.DiscardHandler), Fleet: &registrar.Fleet{Store: dying{y.sim.Way(name), &s.down, y.slow},
				Prefix: "/u/", TTL: y.ttl, Name: name}}, g, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-ended:
		y.t.Fatal(err)
	}
	s.leave = sync.OnceFunc(func() {
		cancel()
		y.must(<-ended)
		s.down.Store(true)
		y.must(g.Close())
	})
	s.stop = func() { s.down.Store(true); s.leave() }
	y.mu.Lock()
	defer y.mu.Unlock()
	y.servers[name] = s
}

// dying is the store of a server that may be killed: it does not say in the fleet that it stops.
type dying struct {
	fleet.Store
	down *atomic.Bool
	slow func() time.Duration
}

func (d dying) Txn(ctx context.Context, t *fleet.Txn) (*fleet.Result, error) {
	if d.down.Load() {
		return nil, errors.New("the server was killed")
	}
	if d.slow != nil {
		time.Sleep(d.slow())
		defer func() { time.Sleep(d.slow()) }()
	}
	return d.Store.Txn(ctx, t)
}

// user is one agent, and those who call it.
type user struct {
	y      *tier
	term   siteTerm
	keeper *shares.Keeper
	rng    *rand.Rand
	stop   func()

	mu             sync.Mutex // guards all below
	inUse, waiting int64
	cap            int64
	fence          time.Duration
	queue          []time.Time // when those that wait began
	releases       []time.Time
	began          time.Time
	first          time.Duration // after which the first caller was served; 0: it was not
}

// use starts an agent that knows two of the servers.
func (y *tier) use(i int) *user {
	u := &user{y: y, term: y.terms[i%len(y.terms)], rng: rand.New(rand.NewPCG(uint64(i), 7))}
	_, key, err := ed25519.GenerateKey(nil)
	y.must(err)
	n := len(y.names)
	at := []string{"http://" + y.names[i%n], "http://" + y.names[(i+1+i/n%max(1, n-1))%n]}
	each := &http.Client{Transport: y}
	several, err := online.NewSeveral(at, func(url string) (*online.Client, error) {
		return online.NewClient(online.Config{URL: url, Key: key, HTTP: each,
			Anchors: func() []plugin.Anchor { return []plugin.Anchor{y.signer.Anchor} }})
	})
	y.must(err)
	none := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	u.keeper, err = shares.New(shares.Config{
		Blocks: shares.File{Read: none, Write: func(string, []byte) error { return nil }},
		Draws:  shares.File{Read: none, Write: func(string, []byte) error { return nil }},
		BootID: "boot", Now: y.now, Time: time.Now,
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Product: l.Product, Document: doc}
		},
		Pool: func(string) shares.PoolDemand {
			u.mu.Lock()
			defer u.mu.Unlock()
			return shares.PoolDemand{InUse: u.inUse, Waiting: u.waiting, Capacity: u.cap}
		},
		OnChange: u.changed})
	y.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	u.stop = func() { cancel(); <-ended }
	u.began = time.Now()
	u.mu.Lock()
	u.waiting, u.queue = 1, []time.Time{u.began}
	u.mu.Unlock()
	u.keeper.Set([]shares.Licence{{License: u.term.License, Document: u.term.doc, Budgeter: several}})
	go func() { defer close(ended); u.keeper.Run(ctx) }()
	return u
}

// changed puts the keeper's budget in force, and serves those that wait.
func (u *user) changed() {
	var facts enforcer.Facts
	fence := u.keeper.Fill(&facts, time.Time{})
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cap = int64(facts.Budgets[enforcer.Share{License: enforcer.Ref("usher/" + u.term.ID), Pool: "streams"}])
	u.fence = fence
	if over := u.inUse - u.usable(); over > 0 {
		u.y.lost.Add(over)
		u.inUse -= over
		u.releases = u.releases[:max(0, len(u.releases)-int(over))]
	}
	for len(u.queue) > 0 && u.inUse < u.usable() {
		took := now.Sub(u.queue[0])
		u.queue = u.queue[1:]
		u.inUse++
		u.waiting--
		u.releases = append(u.releases, now.Add(time.Duration(u.rng.ExpFloat64()*float64(*fleet.LoadHold))))
		if u.first == 0 {
			u.first = max(1, now.Sub(u.began))
		}
		if u.y.counts.Load() {
			u.y.longest.Store(max(u.y.longest.Load(), int64(took)))
			if took > 2*time.Second {
				u.y.lat.Add(1)
			}
		}
	}
}

// usable is what the agent may hand out at this instant. mu is held.
func (u *user) usable() int64 {
	if u.fence != 0 && u.y.now() >= u.fence {
		return 0
	}
	return u.cap
}

// tick has callers come, go and give up.
func (u *user) tick() {
	now := time.Now()
	u.mu.Lock()
	n := len(u.releases)
	u.releases = slices.DeleteFunc(u.releases, func(at time.Time) bool { return !at.After(now) })
	ended := n - len(u.releases)
	u.inUse -= int64(ended)
	gaveUp := 0
	for len(u.queue) > 0 && now.Sub(u.queue[0]) >= slotWait && u.first > 0 {
		u.queue = u.queue[1:]
		gaveUp++
	}
	come := 0
	none := math.Exp(-float64(perAgent) / 2 / fleet.LoadHold.Seconds() * loadStep.Seconds())
	for p := u.rng.Float64(); p > none && u.first > 0; p *= u.rng.Float64() {
		u.queue = append(u.queue, now)
		come++
	}
	u.waiting += int64(come - gaveUp)
	u.mu.Unlock()
	if u.y.counts.Load() {
		u.y.acquires.Add(int64(come))
		u.y.denied.Add(int64(gaveUp))
	}
	if ended+gaveUp+come > 0 {
		u.changed()
		u.keeper.Nudge()
	}
}

// check adds up what all agents may hand out.
func (y *tier) check() {
	if sum := y.usable(""); sum > y.limit && y.wrong == "" {
		y.wrong = fmt.Sprintf("after %s agents may hand out %d of %d slots", time.Since(y.begin), sum, y.limit)
	}
}

// play has all callers act for a while.
func (y *tier) play(span time.Duration) {
	var all sync.WaitGroup
	n := len(y.names)
	for i := range n {
		all.Go(func() {
			time.Sleep(loadStep * time.Duration(i) / time.Duration(n))
			for range span / loadStep {
				time.Sleep(loadStep)
				for at := i; at < len(y.users); at += n {
					y.users[at].tick()
				}
				if i == 0 {
					y.check()
				}
			}
		})
	}
	all.Wait()
}

// TestBrokersUnderLoad prints figures of docs/scale.md.
func TestBrokersUnderLoad(t *testing.T) {
	agents, _ := strconv.Atoi(*fleet.LoadAgents)
	if *loadBrokers == 0 || agents == 0 {
		t.Skip("-fleet.load and -fleet.brokers are not given")
	}
	bubble.Test(t, func(t *testing.T) { loadOfBrokers(t, *loadBrokers, agents, *loadKill, *loadSpan) })
}

// Site servers have slots at hand before their agents ask: few acquires cost the store a write. One that dies costs its
// agents nothing that is held, and nobody hands out more than the licence grants.
func TestBrokersKeepSlotsReady(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		if writes := loadOfBrokers(t, 2, 24, 1, 30*time.Second); writes > 0.2 {
			t.Errorf("an acquire costs %.2f writes", writes)
		}
	})
}

// loadOfBrokers has agents of site servers begin, go on, and then some of the servers die. It returns how many writes
// to the store an acquire costs between.
func loadOfBrokers(t *testing.T, servers, agents, kill int, span time.Duration) (perAcquire float64) {
	y := openTier(t, servers, int64(perAgent*agents), "L1")
	time.Sleep(brokerTTL + blockTTL + time.Minute) // the new store's quarantine
	calls, writes, _ := y.sim.Counts()
	for i := range agents {
		y.users = append(y.users, y.use(i))
	}
	y.play(15 * time.Second)
	first := make([]time.Duration, 0, agents)
	for _, u := range y.users {
		u.mu.Lock()
		first = append(first, cmp.Or(u.first, time.Hour))
		u.mu.Unlock()
	}
	slices.Sort(first)
	begun, wrote, _ := y.sim.Counts()
	t.Logf("%d agents of %d site servers start at one instant: served after %s (half), %s (99 %%), %s (all); "+
		"%d calls to the store, %d wrote; agents made %d calls, %d in vain", agents, servers,
		first[agents/2], first[agents*99/100], first[agents-1], begun-calls, wrote-writes, y.asked.Load(),
		y.refused.Load())
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("memory in use: %d kB an agent, its callers' and its server's part included",
		(m.HeapInuse+m.StackInuse)/1024/uint64(agents))
	asked, refused := y.asked.Load(), y.refused.Load()
	y.counts.Store(true)
	y.play(span)
	y.counts.Store(false)
	calls, writes, bytes := y.sim.Counts()
	s, acquires := span.Seconds(), y.acquires.Load()
	perAcquire = float64(writes-wrote) / float64(acquires)
	t.Logf(
		"then in %s: %d acquires, %d denied, %d served after 2 s, the longest wait %s; the store has %.0f calls and "+
			"%.1f writes a second, %.5f writes an acquire, and %d bytes of keys and values; a site server has %.1f "+
			"calls a "+
			"second, %.1f %% in vain", span, acquires, y.denied.Load(), y.lat.Load(), time.Duration(y.longest.Load()),
		float64(calls-begun)/s, float64(writes-wrote)/s, perAcquire, bytes,
		float64(y.asked.Load()-asked)/s/float64(servers),
		100*float64(y.refused.Load()-refused)/float64(y.asked.Load()-asked))
	if kill > 0 {
		for _, name := range y.names[:kill] {
			y.servers[name].stop()
		}
		y.play(blockTTL + blockTTL/4)
		t.Logf("%d site servers died at one instant: %d slots that were held were lost", kill, y.lost.Load())
	}
	y.end()
	return perAcquire
}

// end stops all agents and servers.
func (y *tier) end() {
	for _, s := range y.servers {
		s.down.Store(true)
	}
	var all sync.WaitGroup
	for _, u := range y.users {
		all.Go(u.stop)
	}
	all.Wait()
	for _, s := range y.servers {
		s.stop()
	}
	if y.wrong != "" {
		y.t.Error(y.wrong)
	}
	if n := y.lost.Load(); n > 0 {
		y.t.Errorf("%d slots that were held were lost", n)
	}
}
