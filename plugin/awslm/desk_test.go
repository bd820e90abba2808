package awslm_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
)

// fakeDesk is a desk over the core, with a clock that stands still, whose store is a map. What it has acknowledged outlives a handler, as
// it does an agent.
type fakeDesk struct {
	mu     sync.Mutex
	core   *enforcer.Enforcer
	now    time.Time
	store  map[string][]byte
	facts  enforcer.Facts
	who    *enforcer.Caller // nil: nobody vouches
	keys   []byte
	broken bool // nothing can be stored
	// crash says at which step the agent dies: "acquired", "stored", "set". Once.
	crash string
}

// died is what a fake agent dies of.
type died struct{}

func (d *fakeDesk) die(step string) {
	if d.crash == step {
		d.crash = ""
		panic(died{})
	}
}

func newDesk(licenses ...*enforcer.License) *fakeDesk {
	d := &fakeDesk{core: enforcer.New(enforcer.Options{Durable: true}), now: time.Now().UTC().Truncate(time.Second), store: map[string][]byte{}, who: &enforcer.Caller{UID: 7}}
	d.judge(licenses...)
	return d
}

// judge puts licences in force.
func (d *fakeDesk) judge(licenses ...*enforcer.License) {
	d.facts.Documents = nil
	for _, l := range licenses {
		d.facts.Documents = append(d.facts.Documents, enforcer.Document{Name: l.ID + ".lic", License: l})
	}
	d.do(&enforcer.SetVerdict{Verdict: enforcer.Judge(d.facts, d.now)})
}

func (d *fakeDesk) do(r enforcer.Request) enforcer.Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	for due := d.core.NextTick(); !due.IsZero() && !due.After(d.now); due = d.core.NextTick() {
		out := d.core.Decide(&enforcer.Tick{}, d.now)
		if len(out.Events) == 0 {
			break
		}
		for _, ev := range out.Events {
			d.core.Apply(ev)
		}
	}
	out := d.core.Decide(r, d.now)
	for _, ev := range out.Events {
		d.core.Apply(ev)
	}
	return out
}

func (d *fakeDesk) Caller(*http.Request) (enforcer.Caller, bool) {
	if d.who == nil {
		return enforcer.Caller{}, false
	}
	return *d.who, true
}
func (d *fakeDesk) CallerBy(_ *http.Request, credential string) enforcer.Caller {
	return enforcer.Caller{UID: 65534, Credential: credential}
}
func (d *fakeDesk) Credentials(*http.Request) ([]byte, error) { return d.keys, nil }
func (d *fakeDesk) Now() time.Time                            { return d.now }
func (d *fakeDesk) Verdict() *enforcer.Verdict                { return d.core.Verdict() }
func (d *fakeDesk) Document(string) []byte                    { return nil }
func (d *fakeDesk) Install(context.Context, enforcer.Caller, []byte, string) *enforcer.Denial {
	return nil
}
func (d *fakeDesk) Remove(context.Context, enforcer.Caller, string) *enforcer.Denial { return nil }
func (d *fakeDesk) Pools() []enforcer.PoolStatus {
	d.do(&enforcer.Tick{})
	return d.core.Pools()
}
func (d *fakeDesk) Host(context.Context, string) plugin.Host { return plugin.Host{} }
func (d *fakeDesk) Key() ed25519.PrivateKey                  { return agentKey }
func (d *fakeDesk) Log() *slog.Logger                        { return slog.New(slog.DiscardHandler) }
func (d *fakeDesk) Acquire(_ context.Context, r *enforcer.Acquire, data []byte) (*enforcer.Lease, bool, *enforcer.Denial) {
	q := *r
	q.Data = &enforcer.Data{Owner: awslm.System, Bytes: append([]byte{}, data...)}
	rand.Read(q.ID[:])
	out := d.do(&q)
	if out.Lease != nil {
		d.die("acquired")
	}
	return out.Lease, out.Replayed, out.Denial
}
func (d *fakeDesk) Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial) {
	q := *r
	q.Owner = awslm.System
	out := d.do(&q)
	return out.Lease, out.Denial
}
func (d *fakeDesk) Release(r *enforcer.Release) *enforcer.Denial {
	q := *r
	q.Owner = awslm.System
	return d.do(&q).Denial
}
func (d *fakeDesk) Lease(id enforcer.LeaseID, c enforcer.Caller) (*enforcer.Lease, bool) {
	d.do(&enforcer.Tick{})
	l, ok := d.core.Lease(id)
	return l, ok && l.Holder.SameUser(c)
}
func (d *fakeDesk) Leases(c enforcer.Caller) (out []*enforcer.Lease) {
	d.do(&enforcer.Tick{})
	for _, l := range d.core.Leases(nil) {
		if l.Holder.SameUser(c) {
			out = append(out, l)
		}
	}
	return out
}
func (d *fakeDesk) SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial {
	out := d.do(&enforcer.SetData{ID: id, Caller: c, Data: &enforcer.Data{Owner: awslm.System, Bytes: bytes.Clone(data)}})
	d.die("set")
	return out.Denial
}
func (d *fakeDesk) Adjust(string, int64, enforcer.Caller) (int64, *enforcer.Denial) {
	return 0, nil
}
func (d *fakeDesk) Store() plugin.Store { return fakeStore{d} }

type fakeStore struct{ d *fakeDesk }

func (s fakeStore) Get(key string) ([]byte, bool) {
	v, ok := s.d.store[key]
	return v, ok
}
func (s fakeStore) Range(prefix string, f func(string, []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(s.d.store)) {
		if strings.HasPrefix(k, prefix) && !f(k, s.d.store[k]) {
			return
		}
	}
}
func (s fakeStore) Apply(changes ...plugin.Change) error {
	if s.d.broken {
		return io.ErrShortWrite
	}
	for _, c := range changes {
		if c.If && !bytes.Equal(s.d.store[c.Key], c.Expect) {
			return plugin.ErrConflict
		}
	}
	for _, c := range changes {
		if c.Value == nil {
			delete(s.d.store, c.Key)
		} else {
			s.d.store[c.Key] = bytes.Clone(c.Value)
		}
	}
	s.d.die("stored")
	return nil
}

// counterOf is a dialect at a fake desk.
type counterOf struct {
	t    testing.TB
	desk *fakeDesk
	h    http.Handler
}

func counter(t testing.TB, licenses ...*enforcer.License) *counterOf {
	d := newDesk(licenses...)
	return &counterOf{t, d, awslm.Dialect{}.Handler(d)}
}

// restart makes the dialect anew, as after a crash.
func (c *counterOf) restart() { c.h = awslm.Dialect{}.Handler(c.desk) }

// post sends a body to an operation. It is false when the agent died of it.
func (c *counterOf) post(op, body string) (answer *httptest.ResponseRecorder, lives bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, is := p.(died); !is {
				panic(p)
			}
			c.restart()
		}
	}()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", awslm.ContentType)
	r.Header.Set(awslm.TargetHeader, awslm.TargetPrefix+op)
	answer = httptest.NewRecorder()
	c.h.ServeHTTP(answer, r)
	return answer, true
}

// call asks and decodes the answer into out, or returns the error code and what it says.
func (c *counterOf) call(op string, in, out any) *awslm.Fault {
	c.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		c.t.Fatal(err)
	}
	w, lives := c.post(op, string(body))
	if !lives {
		return &awslm.Fault{Code: "died"}
	}
	if w.Header().Get("X-Amzn-RequestId") == "" || w.Header().Get("Content-Type") != awslm.ContentType {
		c.t.Errorf("%s: the headers are %v", op, w.Header())
	}
	if w.Code == http.StatusOK {
		if out != nil {
			if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
				c.t.Fatal(err)
			}
		}
		return nil
	}
	f := &awslm.Fault{}
	if err := json.Unmarshal(w.Body.Bytes(), f); err != nil || f.Code == "" || f.Message == "" {
		c.t.Fatalf("%s: %d %s", op, w.Code, w.Body)
	}
	want := cmp.Or(map[bool]int{true: 500}[f.Code == awslm.ErrServerInternal], 400)
	if w.Code != want || w.Header().Get("X-Amzn-ErrorType") != f.Code {
		c.t.Errorf("%s: status %d, %s, header %q", op, w.Code, f.Code, w.Header().Get("X-Amzn-ErrorType"))
	}
	if !awslm.Declared(op, f.Code) {
		c.t.Errorf("%s answers %s, which is not declared for it", op, f.Code)
	}
	return f
}

// good is call that must succeed.
func (c *counterOf) good(op string, in, out any) {
	c.t.Helper()
	if f := c.call(op, in, out); f != nil {
		c.t.Fatalf("%s %+v: %v", op, in, f)
	}
}

// bad is call that must be refused with a code, and words.
func (c *counterOf) bad(op string, in any, code string, says ...string) {
	c.t.Helper()
	f := c.call(op, in, nil)
	if f == nil || f.Code != code {
		c.t.Errorf("%s %+v: %v, and it must be refused with %s", op, in, f, code)
		return
	}
	for _, s := range says {
		if !strings.Contains(f.Message, s) {
			c.t.Errorf("%s: %q does not say %q", op, f.Message, s)
		}
	}
}

// used returns what is in use of a pool or meter.
func (c *counterOf) used(pool string) int64 {
	for _, p := range c.desk.Pools() {
		if p.Name == pool {
			return p.InUse
		}
	}
	return -1
}
