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

// CloudURL is the address of Keygen's own service.
const CloudURL = "https://api.keygen.sh"

// apiVersion is the version of the API that requests ask for.
const apiVersion = "1.8"

// maxAnswer is the size of the largest answer, in bytes.
const maxAnswer = 2 << 20

// Config is what a Client needs.
type Config struct {
	Account     string // its id or slug
	URL         string // of a self-hosted server; empty: CloudURL
	Environment string // code or id; empty: none
	// Token returns a licence's or another token for the next requests. Without one, or with nil, they authenticate
	// with the licence key.
	Token   func() (string, error)
	Anchors func() []plugin.Anchor
	Secrets func() plugin.Secrets
	HTTP    http.RoundTripper // with its proxies and CAs; nil: the default
	Now     func() time.Time  // licence time; nil: time.Now
}

// Client is the agent's side of Keygen's API. It implements [plugin.VoluntaryChecker], [plugin.Budgeter] for processes,
// and [plugin.Drawer] for uses.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	// ahead is how far the server's clock is ahead of Now, as proved by an answer with our nonce. With it, a host whose
	// clock is wrong can still tell an old answer from a new one. Losing it costs one call.
	ahead atomic.Int64
}

var (
	_ plugin.VoluntaryChecker = (*Client)(nil)
	_ plugin.Budgeter         = (*Client)(nil)
	_ plugin.Drawer           = (*Client)(nil)
)

// NewClient checks the configuration. It makes no call.
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
	if cfg.Token == nil {
		cfg.Token = func() (string, error) { return "", nil }
	}
	// A redirect could come from somebody other than the server.
	return &Client{cfg: cfg, base: base.JoinPath("v1", "accounts", cfg.Account), http: &http.Client{Transport: cfg.HTTP,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// System returns "keygen".
func (c *Client) System() string { return System }

// Capabilities returns everything.
func (c *Client) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true, Deactivate: true, Budget: true}
}

// Every returns how often the licence is validated and its file renewed if it states no check-in of its own: once a
// day, or earlier if its file lasts for less.
func (c *Client) Every(l *enforcer.License) enforcer.Period {
	const day = 24 * time.Hour
	p := enforcer.Period{Every: day}
	if !l.Expires.IsZero() && l.Expires.After(l.Issued) {
		p.Every = max(time.Minute, min(day, l.Expires.Sub(l.Issued)))
	}
	return p
}

// answer is an answer of the API.
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

// resource reads the resource in an answer.
func (a *answer) resource(attributes any) (*resource, error) {
	r := &resource{}
	if err := json.Unmarshal(a.Data, r); err != nil {
		return nil, err
	}
	return r, r.attributes(attributes)
}

// call is one request. An answer that repeats its nonce is proved to be fresh.
type call struct {
	method, path string
	body         any
	auth         string // the Authorization header; empty: none
	nonce        int64
	test         bool // it is about a test licence
}

// stale is the code of an answer that is too old, or of a host whose clock is wrong.
const stale = "STALE"

// send makes a request and checks the answer's signature and age. An error means that there is no answer to rely on.
func (c *Client) send(ctx context.Context, q call) (*answer, *plugin.Error) {
	a, at, e := c.once(ctx, q)
	if e != nil || !a.signed {
		return a, e
	}
	if q.nonce != 0 {
		if a.status == http.StatusOK && a.Meta.Nonce != q.nonce {
			return nil, plugin.Transiently("%s: its answer belongs to another request, an earlier one", c.base.Host)
		}
		if a.status == http.StatusOK {
			c.ahead.Store(int64(at.Sub(c.cfg.Now())))
			return a, nil
		}
	}
	if age := c.cfg.Now().Add(time.Duration(c.ahead.Load())).Sub(at).Abs(); age > maxAge {
		e := plugin.Transiently("%s: its answer is dated %s, %s from now: it is old, or a clock is wrong",
			c.base.Host, at.UTC().Format(time.RFC3339), enforcer.Span(age.Round(time.Second)))
		e.SystemCode, e.Hint = stale, "check this host's clock"
		return nil, e
	}
	return a, nil
}

// once makes a request and checks the answer's signature.
func (c *Client) once(ctx context.Context, q call) (*answer, time.Time, *plugin.Error) {
	none := time.Time{}
	target, err := url.Parse(c.base.String() + "/" + q.path)
	if err != nil {
		return nil, none, &plugin.Error{Class: plugin.Misconfigured,
			Reason: "the request's address cannot be parsed: " + q.path}
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
			Reason: fmt.Sprintf("%s answered %s, a redirect", c.base.Host, res.Status),
			Hint:   "give upstream.keygen.url as the server's own address"}
	}
	now := c.cfg.Now()
	answering := slices.DeleteFunc(slices.Clone(c.cfg.Anchors()), func(a plugin.Anchor) bool {
		return a.Answers(q.test, now, now) != nil
	})
	at, err := VerifyResponse(q.method, target, res.Header, b, answering)
	if err != nil {
		e := plugin.Transiently("%s answered %s, and %v", c.base.Host, res.Status, err)
		e.Hint = "check that upstream.keygen.account is right, that license.trust has the account's key, that the " +
			"key is " +
			"valid now and not for tests, and that no proxy changes answers"
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

// signedWith returns the algorithm that answers shall be signed with: one that an anchor in trust has.
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

// fault turns a refusing answer into an error of the contract.
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
		return refused(enforcer.NotFound, "the account has no such licence; check whether it was deleted")
	case "MACHINE_LIMIT_EXCEEDED", "ACTIVATIONS_LIMIT_EXCEEDED", "GROUP_MACHINE_LIMIT_EXCEEDED":
		return refused(enforcer.TooManyMachines,
			"the licence has reached its limit of machines; deactivate one, or have it extended")
	case "FINGERPRINT_TAKEN", "FINGERPRINT_CONFLICT", "FINGERPRINT_NOT_ALLOWED", "COMPONENTS_FINGERPRINT_TAKEN",
		"COMPONENTS_FINGERPRINT_CONFLICT":
		return refused(enforcer.FingerprintMismatch,
			"another machine of the account has this host's fingerprint; see host.fingerprint")
	case "MACHINE_CORE_LIMIT_EXCEEDED":
		return refused(enforcer.TooManyCores,
			"the licence's machines have reached its limit of cores; have it extended")
	case "MACHINE_MEMORY_LIMIT_EXCEEDED":
		return refused(enforcer.TooMuchMemory,
			"the licence's machines have reached its limit of memory; have it extended")
	case "MACHINE_DISK_LIMIT_EXCEEDED":
		return refused(enforcer.TooMuchDisk,
			"the licence's machines have reached its limit of disk; have it extended")
	case "MACHINE_HEARTBEAT_DEAD":
		return refused(enforcer.HeartbeatDead, "")
	case "LICENSE_NOT_ALLOWED":
		e.Hint = "the licence's policy accepts no licence key as authentication (authenticationStrategy): have that " +
			"changed, " +
			"or give upstream.keygen.token_file"
	case "TOKEN_INVALID", "TOKEN_MISSING", "TOKEN_FORMAT_INVALID", "TOKEN_EXPIRED", "TOKEN_NOT_ALLOWED":
		e.Hint = "check upstream.keygen.token_file"
	}
	switch {
	case a.status == http.StatusConflict, a.status == http.StatusPaymentRequired:
		e.Class = plugin.Transient
	default:
		e.Class, e.RetryAfter = plugin.Misconfigured, 0
	}
	return e
}
