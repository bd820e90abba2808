package online_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// siteServer is one of several site servers: it gives what it is asked for.
type siteServer struct {
	name    string
	mu      sync.Mutex // guards all below
	asked   []*online.Request
	refuses *online.Refusal // instead of an answer
	dead    bool
	slow    bool // watches last until they are ended
}

// waits has watches last a while.
func (s *siteServer) waits(slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = slow
}

func (s *siteServer) answers(side side, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		panic(http.ErrAbortHandler)
	}
	b, _ := io.ReadAll(r.Body)
	q, agent, err := online.OpenRequest(string(b))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.asked = append(s.asked, q)
	if s.slow && q.Call == online.CallWatch {
		s.mu.Unlock()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
		}
		s.mu.Lock()
	}
	reply := &online.Reply{Call: q.Call, Issued: time.Now().Unix(), Nonce: q.Nonce, License: q.License, AgentKey: agent,
		Refused: s.refuses}
	if s.refuses == nil {
		reply.Chain = fmt.Sprint(s.name, len(s.asked))
	}
	if s.refuses == nil && (q.Call == online.CallCheckOut || q.Call == online.CallExtend) {
		reply.Block = &online.BlockReply{ID: q.Block.ID, Pool: "streams", Slots: 3, Seconds: 60}
		if q.Call == online.CallCheckOut {
			reply.Block.ID = "block of " + s.name
		}
	}
	if s.refuses == nil && q.Call == online.CallDraw {
		reply.Draw = &online.DrawReply{Meter: q.Draw.Meter, N: q.Draw.N}
	}
	payload, _ := json.Marshal(reply)
	token, err := side.signer.SignAs(online.ReplyType, payload)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if reply.Refused != nil {
		w.WriteHeader(http.StatusForbidden)
	}
	io.WriteString(w, token)
}

// is has the server be dead, or refuse.
func (s *siteServer) is(dead bool, refuses *online.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead, s.refuses = dead, refuses
}

// last returns the last request, and forgets all; one without a call: there was none.
func (s *siteServer) last() *online.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.asked = nil }()
	if len(s.asked) == 0 {
		return &online.Request{Block: &online.BlockRequest{}}
	}
	return s.asked[len(s.asked)-1]
}

// several is an agent of two site servers.
type several struct {
	*online.Several
	t     *testing.T
	state []byte
	drawn []byte      // the state of draws
	a, b  *siteServer // a is the one that the agent asks first
	// again is the agent after a restart.
	again func() *online.Several
}

func openSeveral(t *testing.T) *several {
	t.Helper()
	s, side := &several{t: t}, newSide(t)
	servers := map[string]*siteServer{}
	var addresses []string
	for _, name := range []string{"x", "y"} {
		x := &siteServer{name: name}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x.answers(side, w, r)
		}))
		t.Cleanup(srv.Close)
		servers[srv.URL], addresses = x, append(addresses, srv.URL)
	}
	s.again = func() *online.Several {
		x, err := online.NewSeveral(slices.Concat(addresses, addresses[:1]),
			func(at string) (*online.Client, error) {
				return side.client(t, at, nil), nil
			})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	s.Several = s.again()
	s.a, s.b = servers[addresses[0]], servers[addresses[1]]
	if s.checkOut() != "block of "+s.a.name {
		s.a, s.b = s.b, s.a
	}
	s.a.last()
	s.b.last()
	return s
}

func (s *several) request() plugin.Request {
	return plugin.Request{LicenseID: "L1", Product: "acme", Nonce: nonce, State: s.state}
}

// checkOut takes a block, and returns its id.
func (s *several) checkOut() string {
	s.t.Helper()
	b, err := s.CheckOut(s.t.Context(),
		&plugin.CheckOut{Request: s.request(), Pool: "streams", Slots: 3, For: time.Minute,
			Token: "t"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.state = b.State
	return b.ID
}

func (s *several) extend(block string) error {
	b, err := s.Extend(s.t.Context(), &plugin.Extend{Request: s.request(), Block: block, Slots: 3, For: time.Minute})
	if err == nil {
		if s.state = b.State; b.ID != block {
			s.t.Errorf("of block %s, %s was extended", block, b.ID)
		}
	}
	return err
}

var away = &online.Refusal{System: plugin.SystemAway, Reason: "no proof of its place in the fleet"}

// A block is its server's. Where that one does not answer, or cannot reach the fleet, another takes the block over by
// the word of the first, and from then on it is that one's; new blocks come from there, too.
func TestSeveralMoveABlock(t *testing.T) {
	for name, fails := range map[string]func(*siteServer){
		"it is dead": func(x *siteServer) { x.is(true, nil) },
		"it is away": func(x *siteServer) { x.is(false, away) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openSeveral(t)
			block := s.checkOut()
			if err := s.extend(block); err != nil || s.a.last().Block.ID != block || s.b.last().Call != "" {
				t.Fatalf("the block's own server was not asked: %v", err)
			}
			fails(s.a)
			if err := s.extend(block); err != nil {
				t.Fatal(err)
			}
			if got := s.b.last(); got.Block.Moved == "" || got.Block.Moved[:1] != s.a.name {
				t.Errorf("the other was shown %q", got.Block.Moved)
			}
			s.a.is(false, nil)
			s.a.last()
			if err := s.extend(block); err != nil || s.b.last().Block.Moved != "" || s.a.last().Call != "" {
				t.Errorf("the block is the other's now: %v", err)
			}
			if s.checkOut() != "block of "+s.b.name {
				t.Error("a new block is not of the one that the agent asks now")
			}
			if err := s.Return(t.Context(), &plugin.Return{Request: s.request(), Block: block}); err != nil ||
				s.b.last().Call != online.CallReturn {
				t.Errorf("the block goes back to who has it: %v", err)
			}
			if _, err := s.Watch(t.Context(), &plugin.Watch{Request: s.request(), For: time.Second}); err != nil ||
				s.b.last().Call != online.CallWatch {
				t.Errorf("news come of the one that the agent asks: %v", err)
			}
		})
	}
}

// A server that stops tells who watches, who asks the next one at once. An agent hears from the one that gave it more
// time last.
func TestSeveralHearThatOneStops(t *testing.T) {
	s := openSeveral(t)
	block := s.checkOut()
	watch := func() (*plugin.News, error) {
		return s.Watch(t.Context(), &plugin.Watch{Request: s.request(), For: time.Second})
	}
	if news, err := watch(); err != nil || news.Moves || !s.Roams() {
		t.Fatalf("%+v, %v", news, err)
	}
	s.a.is(false, &online.Refusal{System: plugin.SystemAway, Reason: "it is being stopped", Leaves: true})
	if news, err := watch(); err != nil || !news.Moves {
		t.Fatalf("the server stops: %+v, %v", news, err)
	}
	s.a.last()
	if err := s.extend(block); err != nil || s.b.last().Block.Moved == "" {
		t.Errorf("the other takes the block over: %v", err)
	}
	s.a.is(false, nil)
	s.a.last()
	if news, err := watch(); err != nil || news.Moves || s.a.last().Call != "" {
		t.Errorf("news come of the one that has the block: %+v, %v", news, err)
	}
}

// An agent with blocks of two servers hears that either stops, also of the one that it does not ask now; once, unless
// that one gives something again. A server without its blocks is not heard.
func TestSeveralHearAllWhoseBlocksTheyHave(t *testing.T) {
	s := openSeveral(t)
	first := s.checkOut()
	s.a.is(false, away)
	if second := s.checkOut(); second == first {
		t.Fatal("the other server gave nothing")
	}
	s.a.is(false, nil)
	watch := func() bool {
		t.Helper()
		s.a.last()
		s.b.last()
		news, err := s.Watch(t.Context(), &plugin.Watch{Request: s.request(), For: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return news.Moves
	}
	s.b.waits(true)
	stops := &online.Refusal{System: plugin.SystemAway, Reason: "it is being stopped", Leaves: true}
	if s.a.is(false, stops); !watch() {
		t.Error("the one that is not asked now stops")
	}
	if s.b.waits(false); watch() || s.a.last().Call != "" {
		t.Error("it is heard again before it gives something")
	}
	s.a.is(false, nil)
	if err := s.extend(first); err != nil { // the agent asks that one again
		t.Fatal(err)
	}
	s.a.waits(true)
	if s.b.is(true, nil); watch() {
		t.Error("that the other does not answer is the end of a watch")
	}
	if s.b.is(false, stops); !watch() {
		t.Error("the other stops")
	}
}

// A restarted agent hears those who gave the blocks that it goes on with, and not those whose blocks are over.
func TestSeveralHearAfterARestart(t *testing.T) {
	for name, c := range map[string]struct {
		left  time.Duration
		hears bool
	}{"it has the block": {time.Minute, true}, "the block is over": {-time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			s := openSeveral(t)
			s.a.is(false, away)
			block := s.checkOut() // of the other
			again := s.again()
			again.Has(s.state, map[string]time.Duration{block: c.left, "of nobody": time.Minute})
			s.a.is(false, nil)
			s.a.waits(true)
			s.b.is(false, &online.Refusal{System: plugin.SystemAway, Reason: "it is being stopped", Leaves: true})
			s.b.last()
			news, err := again.Watch(t.Context(), &plugin.Watch{Request: s.request(), For: time.Second})
			if heard := s.b.last().Call != ""; err != nil && c.hears || heard != c.hears || news.Moves != c.hears {
				t.Errorf("heard %v: %+v, %v", heard, news, err)
			}
		})
	}
}

// A refusal that is no matter of the server is the answer: no other is asked. Where all are away, the error passes.
func TestSeveralWhoRefuse(t *testing.T) {
	s := openSeveral(t)
	block := s.checkOut()
	code := func(err error) (string, plugin.Class) {
		var e *plugin.Error
		if !errors.As(err, &e) {
			t.Fatalf("%v", err)
		}
		return e.SystemCode, e.Class
	}
	s.a.is(false, &online.Refusal{System: plugin.SystemLapsed, Reason: "it is over"})
	if got, _ := code(s.extend(block)); got != plugin.SystemLapsed || s.b.last().Call != "" {
		t.Errorf("%s, or another was asked", got)
	}
	s.a.is(false, away)
	s.b.is(false, away)
	if got, class := code(s.extend(block)); got != plugin.SystemAway || class != plugin.Transient {
		t.Errorf("all are away: %s, %s", got, class)
	}
	s.b.is(false, &online.Refusal{System: plugin.SystemLapsed, Reason: "another has taken it over"})
	if got, _ := code(s.extend(block)); got != plugin.SystemLapsed {
		t.Errorf("the block is over for good: %s", got)
	}
	s.b.is(false, nil)
	s.state = []byte("of a former version")
	if s.checkOut() != "block of "+s.b.name {
		t.Error("a state that cannot be read keeps the agent from slots")
	}
	if _, err := online.NewSeveral(nil, nil); err == nil {
		t.Error("no server at all is taken")
	}
}
