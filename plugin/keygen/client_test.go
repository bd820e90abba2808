package keygen_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// online is a host and the account that serves it.
type online struct {
	*keygentest.Cloud
	t       *testing.T
	client  *keygen.Client
	offset  atomic.Int64 // of the host's clock, to the server's
	passed  atomic.Int64 // of both, since noon
	doc     []byte
	secrets plugin.Secrets
	state   []byte
	anchors []plugin.Anchor
}

func open(t *testing.T, change func(*keygentest.License), cfg keygen.Config) *online {
	t.Helper()
	o := &online{t: t, secrets: plugin.Secrets{Keys: []string{"KEY-1"}, Fingerprint: "host-1"}}
	o.Cloud = keygentest.New(func() time.Time { return noon.Add(time.Duration(o.passed.Load())) })
	l := keygentest.License{ID: "lic-1", Key: "KEY-1", Token: "activ-1-v3", Product: "prod-1",
		Entitlements: []string{"EXPORT"}, HeartbeatDuration: 10 * time.Minute,
		Attributes: keygen.Attributes{Name: new("Acme"), Floating: true, Strict: true, MaxMachines: new(int64(2)),
			MaxProcesses: new(int64(3)), MaxCores: new(int64(64))}}
	if change != nil {
		change(&l)
	}
	o.Put(l)
	server := httptest.NewServer(o.Cloud)
	t.Cleanup(server.Close)
	o.anchors = []plugin.Anchor{anchor(t, "account", o.PublicKey(), "")}
	cfg.Account, cfg.URL = o.Account, server.URL
	cfg.Anchors, cfg.Secrets = func() []plugin.Anchor { return o.anchors }, func() plugin.Secrets { return o.secrets }
	cfg.Now = func() time.Time { return noon.Add(time.Duration(o.passed.Load() + o.offset.Load())) }
	var err error
	if o.client, err = keygen.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	o.doc = o.LicenseFile("lic-1", "aes-256-gcm+ed25519", 30*24*time.Hour)
	return o
}

func (o *online) request() *plugin.Request {
	return &plugin.Request{LicenseID: "lic-1", Document: o.doc, Product: "prod-1", Fingerprint: o.secrets.Fingerprint,
		Hostname: "render-7", AgentKey: "jkt", Nonce: []byte("0123456789abcdef"),
		Components: map[string][]string{"board": {"b1"}, "disk": {"d1", "d2"}},
		Cores:      plugin.Cores{Physical: 4, Logical: 8, Effective: 8}, Memory: 8 << 30, Disk: 100 << 30,
		State: o.state}
}

type method = func(context.Context, *plugin.Request) (*plugin.Reply, error)

// good makes a call that must succeed.
func (o *online) good(call method) *plugin.Reply {
	o.t.Helper()
	r, err := call(o.t.Context(), o.request())
	if err != nil {
		o.t.Fatal(err)
	}
	if err := r.Check(noon); err != nil {
		o.t.Fatal(err)
	}
	o.state = r.State
	return r
}

// bad makes a call that must not succeed.
func (o *online) bad(call method) *plugin.Error {
	o.t.Helper()
	_, err := call(o.t.Context(), o.request())
	var e *plugin.Error
	if !errors.As(err, &e) {
		o.t.Fatalf("got %v", err)
	}
	if *e.Checked() != *e {
		o.t.Errorf("the error cannot be: %+v", e)
	}
	if strings.Contains(e.Reason+e.Hint, "KEY-1") {
		o.t.Errorf("the error shows the licence key: %+v", e)
	}
	return e
}

func (o *online) pass(d time.Duration) { o.passed.Add(int64(d)) }

// A host's whole life: activated, with a file that opens here and counts; alive; given back.
func TestLife(t *testing.T) {
	o := open(t, func(l *keygentest.License) { l.Attributes.RequireHeartbeat = true }, keygen.Config{})
	r := o.good(o.client.Activate)
	all := o.Machines()
	if len(all) != 1 || all[0].Fingerprint != "host-1" || all[0].Hostname != "render-7" || all[0].Cores != 8 ||
		!slices.Equal(all[0].Components, []string{"b1", "d1"}) || all[0].LastHeartbeat.IsZero() {
		t.Fatalf("the account has %+v", all)
	}
	if !r.Time.Equal(noon) {
		t.Errorf("the time is %v", r.Time)
	}
	l, p := keygen.Format{}.Open(r.Document, o.anchors, o.secrets)
	if p != nil || l.ID != "lic-1" || l.Product != "prod-1" || !l.Features["EXPORT"].Bool ||
		l.Pools["processes"].Max != 3 || l.Pools["machines"].Max != 1 || !l.Expires.Equal(noon.Add(30*24*time.Hour)) {
		t.Fatalf("the file says %+v, %+v", l, p)
	}
	if _, p := (keygen.Format{}).Open(r.Document, o.anchors,
		plugin.Secrets{Keys: o.secrets.Keys, Fingerprint: "host-2"}); p == nil {
		t.Error("the file opens on another host")
	}
	// An answer that was lost: the same machine, not another.
	o.state = nil
	o.good(o.client.Activate)
	o.state = nil
	o.pass(5 * time.Minute)
	o.good(o.client.Heartbeat)
	if m := o.Machines(); len(m) != 1 || m[0].ID != all[0].ID || !m[0].LastHeartbeat.Equal(noon.Add(5*time.Minute)) {
		t.Errorf("the account has %+v", m)
	}
	o.Calls()
	o.good(o.client.Heartbeat)
	if calls := o.Calls(); len(calls) != 1 {
		t.Errorf("a heartbeat made %v", calls)
	}
	o.good(o.client.Deactivate)
	o.good(o.client.Deactivate)
	if m := o.Machines(); len(m) != 0 {
		t.Errorf("the account has %+v", m)
	}
}

// A machine that is gone is made again: it was deleted elsewhere, culled, or is dead for good.
func TestMachineGone(t *testing.T) {
	for name, gone := range map[string]func(o *online){
		"deleted": func(o *online) { o.Delete(o.Machines()[0].ID) },
		"culled":  func(o *online) { o.pass(time.Hour) },
		"dead and kept": func(o *online) {
			o.Change("lic-1", func(l *keygentest.License) { l.KeepDead = true })
			o.pass(time.Hour)
		},
		"dead, and back": func(o *online) {
			o.Change("lic-1", func(l *keygentest.License) { l.Revive = time.Hour })
			o.pass(30 * time.Minute)
		},
	} {
		for call, method := range map[string]func(*keygen.Client) method{"heartbeat": func(c *keygen.Client) method {
			return c.Heartbeat
		}, "check-in": func(c *keygen.Client) method { return c.CheckIn }} {
			t.Run(name+", "+call, func(t *testing.T) {
				o := open(t, func(l *keygentest.License) { l.Attributes.RequireHeartbeat = true }, keygen.Config{})
				o.good(o.client.Activate)
				before := o.Machines()[0].ID
				gone(o)
				o.good(method(o.client))
				all := o.Machines()
				if len(all) != 1 || (all[0].ID == before) != (name == "dead, and back") {
					t.Fatalf("was %s, is %+v", before, all)
				}
				o.good(o.client.Heartbeat)
				if r := o.good(o.client.CheckIn); len(r.Document) == 0 {
					t.Error("there is no file")
				}
			})
		}
	}
}

// The account's answers about a licence become codes of the contract.
func TestRefusals(t *testing.T) {
	past := noon.Add(-time.Hour)
	for _, test := range []struct {
		name   string
		change func(*keygentest.License)
		want   enforcer.Code
	}{
		{"suspended", func(l *keygentest.License) { l.Attributes.Suspended = true }, enforcer.Suspended},
		{"banned", func(l *keygentest.License) { l.Banned = true }, enforcer.Banned},
		{"expired", func(l *keygentest.License) { l.Attributes.Expiry = &past }, enforcer.Expired},
		{"expired, access revoked", func(l *keygentest.License) {
			l.Attributes.Expiry = &past
			l.Policy.ExpirationStrategy = "REVOKE_ACCESS"
		}, enforcer.Expired},
		{"another product's", func(l *keygentest.License) { l.Product = "prod-2" }, enforcer.ProductMismatch},
		{"another key", func(l *keygentest.License) { l.Key = "KEY-2" }, enforcer.NotFound},
		{"too many cores", func(l *keygentest.License) {
			l.Attributes.MaxCores = new(int64(4))
		}, enforcer.TooManyCores},
		{"too much memory", func(l *keygentest.License) {
			l.Attributes.MaxMemory = new(int64(1 << 30))
		}, enforcer.TooMuchMemory},
		{"too much disk", func(l *keygentest.License) {
			l.Attributes.MaxDisk = new(int64(1 << 30))
		}, enforcer.TooMuchDisk},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := open(t, nil, keygen.Config{})
			if test.want != enforcer.TooManyCores && test.want != enforcer.TooMuchMemory &&
				test.want != enforcer.TooMuchDisk {
				o.good(o.client.Activate)
			}
			o.Change("lic-1", test.change)
			if e := o.bad(o.client.CheckIn); e.Class != plugin.Refused || e.Code != test.want {
				t.Errorf("got %v", e)
			}
		})
	}
	t.Run("no place left", func(t *testing.T) {
		o := open(t, nil, keygen.Config{})
		for _, host := range []string{"host-1", "host-2", "host-3"} {
			o.secrets.Fingerprint, o.state = host, nil
			if host != "host-3" {
				o.good(o.client.Activate)
				continue
			}
			if e := o.bad(o.client.Activate); e.Class != plugin.Refused || e.Code != enforcer.TooManyMachines ||
				e.SystemCode != "MACHINE_LIMIT_EXCEEDED" {
				t.Errorf("got %v", e)
			}
		}
	})
	t.Run("an expired licence that runs on", func(t *testing.T) {
		o := open(t, func(l *keygentest.License) {
			l.Attributes.Expiry, l.Policy.ExpirationStrategy = &past, "ALLOW_ACCESS"
		}, keygen.Config{})
		o.good(o.client.Activate)
	})
}

// A policy may demand more than the fingerprint; the agent sends what it knows of it.
func TestScopes(t *testing.T) {
	all := func(l *keygentest.License) {
		l.Versions, l.Policy = []string{"1.2"}, keygen.Policy{RequireProductScope: true, RequirePolicyScope: true,
			RequireMachineScope: true, RequireFingerprint: true, RequireComponentsScope: true,
			RequireVersionScope: true, ComponentMatching: "MATCH_ALL"}
	}
	o := open(t, all, keygen.Config{})
	r := o.request()
	r.Version = "1.2"
	if _, err := o.client.Activate(t.Context(), r); err != nil {
		t.Error(err)
	}
	if e := open(t, all, keygen.Config{}).badly(); e.Class != plugin.Misconfigured ||
		e.SystemCode != "VERSION_SCOPE_REQUIRED" {
		t.Errorf("without the version: %v", e)
	}
	if e := open(t, func(l *keygentest.License) {
		l.Policy.RequireUserScope = true
	}, keygen.Config{}).badly(); e.Class != plugin.Misconfigured || e.SystemCode != "USER_SCOPE_REQUIRED" {
		t.Errorf("where a user is demanded: %v", e)
	}
}

// The agent makes an overdue check-in and learns the date of the next.
func TestCheckIn(t *testing.T) {
	o := open(t, func(l *keygentest.License) {
		l.CheckInEvery, l.Attributes.RequireCheckIn = 7*24*time.Hour, true
	}, keygen.Config{})
	// Before the first check-in the server names no next one. The agent makes it at once.
	if r := o.good(o.client.Activate); !r.NextCheckIn.Equal(noon.Add(7 * 24 * time.Hour)) {
		t.Errorf("the first makes the next due at %v", r.NextCheckIn)
	}
	o.pass(8 * 24 * time.Hour)
	if r := o.good(o.client.CheckIn); !r.NextCheckIn.Equal(noon.Add(15 * 24 * time.Hour)) {
		t.Errorf("the next is at %v", r.NextCheckIn)
	}
}

// An answer that is not the account's changes nothing.
func TestOutages(t *testing.T) {
	o := open(t, nil, keygen.Config{})
	o.good(o.client.Activate)
	calls := map[string]method{"activate": o.client.Activate, "heartbeat": o.client.Heartbeat,
		"check-in": o.client.CheckIn, "deactivate": o.client.Deactivate}
	all := func(name string, want plugin.Class, after time.Duration) {
		t.Helper()
		for call, m := range calls {
			if e := o.bad(m); e.Class != want || e.RetryAfter != after {
				t.Errorf("%s, %s: %v, again after %v", name, call, e, e.RetryAfter)
			}
		}
	}
	fail := func(status int, h http.Header) {
		o.Fail(func(*http.Request) (int, http.Header) { return status, h })
	}
	fail(429, http.Header{"Retry-After": {"17"}})
	all("too many", plugin.Transient, 17*time.Second)
	fail(503, nil)
	all("away", plugin.Transient, 0)
	fail(403, nil)
	all("a gateway", plugin.Transient, 0)
	fail(302, http.Header{"Location": {"https://example.com"}})
	all("a redirect", plugin.Misconfigured, 0)
	o.Fail(nil)
	o.Tamper(func(h http.Header, b []byte) []byte { h.Del("Keygen-Signature"); return b })
	all("unsigned", plugin.Transient, 0)
	o.Tamper(func(h http.Header, b []byte) []byte {
		h.Set("Keygen-Signature", strings.Replace(h.Get("Keygen-Signature"), `signature="`,
			`signature="`+base64.StdEncoding.EncodeToString([]byte("abc")), 1))
		return b
	})
	all("badly signed", plugin.Transient, 0)
	o.Change("lic-1", func(l *keygentest.License) { l.Attributes.Suspended = true })
	o.Tamper(func(h http.Header, b []byte) []byte { return append(b, ' ') })
	all("changed", plugin.Transient, 0)
	o.Tamper(nil)
	o.Change("lic-1", func(l *keygentest.License) { l.Attributes.Suspended = false })
	o.good(o.client.CheckIn)
	if n := len(o.Machines()); n != 1 {
		t.Errorf("there are %d machines", n)
	}
}

func token(text string) func() (string, error) {
	return func() (string, error) { return text, nil }
}

// A token authenticates if the licence key may not.
func TestCredentials(t *testing.T) {
	byToken := func(l *keygentest.License) { l.KeyMayNotAuthenticate = true }
	if e := open(t, byToken, keygen.Config{}).badly(); e.Class != plugin.Misconfigured ||
		!strings.Contains(e.Hint, "token_file") {
		t.Errorf("with the key: %v", e)
	}
	o := open(t, byToken, keygen.Config{Token: token("activ-1-v3")})
	o.good(o.client.Activate)
	o.good(o.client.Heartbeat)
	if e := open(t, byToken, keygen.Config{Token: token("activ-9-v3")}).badly(); e.Class != plugin.Misconfigured {
		t.Errorf("with another token: %v", e)
	}
	// An unencrypted file contains the key.
	o = open(t, nil, keygen.Config{})
	o.secrets.Keys, o.doc = nil, o.LicenseFile("lic-1", "base64+ed25519", 30*24*time.Hour)
	if r := o.good(o.client.Activate); !strings.Contains(string(r.Document), "MACHINE FILE") {
		t.Errorf("got %q", r.Document)
	}
	if l, p := (keygen.Format{}).Verify(o.good(o.client.CheckIn).Document, o.anchors); p != nil || l.ID != "lic-1" {
		t.Errorf("the file: %+v", p)
	}
}

func (o *online) badly() *plugin.Error { return o.bad(o.client.Activate) }

func TestConfig(t *testing.T) {
	anchors, secrets := func() []plugin.Anchor { return nil }, func() plugin.Secrets { return plugin.Secrets{} }
	for _, cfg := range []keygen.Config{{Anchors: anchors, Secrets: secrets},
		{Account: "a/b", Anchors: anchors, Secrets: secrets},
		{Account: "a", URL: "ftp://x", Anchors: anchors, Secrets: secrets},
		{Account: "a", URL: "https://u:p@x", Anchors: anchors, Secrets: secrets}, {Account: "a"}} {
		if _, err := keygen.NewClient(cfg); err == nil {
			t.Errorf("accepted: %+v", cfg.Account)
		}
	}
}

func TestUpstreamConformance(t *testing.T) {
	o := open(t, func(l *keygentest.License) {
		l.Attributes.RequireHeartbeat, l.Attributes.MaxUses = true, new(int64(100))
	}, keygen.Config{})
	o.pass(time.Since(noon)) // the suite asks at the time that it is
	o.doc = o.LicenseFile("lic-1", "aes-256-gcm+ed25519", 30*24*time.Hour)
	o.Put(keygentest.License{ID: "lic-2", Key: "KEY-2", Product: "prod-1",
		Attributes: keygen.Attributes{Floating: true, Suspended: true}})
	o.secrets.Keys = []string{"KEY-1", "KEY-2"}
	other := o.LicenseFile("lic-2", "aes-256-gcm+ed25519", time.Hour)
	plugintest.Upstream(t, o.client, plugintest.UpstreamSamples{Request: o.request, Pool: keygen.PoolProcesses,
		Meter: keygen.MeterUses, Refused: func() *plugin.Request {
			r := o.request()
			r.LicenseID, r.Document = "lic-2", other
			return r
		}})
}

// A licence without a check-in is validated once a day, or before its file ends.
func TestEvery(t *testing.T) {
	o := open(t, nil, keygen.Config{})
	for life, want := range map[time.Duration]time.Duration{0: 24 * time.Hour, time.Hour: time.Hour,
		30 * 24 * time.Hour: 24 * time.Hour} {
		l := &enforcer.License{Issued: noon}
		if life > 0 {
			l.Expires = noon.Add(life)
		}
		if got := o.client.Every(l); got.Every != want {
			t.Errorf("a life of %v: %v", life, got)
		}
	}
}
