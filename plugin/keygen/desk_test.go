package keygen_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// newDesk returns a desk where every licence's upstream answers well.
func newDesk(licences ...*enforcer.License) *plugintest.Desk {
	d := plugintest.NewDesk(keygen.System, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	d.Facts = func(f *enforcer.Facts) {
		f.Upstream = map[enforcer.Ref]enforcer.Upstream{}
		for _, doc := range f.Documents {
			f.Upstream[doc.License.Ref()] = enforcer.Upstream{Activated: d.Now(), LastHeartbeat: d.Now(),
				LastCheckIn: d.Now()}
		}
	}
	d.Judge(licences...)
	return d
}

// vouch sets the caller that the kernel identifies; nil: none.
func vouch(d *plugintest.Desk, does bool) {
	if d.Sender = nil; does {
		d.Sender = &enforcer.Caller{UID: 1000}
	}
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
	desk    *plugintest.Desk
	handler http.Handler
	auth    string // of Authorization; empty: none
}

func newClient(t testing.TB, d *plugintest.Desk) *client {
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
func (c *client) one(status int, method, target, body string, header ...string) item {
	c.t.Helper()
	r := c.send(method, target, body, header...)
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
	if r.status != status || len(r.doc.Errors) != 1 || r.doc.Errors[0].Code != code || r.doc.Errors[0].Title == "" ||
		r.doc.Errors[0].Detail == "" {
		c.t.Errorf("%s %s %s: %d %s, and it must be refused with %d %s", method, target, body, r.status, r.body, status,
			code)
	}
}
