package keygen

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// CloudURL is where Keygen's own service is.
const CloudURL = "https://api.keygen.sh"

// apiVersion is the version of the API that answers are asked in.
const apiVersion = "1.8"

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 2 << 20

// Config is what a Client needs.
type Config struct {
	Account     string // its id or slug
	URL         string // of a server of one's own; empty: CloudURL
	Environment string // code or id; empty: none
	Token       string // a licence's or another token; empty: the licence key speaks for the licence
	Anchors     func() []plugin.Anchor
	Secrets     func() plugin.Secrets
	HTTP        http.RoundTripper // with its proxies and CAs; nil: the default
	Now         func() time.Time  // the licence time; nil: time.Now
}

// Client is the agent's side of Keygen's API. It implements [plugin.VoluntaryChecker], [plugin.Budgeter] for processes,
// and [plugin.Drawer] for uses.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	// ahead is how far the server's clock is ahead of Now, as an answer with our nonce has proved: so a host whose
	// clock is wrong can tell an old answer from a new one. Losing it costs one call.
	ahead atomic.Int64
}

var (
	_ plugin.VoluntaryChecker = (*Client)(nil)
	_ plugin.Budgeter         = (*Client)(nil)
	_ plugin.Drawer           = (*Client)(nil)
)

// NewClient checks the configuration. It calls nobody.
func NewClient(cfg Config) (*Client, error) {
	base, err := url.Parse(cmp.Or(cfg.URL, CloudURL))
	switch {
	case cfg.Account == "" || strings.ContainsAny(cfg.Account, "/?#% "):
		return nil, fmt.Errorf("account %q: give the account's id or slug", plugin.Short(cfg.Account))
	case err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || base.User != nil ||
		base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("%q is not an address, such as %s", plugin.Short(cfg.URL), CloudURL)
	case cfg.Anchors == nil || cfg.Secrets == nil:
		return nil, errors.New("anchors and secrets are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	// A redirect is an answer of somebody who is not the server.
	return &Client{cfg: cfg, base: base.JoinPath("v1", "accounts", cfg.Account), http: &http.Client{Transport: cfg.HTTP,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// System returns "keygen".
func (c *Client) System() string { return System }

// Capabilities returns everything.
func (c *Client) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true, Deactivate: true, Budget: true}
}

// Every returns how often the licence is validated and its file renewed where it states no check-in of its own: once a
// day, or as often as its file lasts.
func (c *Client) Every(l *enforcer.License) enforcer.Period {
	const day = 24 * time.Hour
	p := enforcer.Period{Every: day}
	if !l.Expires.IsZero() && l.Expires.After(l.Issued) {
		p.Every = max(time.Minute, min(day, l.Expires.Sub(l.Issued)))
	}
	return p
}

// answer is one of the API's.
type answer struct {
	status int
	signed bool
	retry  time.Duration
	Data   jsontext.Value `json:"data"`
	Meta   struct {
		TS     *time.Time `json:"ts"`
		Valid  bool       `json:"valid"`
		Detail string     `json:"detail"`
		Code   Code       `json:"code"`
		Nonce  int64      `json:"nonce"`
	} `json:"meta"`
	Errors []struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
	} `json:"errors"`
}

// code returns the code of the first error; empty: it has none.
func (a *answer) code() string {
	if len(a.Errors) == 0 {
		return ""
	}
	return a.Errors[0].Code
}

// resource reads the resource that an answer is about.
func (a *answer) resource(attributes any) (*resource, error) {
	r := &resource{}
	if err := json.Unmarshal(a.Data, r); err != nil {
		return nil, err
	}
	return r, r.attributes(attributes)
}

// call is one request. nonce is set where the answer must repeat it, which proves that it is none of old.
type call struct {
	method, path string
	body         any
	auth         string // the Authorization header; empty: nobody in particular asks
	nonce        int64
	test         bool // it is about a test licence
}

// stale is the code of an answer that is too old, or of a host whose clock is wrong.
const stale = "STALE"

// send makes a request and checks the answer's signature and age. An error says that there is no answer to rely on.
func (c *Client) send(ctx context.Context, q call) (*answer, *plugin.Error) {
	a, at, e := c.once(ctx, q)
	if e != nil || !a.signed {
		return a, e
	}
	if q.nonce != 0 {
		if a.status == http.StatusOK && a.Meta.Nonce != q.nonce {
			return nil, plugin.Transiently("%s: its answer is for another request: it is an old one", c.base.Host)
		}
		if a.status == http.StatusOK {
			c.ahead.Store(int64(at.Sub(c.cfg.Now())))
			return a, nil
		}
	}
	if age := c.cfg.Now().Add(time.Duration(c.ahead.Load())).Sub(at).Abs(); age > maxAge {
		e := plugin.Transiently("%s: its answer is of %s, %s from now: it is an old one, or a clock is wrong",
			c.base.Host, at.UTC().Format(time.RFC3339), age.Round(time.Second))
		e.SystemCode, e.Hint = stale, "see to this host's clock"
		return nil, e
	}
	return a, nil
}

// once makes a request and checks the signature of what comes back.
func (c *Client) once(ctx context.Context, q call) (*answer, time.Time, *plugin.Error) {
	none := time.Time{}
	target, err := url.Parse(c.base.String() + "/" + q.path)
	if err != nil {
		return nil, none, &plugin.Error{Class: plugin.Misconfigured,
			Reason: "the request has no address that can be: " + q.path}
	}
	var body io.Reader
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return nil, none, plugin.Transiently("the request cannot be written: %v", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target.String(), body)
	if err != nil {
		return nil, none, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error()}
	}
	req.Header.Set("Accept", "application/vnd.api+json")
	req.Header.Set("Keygen-Version", apiVersion)
	req.Header.Set("Keygen-Accept-Signature", fmt.Sprintf("algorithm=%q", c.signedWith()))
	if body != nil {
		req.Header.Set("Content-Type", "application/vnd.api+json")
	}
	if c.cfg.Environment != "" {
		req.Header.Set("Keygen-Environment", c.cfg.Environment)
	}
	if q.auth != "" {
		req.Header.Set("Authorization", q.auth)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, none, plugin.Unreached(ctx, c.base.Host, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, none, plugin.Transiently("%s: its answer broke off", c.base.Host)
	case len(b) > maxAnswer:
		return nil, none, plugin.Transiently("%s: its answer is larger than %d bytes", c.base.Host, maxAnswer)
	}
	a := &answer{status: res.StatusCode, retry: plugin.RetryAfter(res.Header, c.cfg.Now())}
	if s := res.StatusCode; s == http.StatusTooManyRequests || s >= 500 || s == http.StatusRequestTimeout {
		e := plugin.Transiently("%s answered %s", c.base.Host, res.Status)
		e.RetryAfter = a.retry
		return nil, none, e
	}
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		return nil, none, &plugin.Error{Class: plugin.Misconfigured,
			Reason: fmt.Sprintf("%s answered %s, which leads elsewhere", c.base.Host, res.Status),
			Hint:   "give upstream.keygen.url as the server's own address"}
	}
	now := c.cfg.Now()
	answering := slices.DeleteFunc(slices.Clone(c.cfg.Anchors()), func(a plugin.Anchor) bool {
		return a.Answers(q.test, now, now) != nil
	})
	at, err := VerifyResponse(q.method, target, res.Header, b, answering)
	if err != nil {
		e := plugin.Transiently("%s answered %s, and %v", c.base.Host, res.Status, err)
		e.Hint = "is upstream.keygen.account right, is the account's key under license.trust, good now and none for " +
			"tests, and does nothing stand between?"
		return nil, none, e
	}
	a.signed = true
	if len(b) > 0 {
		if err := json.Unmarshal(b, a); err != nil {
			return nil, none,
				plugin.Transiently("%s: its answer cannot be read: %v", c.base.Host, plugin.JSONFault(err, "member"))
		}
	}
	return a, at, nil
}

// signedWith returns the algorithm that answers are asked to be signed with: one that there is a key for.
func (c *Client) signedWith() string {
	has := func(alg string) bool {
		return slices.ContainsFunc(c.cfg.Anchors(), func(a plugin.Anchor) bool {
			return a.System == System && !a.Revoked && a.Algorithm == alg
		})
	}
	for _, alg := range Algorithms() {
		if has(alg) {
			return alg
		}
	}
	return algEd25519
}

// fault turns an answer that is no yes into an error of the contract.
func (c *Client) fault(a *answer) *plugin.Error {
	code := a.code()
	e := &plugin.Error{SystemCode: code, RetryAfter: a.retry}
	detail := http.StatusText(a.status)
	if len(a.Errors) > 0 {
		detail = strings.TrimSpace(a.Errors[0].Title + ": " + a.Errors[0].Detail)
	}
	e.Reason = fmt.Sprintf("Keygen answered %d: %s", a.status, detail)
	refused := func(r enforcer.Code, hint string) *plugin.Error {
		e.Class, e.Code, e.Hint = plugin.Refused, r, hint
		return e
	}
	switch code {
	case "LICENSE_SUSPENDED":
		return refused(enforcer.Suspended, "ask the vendor")
	case "LICENSE_BANNED", "USER_BANNED":
		return refused(enforcer.Banned, "ask the vendor")
	case "LICENSE_EXPIRED":
		return refused(enforcer.Expired, "renew the licence")
	case "LICENSE_INVALID", "LICENSE_NOT_FOUND":
		return refused(enforcer.NotFound, "the account knows no such licence; was it deleted?")
	case "MACHINE_LIMIT_EXCEEDED", "ACTIVATIONS_LIMIT_EXCEEDED", "GROUP_MACHINE_LIMIT_EXCEEDED":
		return refused(enforcer.FingerprintMismatch,
			"the licence has as many machines as it may have; deactivate one, or have it extended")
	case "FINGERPRINT_TAKEN", "FINGERPRINT_CONFLICT", "FINGERPRINT_NOT_ALLOWED", "COMPONENTS_FINGERPRINT_TAKEN",
		"COMPONENTS_FINGERPRINT_CONFLICT":
		return refused(enforcer.FingerprintMismatch,
			"another machine of the account has this host's fingerprint; see host.fingerprint")
	case "MACHINE_CORE_LIMIT_EXCEEDED":
		return refused(enforcer.TooManyCores,
			"the licence's machines have as many cores as they may have; have it extended")
	case "MACHINE_MEMORY_LIMIT_EXCEEDED":
		return refused(enforcer.TooMuchMemory,
			"the licence's machines have as much memory as they may have; have it extended")
	case "MACHINE_DISK_LIMIT_EXCEEDED":
		return refused(enforcer.TooMuchDisk,
			"the licence's machines have as much disk as they may have; have it extended")
	case "MACHINE_HEARTBEAT_DEAD":
		return refused(enforcer.HeartbeatDead, "")
	case "LICENSE_NOT_ALLOWED":
		e.Hint = "the licence's policy lets no licence key speak for it (authenticationStrategy): have that changed, " +
			"or give upstream.keygen.token_file"
	case "TOKEN_INVALID", "TOKEN_MISSING", "TOKEN_FORMAT_INVALID", "TOKEN_EXPIRED", "TOKEN_NOT_ALLOWED":
		e.Hint = "see to upstream.keygen.token_file"
	}
	switch {
	case a.status == http.StatusConflict, a.status == http.StatusPaymentRequired:
		e.Class = plugin.Transient
	default:
		e.Class, e.RetryAfter = plugin.Misconfigured, 0
	}
	return e
}
