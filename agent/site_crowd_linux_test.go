package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// member is one agent of the crowd: a keeper, what is in use here, and a way to the server that can be cut, as a kill
// does.
type member struct {
	*shares.Keeper
	id   int
	key  ed25519.PrivateKey
	hist *budgetHistory

	mu      sync.Mutex // guards all below
	inUse   int64
	waiting int64
	cap     int64
	fence   time.Duration
	gone    bool
	served  int64
}

// budgetHistory is what agents might hand out, as it was on one clock: each change of a budget, from when it may have
// been until when it surely was.
type budgetHistory struct {
	mu  sync.Mutex
	ops []porcupine.Operation
}

func (h *budgetHistory) add(client int, n int64, call, done time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: n, Call: int64(call),
		Return: int64(max(done, call+1))})
}

// budgetModel is a counter of what agents may hand out together.
func budgetModel(limit int64) porcupine.Model {
	return porcupine.Model{Init: func() any { return int64(0) }, Step: func(state, input, _ any) (bool, any) {
		n := state.(int64) + input.(int64)
		return n <= limit && n >= 0, n
	}, DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+d", input) }}
}

// changed puts a new budget in force. What is over was over at its fence already, whenever the keeper says so.
func (m *member) changed() {
	budgets, fence := m.Budgets()
	now := agent.SinceBoot()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return
	}
	n := int64(budgets[enforcer.Share{License: "usher/L1", Pool: "streams"}])
	if d := n - m.cap; d != 0 {
		call := now
		if d < 0 && m.fence != 0 && m.fence < now {
			call = m.fence
		}
		if d > 0 {
			call = now - time.Millisecond // it was the server's before; only when it surely was matters
		}
		m.hist.add(m.id, d, call, now)
	}
	m.cap, m.fence = n, fence
	free := max(0, min(m.waiting, m.cap-m.inUse))
	m.inUse, m.waiting, m.served = m.inUse+free, m.waiting-free, m.served+free
}

func (m *member) demand(string) shares.PoolDemand {
	m.mu.Lock()
	defer m.mu.Unlock()
	return shares.PoolDemand{InUse: m.inUse, Waiting: m.waiting, Capacity: m.cap}
}

// die is a kill -9: nothing is given back, and what was had is in use until its fence, and not a moment longer.
func (m *member) die() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	if m.cap > 0 {
		m.hist.add(m.id, -m.cap, m.fence, m.fence)
	}
}

// cuttable is a client whose agent may be dead.
type cuttable struct {
	plugin.Budgeter
	m *member
}

func (c cuttable) dead() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.gone {
		return plugin.Transiently("dead")
	}
	return nil
}

func (c cuttable) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	if err := c.dead(); err != nil {
		return nil, err
	}
	return c.Budgeter.CheckOut(ctx, r)
}

func (c cuttable) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	if err := c.dead(); err != nil {
		return nil, err
	}
	return c.Budgeter.Extend(ctx, r)
}

func (c cuttable) Return(ctx context.Context, r *plugin.Return) error {
	if err := c.dead(); err != nil {
		return err
	}
	return c.Budgeter.Return(ctx, r)
}

func (c cuttable) Watch(ctx context.Context, r *plugin.Watch) (*plugin.News, error) {
	if err := c.dead(); err != nil {
		return nil, err
	}
	return c.Budgeter.(plugin.Watcher).Watch(ctx, r)
}

// join makes a member of the crowd.
func (s *siteServer) join(id int, hist *budgetHistory) *member {
	s.t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, key)
	if err != nil {
		s.t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 1, TLSClientConfig: &tls.Config{RootCAs: s.roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	s.t.Cleanup(transport.CloseIdleConnections)
	c, err := online.NewClient(online.Config{URL: "https://" + s.address, Key: key,
		HTTP:    &http.Client{Transport: transport},
		Anchors: func() []plugin.Anchor { return []plugin.Anchor{s.signer.Anchor} }})
	if err != nil {
		s.t.Fatal(err)
	}
	m := &member{id: id, key: key, hist: hist}
	write := func(file string, data []byte) error { return os.WriteFile(file, data, 0o600) }
	m.Keeper, err = shares.New(shares.Config{Blocks: shares.File{Path: s.path(fmt.Sprint("blocks-", id)), Write: write},
		BootID: "boot", Now: agent.SinceBoot, Time: time.Now, CallWithin: 10 * time.Second,
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Product: l.Product, Document: doc}
		},
		Pool: m.demand, OnChange: m.changed})
	if err != nil {
		s.t.Fatal(err)
	}
	l, p := usher.Format{}.Verify(s.licence, []plugin.Anchor{s.signer.Anchor})
	if p != nil {
		s.t.Fatal(p.Reason)
	}
	m.Set([]shares.Licence{{License: l, Document: s.licence, Budgeter: cuttable{c, m}}})
	return m
}

// churn gives some slots back, or waits for more.
func (m *member) churn() {
	m.mu.Lock()
	if n := mathrand.Int64N(4); m.inUse > 0 && mathrand.IntN(2) == 0 {
		m.inUse -= 1 + mathrand.Int64N(m.inUse)
	} else if m.waiting+m.inUse < 5 {
		m.waiting += n
	}
	m.mu.Unlock()
	m.Nudge()
}

// calm has each member want one slot, and waits until all have one.
func calm(t *testing.T, members []*member) {
	t.Helper()
	for _, m := range members {
		m.mu.Lock()
		m.inUse, m.waiting = 0, 1
		m.mu.Unlock()
		m.changed()
		m.Nudge()
	}
	deadline := time.Now().Add(5 * time.Minute) // on a busy machine
	for _, m := range members {
		for m.demand("").InUse == 0 {
			if time.Now().After(deadline) {
				t.Fatalf("agent %d waits for its slot still: %+v", m.id, m.demand(""))
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// Fifty agents hammer one site server over TLS, which is killed, and some of them with it. What they may hand out
// together is never more than the licence grants, and when it is calm everybody who waits has slots.
func TestSiteServerCrowd(t *testing.T) {
	t.Parallel()
	const limit, crowd = 60, 50
	// Blocks of 15 seconds leave a call the time that it takes on a busy machine: of shorter ones more end unextended
	// than the server can give, and some agent waits for ever.
	s := openSiteServer(t, limit, 15*time.Second)
	hist := &budgetHistory{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	var members []*member
	for i := range crowd {
		m := s.join(i, hist)
		members = append(members, m)
		running.Go(func() { m.Run(ctx) })
	}
	const rounds = 30
	for round := range rounds {
		for range crowd / 2 {
			members[mathrand.IntN(crowd)].churn()
		}
		switch round {
		case rounds / 4, rounds / 2:
			s.kill()
			s.run()
		case rounds / 3:
			for _, m := range members[:5] {
				m.die()
			}
		}
		<-time.After(200 * time.Millisecond)
	}
	calm(t, members[5:])
	if _, sum := s.blocks(); sum < crowd-5 || sum > limit {
		t.Errorf("the server says that %d slots are out, of %d", sum, limit)
	}
	for _, m := range members {
		m.mu.Lock()
		m.inUse = 0
		m.mu.Unlock()
	}
	cancel()
	running.Wait()
	// A block whose return was not answered in time is over with its time.
	for over := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		_, sum := s.blocks()
		if sum == 0 {
			break
		}
		if time.Now().After(over) {
			t.Errorf("all have stopped, and %d slots are out", sum)
			break
		}
	}
	var served int64
	for _, m := range members {
		served += m.served
	}
	result := porcupine.CheckOperationsTimeout(budgetModel(limit), hist.ops, 30*time.Second)
	t.Logf("%d changes of budgets, %d slots granted; porcupine: %s", len(hist.ops), served, result)
	if result == porcupine.Illegal || hist.sweep() > limit {
		t.Errorf("more than %d slots might be handed out at one time: %d", limit, hist.sweep())
	}
	if len(hist.ops) < crowd {
		t.Errorf("only %d changes", len(hist.ops))
	}
}

// sweep returns the most that agents surely might hand out at one time: each gain from when it surely was, each loss
// from when it may have been.
func (h *budgetHistory) sweep() (most int64) {
	type edge struct{ at, n int64 }
	var edges []edge
	for _, o := range h.ops {
		if n := o.Input.(int64); n > 0 {
			edges = append(edges, edge{o.Return, n})
		} else {
			edges = append(edges, edge{o.Call, n})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return int(a.n - b.n)
	})
	var sum int64
	for _, e := range edges {
		sum += e.n
		most = max(most, sum)
	}
	return most
}
