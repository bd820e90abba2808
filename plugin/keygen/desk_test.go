package keygen_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
)

// desk is a plugin.Desk: the enforcer itself, whose time is the test's.
type desk struct {
	mu          sync.Mutex
	core        *enforcer.Enforcer
	now         time.Time
	kept        map[string][]byte
	credentials []byte
	vouched     bool // the kernel says who calls
	full        bool // nothing can be written
	documents   map[string][]byte
}

var dialectKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte("d"), ed25519.SeedSize))

func newDesk(licences ...*enforcer.License) *desk {
	d := &desk{core: enforcer.New(enforcer.Options{Durable: true}), now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), kept: map[string][]byte{}, vouched: true}
	d.judge(licences...)
	return d
}

// judge puts licences in force.
func (d *desk) judge(licences ...*enforcer.License) {
	f := enforcer.Facts{Upstream: map[string]enforcer.Upstream{}}
	for _, l := range licences {
		f.Upstream[l.ID] = enforcer.Upstream{Activated: d.now, LastHeartbeat: d.now, LastCheckIn: d.now}
		f.Documents = append(f.Documents, enforcer.Document{Name: l.ID, License: l})
	}
	d.do(&enforcer.SetVerdict{Verdict: enforcer.Judge(f, d.now)})
}

// do decides and applies, with what is due ended first.
func (d *desk) do(r enforcer.Request) enforcer.Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		next := d.core.NextTick()
		if next.IsZero() || next.After(d.now) {
			break
		}
		due := d.core.Decide(&enforcer.Tick{}, d.now)
		if len(due.Events) == 0 {
			break
		}
		for _, ev := range due.Events {
			d.core.Apply(ev)
		}
	}
	out := d.core.Decide(r, d.now)
	for _, ev := range out.Events {
		d.core.Apply(ev)
	}
	return out
}

// pass lets time pass.
func (d *desk) pass(by time.Duration) { d.now = d.now.Add(by); d.do(&enforcer.Tick{}) }

func (d *desk) Caller(*http.Request) (enforcer.Caller, bool) {
	return enforcer.Caller{UID: 1000}, d.vouched
}

func (d *desk) CallerBy(_ *http.Request, credential string) enforcer.Caller {
	if d.vouched {
		return enforcer.Caller{UID: 1000}
	}
	return enforcer.Caller{UID: 65534, Credential: credential}
}

func (d *desk) Credentials(*http.Request) ([]byte, error) { return d.credentials, nil }
func (d *desk) Now() time.Time                            { return d.now }
func (d *desk) Verdict() *enforcer.Verdict                { return d.core.Verdict() }
func (d *desk) Document(name string) []byte               { return d.documents[name] }
func (d *desk) Pools() []enforcer.PoolStatus              { return d.core.Pools() }
func (d *desk) Key() ed25519.PrivateKey                   { return dialectKey }
func (d *desk) Log() *slog.Logger                         { return slog.New(slog.DiscardHandler) }
func (d *desk) Store() plugin.Store                       { return d }

func (d *desk) Host(context.Context, string) plugin.Host { return plugin.Host{} }

func (d *desk) Install(context.Context, enforcer.Caller, []byte, string) *enforcer.Denial { return nil }

func (d *desk) Remove(context.Context, enforcer.Caller, string) *enforcer.Denial { return nil }

func (d *desk) Acquire(_ context.Context, r *enforcer.Acquire, data []byte) (*enforcer.Lease, bool, *enforcer.Denial) {
	q := *r
	rand.Read(q.ID[:])
	q.Data = &enforcer.Data{Owner: keygen.System, Bytes: append([]byte{}, data...)}
	if d.full {
		return nil, false, &enforcer.Denial{Code: enforcer.Storage, Detail: "the disk is full"}
	}
	out := d.do(&q)
	return out.Lease, out.Replayed, out.Denial
}

func (d *desk) Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial) {
	if d.full {
		return nil, &enforcer.Denial{Code: enforcer.Storage, Detail: "the disk is full"}
	}
	q := *r
	q.Owner = keygen.System
	out := d.do(&q)
	return out.Lease, out.Denial
}

func (d *desk) Release(r *enforcer.Release) *enforcer.Denial {
	q := *r
	q.Owner = keygen.System
	return d.do(&q).Denial
}

func (d *desk) Lease(id enforcer.LeaseID, c enforcer.Caller) (*enforcer.Lease, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.core.Lease(id)
	if !ok || !l.Holder.SameUser(c) {
		return nil, false
	}
	return l, true
}

func (d *desk) Leases(c enforcer.Caller) []*enforcer.Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.core.Leases(func(l *enforcer.Lease) bool { return l.Holder.SameUser(c) })
	slices.SortStableFunc(out, func(a, b *enforcer.Lease) int { return a.AcquiredAt.Compare(b.AcquiredAt) })
	return out
}

func (d *desk) SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial {
	return d.do(&enforcer.SetData{ID: id, Caller: c, Data: &enforcer.Data{Owner: keygen.System, Bytes: data}}).Denial
}

func (d *desk) Adjust(meter string, by int64, c enforcer.Caller) (int64, *enforcer.Denial) {
	out := d.do(&enforcer.Shift{Pool: meter, By: by, Caller: c})
	return 0, out.Denial
}

func (d *desk) Get(key string) ([]byte, bool) {
	v, ok := d.kept[key]
	return v, ok
}

func (d *desk) Range(prefix string, f func(string, []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(d.kept)) {
		if strings.HasPrefix(k, prefix) && !f(k, d.kept[k]) {
			return
		}
	}
}

func (d *desk) Apply(changes ...plugin.Change) error {
	for _, c := range changes {
		d.kept[c.Key] = c.Value
	}
	return nil
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	body   []byte
	doc    struct {
		Data   json.RawMessage `json:"data"`
		Meta   map[string]any  `json:"meta"`
		Errors []struct {
			Title, Detail, Code string
			Source              map[string]string
		} `json:"errors"`
	}
}

type item struct {
	ID            string         `json:"id"`
	Type          string         `json:"type"`
	Attributes    map[string]any `json:"attributes"`
	Relationships map[string]struct {
		Data any            `json:"data"`
		Meta map[string]any `json:"meta"`
	} `json:"relationships"`
}

// client sends requests to a dialect; each answer must be signed.
type client struct {
	t       testing.TB
	desk    *desk
	handler http.Handler
	auth    string // of Authorization; empty: none
}

func newClient(t testing.TB, d *desk) *client {
	return &client{t: t, desk: d, handler: keygen.Dialect{}.Handler(d)}
}

const host = "127.0.0.1:8130"

func (c *client) send(method, target, body string, header ...string) *reply {
	c.t.Helper()
	r := httptest.NewRequest(method, "http://"+host+target, strings.NewReader(body))
	r.RequestURI = target
	if c.auth != "" {
		r.Header.Set("Authorization", c.auth)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	res := w.Result()
	b, _ := io.ReadAll(res.Body)
	out := &reply{status: res.StatusCode, header: res.Header, body: b}
	anchor, err := keygen.NewAnchor("d", []byte(hexKey()), "ed25519")
	if err != nil {
		c.t.Fatal(err)
	}
	u, err := url.Parse("http://" + host + target)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := keygen.VerifyResponse(method, u, res.Header, b, []plugin.Anchor{anchor}); err != nil {
		c.t.Errorf("%s %s is answered %d, and %v", method, target, res.StatusCode, err)
	}
	if len(b) > 0 && strings.HasPrefix(res.Header.Get("Content-Type"), "application/vnd.api+json") {
		if err := json.Unmarshal(b, &out.doc); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, target, err, b)
		}
	}
	return out
}

// one sends what must be answered with a status and one resource.
func (c *client) one(status int, method, target, body string) item {
	c.t.Helper()
	r := c.send(method, target, body)
	var out item
	if r.status != status || json.Unmarshal(r.doc.Data, &out) != nil {
		c.t.Fatalf("%s %s: %d %s", method, target, r.status, r.body)
	}
	return out
}

func (c *client) list(target string) (out []item) {
	c.t.Helper()
	r := c.send("GET", target, "")
	if r.status != http.StatusOK || json.Unmarshal(r.doc.Data, &out) != nil {
		c.t.Fatalf("GET %s: %d %s", target, r.status, r.body)
	}
	return out
}

// refused sends what must be refused with a status and code.
func (c *client) refused(status int, code, method, target, body string, header ...string) {
	c.t.Helper()
	r := c.send(method, target, body, header...)
	if r.status != status || len(r.doc.Errors) != 1 || r.doc.Errors[0].Code != code || r.doc.Errors[0].Title == "" || r.doc.Errors[0].Detail == "" {
		c.t.Errorf("%s %s %s: %d %s, and it must be refused with %d %s", method, target, body, r.status, r.body, status, code)
	}
}
