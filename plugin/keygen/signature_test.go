package keygen_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
)

// Signed answers that Keygen published: good ones, and one with an edited body.
func TestResponseSignatures(t *testing.T) {
	for _, name := range []string{"response-me-2022", "response-validate-key-2023", "response-digest-mismatch"} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile("testdata/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var v struct {
				PublicKey                         struct{ Hex string }
				Method, Host, RequestTarget, Body string
				Headers                           map[string]string
				Expect                            struct{ Digest string }
			}
			if err := json.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			target, err := url.Parse("https://" + v.Host + v.RequestTarget)
			if err != nil {
				t.Fatal(err)
			}
			anchors := []plugin.Anchor{anchor(t, "account", v.PublicKey.Hex, "")}
			header := func() http.Header {
				h := http.Header{}
				for k, s := range v.Headers {
					h.Set(k, s)
				}
				return h
			}
			at, err := keygen.VerifyResponse(v.Method, target, header(), []byte(v.Body), anchors)
			if good := v.Expect.Digest == "match"; (err == nil) != good ||
				good && at.Format(http.TimeFormat) != v.Headers["Date"] {
				t.Fatalf("got %v, %v", at, err)
			}
			if v.Expect.Digest != "match" {
				return
			}
			// The signature covers everything but the port.
			port := *target
			port.Host += ":8443"
			if _, err := keygen.VerifyResponse(v.Method, &port, header(), []byte(v.Body), anchors); err != nil {
				t.Errorf("with a port: %v", err)
			}
			for what, change := range map[string]func(u *url.URL, h http.Header, body []byte){
				"path":  func(u *url.URL, _ http.Header, _ []byte) { u.Path += "x" },
				"query": func(u *url.URL, _ http.Header, _ []byte) { u.RawQuery = "a=b" },
				"host":  func(u *url.URL, _ http.Header, _ []byte) { u.Host = "example.com" },
				"date": func(_ *url.URL, h http.Header, _ []byte) {
					h.Set("Date", "Wed, 15 Jun 2022 18:52:15 GMT")
				},
				"body":      func(_ *url.URL, _ http.Header, b []byte) { b[len(b)/2] ^= 1 },
				"digest":    func(_ *url.URL, h http.Header, _ []byte) { h.Del("Digest") },
				"signature": func(_ *url.URL, h http.Header, _ []byte) { h.Del("Keygen-Signature") },
				"algorithm": func(_ *url.URL, h http.Header, _ []byte) {
					h.Set("Keygen-Signature", strings.Replace(h.Get("Keygen-Signature"), "ed25519", "rsa-sha256", 1))
				},
			} {
				u, h, body := *target, header(), []byte(v.Body)
				change(&u, h, body)
				if _, err := keygen.VerifyResponse(v.Method, &u, h, body, anchors); err == nil {
					t.Errorf("with another %s, or none, it verifies", what)
				}
			}
		})
	}
}

// An old answer is refused.
func TestReplay(t *testing.T) {
	o := open(t, nil, keygen.Config{})
	o.good(o.client.Activate)
	type answer struct {
		header http.Header
		body   []byte
	}
	old := map[int]answer{}
	n := 0
	o.Tamper(func(h http.Header, b []byte) []byte {
		old[n] = answer{h.Clone(), slices.Clone(b)}
		n++
		return b
	})
	o.good(o.client.Heartbeat)
	o.good(o.client.CheckIn)
	o.pass(time.Hour)
	n = 0
	o.Tamper(func(h http.Header, b []byte) []byte {
		a := old[n]
		n = (n + 1) % len(old)
		clear(h)
		for k, v := range a.header {
			h[k] = v
		}
		return a.body
	})
	for name, call := range map[string]method{"heartbeat": o.client.Heartbeat, "check-in": o.client.CheckIn} {
		if e := o.bad(call); e.Class != plugin.Transient {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// A host whose clock is an hour off can still tell an old answer from a new one, after a restart too, and learns the
// time.
func TestClockOff(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		o := open(t, nil, keygen.Config{})
		o.offset.Store(int64(off))
		o.good(o.client.Heartbeat)
		if r := o.good(o.client.Activate); !r.Time.Equal(noon) {
			t.Errorf("%v off: it learns %v", off, r.Time)
		}
		o.good(o.client.CheckIn)
	}
}

// A test key, and a key past its end, may not sign answers about a production licence. A test key may sign those about
// a test licence.
func TestKeysThatMayNotAnswer(t *testing.T) {
	for _, test := range []struct {
		name   string
		anchor func(*plugin.Anchor)
		test   bool
		good   bool
	}{
		{"a production key", func(*plugin.Anchor) {}, false, true},
		{"a test key", func(a *plugin.Anchor) { a.Environment = enforcer.Test }, false, false},
		{"a test key, of a test licence", func(a *plugin.Anchor) { a.Environment = enforcer.Test }, true, true},
		{"a key past its end", func(a *plugin.Anchor) { a.NotAfter = noon.AddDate(-1, 0, 0) }, false, false},
		{"a revoked key", func(a *plugin.Anchor) { a.Revoked = true }, false, false},
	} {
		o := open(t, nil, keygen.Config{})
		answers := o.anchors[0]
		test.anchor(&answers)
		o.anchors = []plugin.Anchor{answers}
		if !test.test { // another key, which is for production, has signed the document
			vendor := newAccount(t)
			o.doc = vendor.file("LICENSE", licence(object{"key": "KEY-1"}, nil))
			o.anchors = append(vendor.anchors, answers)
		}
		r := o.request()
		_, err := o.client.CheckIn(t.Context(), r)
		var e *plugin.Error
		if (err == nil) != test.good || err != nil && errors.As(err, &e) && e.Class == plugin.Refused {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
