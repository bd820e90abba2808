package online

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
)

// Config is what a Client needs.
type Config struct {
	URL     string             // of the server, up to its /v1
	Key     ed25519.PrivateKey // the agent's
	Anchors func() []plugin.Anchor
	HTTP    *http.Client // with its proxies, CAs and client certificate; nil: http.DefaultClient's transport
	// Activated keeps the vendor's word for the agent's key; optional.
	Activated func(licence, activation string) // licence: see WordFor
	Now       func() time.Time                 // nil: time.Now
	// Enrolment returns the agent's enrolment tokens; optional. It is called for each call that may need one.
	Enrolment func() ([]string, error)
}

// Client is the agent's side of the protocol. It implements [plugin.Watcher].
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
	jkt  string

	mu       sync.Mutex
	attempts map[string]string // by licence: of an activation without a chain that is not answered yet
}

var _ plugin.Watcher = (*Client)(nil)

// NewClient checks the configuration. It makes no call.
func NewClient(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	switch {
	case err != nil || base.Host == "":
		return nil, fmt.Errorf("%q is not an address, such as https://licences.example.com", plugin.Conceal(cfg.URL))
	case base.Scheme != "https" && base.Scheme != "http":
		return nil, fmt.Errorf("%q begins with neither https:// nor http://", plugin.Conceal(cfg.URL))
	case base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("%q has more than a host and a path; the agent's key identifies the caller",
			plugin.Conceal(cfg.URL))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg, base: base, attempts: map[string]string{}}
	transport := http.RoundTripper(nil)
	if cfg.HTTP != nil {
		transport = cfg.HTTP.Transport
	}
	// A redirect comes from somebody other than the server.
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	c.jkt, err = plugin.Thumbprint(cfg.Key.Public())
	return c, err
}

// System returns "usher".
func (c *Client) System() string { return usher.System }

// Capabilities returns everything.
func (c *Client) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true, Deactivate: true, Budget: true}
}

// Activate makes this host known.
func (c *Client) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, CallActivate, r)
}

// Heartbeat is a sign of life.
func (c *Client) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, CallHeartbeat, r)
}

// CheckIn proves that the licence is still good.
func (c *Client) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, CallCheckIn, r)
}

// Deactivate gives the host's place back.
func (c *Client) Deactivate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.duty(ctx, CallDeactivate, r)
}

func (c *Client) duty(ctx context.Context, call string, r *plugin.Request) (*plugin.Reply, error) {
	reply, err := c.call(ctx, c.request(call, r), "")
	var e *plugin.Error
	if errors.As(err, &e) && e.SystemCode == SystemNotActivated && (call == CallHeartbeat || call == CallCheckIn) {
		// The server has forgotten this host, as a newly set up server has.
		again := *r
		again.Nonce = rehash(r.Nonce)
		reply, err = c.call(ctx, c.request(CallActivate, &again), "")
	}
	if err != nil {
		return nil, err
	}
	if reply.Activation != "" && c.cfg.Activated != nil && c.vouches(reply.Activation, r) {
		c.cfg.Activated(WordFor(r.LicenseID, c.isTest(r)), reply.Activation)
	}
	out := &plugin.Reply{Time: date(reply.Issued), NextHeartbeat: date(reply.NextHeartbeat),
		NextCheckIn: date(reply.NextCheckIn)}
	if reply.Document != "" {
		out.Document = []byte(reply.Document)
	}
	if reply.Chain != "" {
		out.State = []byte(reply.Chain)
	}
	return out, nil
}

// WordFor names a licence whose vendor's word is kept: by the id of a production licence. A test licence of that id is
// another one.
func WordFor(licenseID string, test bool) string {
	if test {
		return string((&enforcer.License{System: usher.System, ID: licenseID, Environment: enforcer.Test}).Ref())
	}
	return licenseID
}

// vouches reports whether an activation is the vendor's word for this agent's key and the licence, signed by a key that
// may say so now.
func (c *Client) vouches(activation string, r *plugin.Request) bool {
	payload, anchor, p := usher.Open(activation, ActivationType, c.cfg.Anchors())
	var a Activation
	if p != nil || json.Unmarshal(payload, &a, json.RejectUnknownMembers(false)) != nil {
		return false
	}
	return a.License == r.LicenseID && a.Cnf.Thumbprint == c.jkt &&
		anchor.Answers(c.isTest(r), date(a.Issued), c.cfg.Now()) == nil
}

// CheckOut takes a block of slots.
func (c *Client) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	q := c.request(CallCheckOut, &r.Request)
	q.Block = &BlockRequest{Pool: r.Pool, Slots: r.Slots, AtLeast: r.AtLeast, Seconds: int64(r.For / time.Second),
		Token: r.Token, Ahead: r.Ahead}
	return c.block(ctx, q, &r.Request)
}

// Extend extends a block's time from now.
func (c *Client) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	return c.extend(ctx, r, "")
}

// extend is Extend of a block that another server gave, whose chain moved is; empty: of this one's.
func (c *Client) extend(ctx context.Context, r *plugin.Extend, moved string) (*plugin.Block, error) {
	q := c.request(CallExtend, &r.Request)
	q.Block = &BlockRequest{ID: r.Block, Slots: r.Slots, Seconds: int64(r.For / time.Second), Ahead: r.Ahead,
		Moved: moved}
	return c.block(ctx, q, &r.Request)
}

// Return gives a block back.
func (c *Client) Return(ctx context.Context, r *plugin.Return) error { return c.giveBack(ctx, r, "") }

// giveBack is Return of a block that another server gave, whose chain moved is; empty: of this one's.
func (c *Client) giveBack(ctx context.Context, r *plugin.Return, moved string) error {
	q := c.request(CallReturn, &r.Request)
	q.Block = &BlockRequest{ID: r.Block, Moved: moved}
	_, err := c.call(ctx, q, c.siteServer(&r.Request))
	return err
}

// isTest reports whether a request is about a test licence, for which a test key may answer. It verifies the document
// once more, because it decides whose word counts.
func (c *Client) isTest(r *plugin.Request) bool {
	l, p := usher.Format{}.Verify(r.Document, c.cfg.Anchors())
	return p == nil && l.IsTest()
}

// siteServer returns the thumbprint of the key of the site server that a licence names; empty: none. It verifies the
// licence once more, because it decides whose word counts.
func (c *Client) siteServer(r *plugin.Request) string {
	if l, p := (usher.Format{}).Verify(r.Document, c.cfg.Anchors()); p == nil {
		return l.SiteServer
	}
	return ""
}

func (c *Client) block(ctx context.Context, q *Request, r *plugin.Request) (*plugin.Block, error) {
	reply, err := c.call(ctx, q, c.siteServer(r))
	var e *plugin.Error
	if errors.As(err, &e) && e.SystemCode == SystemNotActivated && q.Call == CallExtend {
		e.SystemCode = plugin.SystemLapsed // a server that does not know the host does not know its block
	}
	if err != nil {
		return nil, err
	}
	if reply.Block == nil {
		return nil, plugin.Transiently("the upstream's answer has no block of slots")
	}
	b := reply.Block
	return &plugin.Block{ID: b.ID, Pool: b.Pool, Slots: b.Slots, For: time.Duration(b.Seconds) * time.Second,
		State: []byte(reply.Chain), Wanted: max(0, b.Wanted), Elsewhere: b.Elsewhere.asPlugin()}, nil
}

func (c *Client) request(call string, r *plugin.Request) *Request {
	out := &Request{test: c.isTest(r), Call: call, Issued: c.cfg.Now().Unix(),
		Nonce: base64.RawURLEncoding.EncodeToString(r.Nonce), License: r.LicenseID,
		Product: r.Product, Version: r.Version, Chain: string(r.State), Components: r.Components,
		Cores: &Cores{r.Cores.Physical, r.Cores.Logical, r.Cores.Effective}}
	if call == CallActivate || call == CallCheckOut {
		out.Document = string(r.Document)
	}
	if call == CallActivate && out.Chain == "" {
		out.Attempt = c.attempt(r.LicenseID)
	}
	if l := usher.Describe(r.Document); l != nil {
		out.Dated = usher.DateOf(l.Issued)
	}
	for _, u := range r.Usage {
		out.Usage = append(out.Usage, Usage(u))
	}
	for _, e := range r.Emergencies {
		out.Emergencies = append(out.Emergencies, Emergency{usher.DateOf(e.Began), usher.DateOf(e.Ends), e.Reason})
	}
	return out
}

// attempt returns the name of the pending activation of a licence.
func (c *Client) attempt(license string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attempts[license] == "" {
		c.attempts[license] = rand.Text()
	}
	return c.attempts[license]
}

// rehash makes a nonce from a nonce. Nobody who saw that one could foresee the new one, which is used once.
func rehash(nonce []byte) []byte {
	sum := sha256.Sum256(append([]byte("activate"), nonce...))
	return sum[:]
}

// call makes a call, with the proofs that admit an unknown key. Where the request's own date was too old, it asks once
// more, with the time that the server has signed.
func (c *Client) call(ctx context.Context, q *Request, siteServer string) (*Reply, error) {
	var tokens []string
	var unread error
	if q.Document != "" && c.cfg.Enrolment != nil {
		tokens, unread = c.cfg.Enrolment()
	}
	enrol(q, c.jkt, tokens)
	reply, err := c.post(ctx, q, siteServer)
	var old *staleError
	if errors.As(err, &old) {
		q.Issued, q.Nonce = old.now, base64.RawURLEncoding.EncodeToString(rehash([]byte("stale"+q.Nonce)))
		enrol(q, c.jkt, tokens)
		reply, err = c.post(ctx, q, siteServer)
	}
	var e *plugin.Error
	if unread != nil && errors.As(err, &e) && (e.SystemCode == SystemEnrolment || e.SystemCode == SystemDocument) {
		e.Hint = unread.Error()
	}
	return reply, err
}

// staleError is the server's word that a request is too old, and the server's time.
type staleError struct {
	fault *plugin.Error
	now   int64
}

func (e *staleError) Error() string { return e.fault.Error() }
func (e *staleError) Unwrap() error { return e.fault }

// post posts a request and verifies the answer: by the vendor's keys, or by the site server's where there is one.
func (c *Client) post(ctx context.Context, q *Request, siteServer string) (*Reply, error) {
	body, err := signRequest(c.cfg.Key, q)
	if err != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "the request cannot be signed: " + err.Error()}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath("v1", q.Call).String(),
		strings.NewReader(body))
	if err != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error()}
	}
	req.Header.Set("Content-Type", "application/jose")
	res, err := c.http.Do(req)
	if err != nil {
		return nil, plugin.Unreached(ctx, c.base.Host, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, MaxMessage+1))
	switch {
	case err != nil:
		return nil, plugin.Transiently("%s: its answer broke off: %v", c.base.Host, err)
	case len(b) > MaxMessage:
		return nil, plugin.Transiently("%s: its answer is larger than %d bytes", c.base.Host, MaxMessage)
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusForbidden:
		return nil, c.status(q, res)
	}
	return c.open(q, strings.TrimSpace(string(b)), siteServer, res)
}

// open verifies a reply: by the key of the vendor or of the site server, for this request and nobody else's.
func (c *Client) open(q *Request, token, siteServer string, res *http.Response) (*Reply, error) {
	r := &Reply{}
	if siteServer != "" {
		if thumb, err := openAs(token, ReplyType, "answer", r); err == nil && thumb == siteServer {
			return c.accept(q, r, true, res)
		}
		r = &Reply{}
	}
	payload, anchor, p := usher.Open(token, ReplyType, c.cfg.Anchors())
	if p != nil {
		e := plugin.Transiently("%s: its answer is not the vendor's: %s", c.base.Host, p.Reason)
		e.Hint = "does a proxy stand between, or does the server sign with a key that is not under license.trust?"
		if res.StatusCode == http.StatusForbidden { // a gateway's, not the server's
			e = c.status(q, res)
		}
		if isBlock(q.Call) {
			e.Hint = "does a proxy stand between, or is it a site server that the licence does not name " +
				"(site_server)?"
		}
		return nil, e
	}
	if err := json.Unmarshal(payload, r, json.RejectUnknownMembers(false)); err != nil {
		return nil, plugin.Transiently("%s: its answer cannot be read", c.base.Host)
	}
	if err := anchor.Answers(q.test, date(r.Issued), c.cfg.Now()); err != nil {
		e := plugin.Transiently("%s: its answer is not believed: %v", c.base.Host, err)
		e.Hint = "have the server sign with a key that is good now, and add that under license.trust; see to this " +
			"host's clock"
		return nil, e
	}
	return c.accept(q, r, false, res)
}

func isBlock(call string) bool {
	return call == CallCheckOut || call == CallExtend || call == CallReturn || call == CallWatch ||
		call == CallDraw
}

// accept takes a verified reply if it is for the request. It takes nothing about the licence itself from a site server.
func (c *Client) accept(q *Request, r *Reply, site bool, res *http.Response) (*Reply, error) {
	if r.Nonce != q.Nonce || r.Call != q.Call || r.License != q.License || r.AgentKey != c.jkt {
		return nil, plugin.Transiently("%s: its answer is for another request: it is an old one, or another agent's",
			c.base.Host)
	}
	if q.Attempt != "" {
		c.mu.Lock()
		delete(c.attempts, q.License)
		c.mu.Unlock()
	}
	if r.Refused != nil {
		if site {
			r.Refused.Code = ""
		}
		e := r.Refused.asError()
		e.RetryAfter = plugin.RetryAfter(res.Header, time.Now())
		if r.Refused.Leaves {
			return nil, &leavesError{e}
		}
		if r.Refused.System == SystemOrder {
			return nil, &orderError{e, r.Refused.Last}
		}
		if r.Refused.System == SystemStale {
			return nil, &staleError{e, r.Issued}
		}
		return nil, e
	}
	return r, nil
}

// status says what an answer outside the protocol means.
func (c *Client) status(q *Request, res *http.Response) *plugin.Error {
	e := plugin.Transiently("%s answered %s", c.base.Host, res.Status)
	e.RetryAfter = plugin.RetryAfter(res.Header, time.Now())
	switch {
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode >= 500,
		res.StatusCode == http.StatusRequestTimeout:
	case q.Call == CallDraw && (res.StatusCode == http.StatusBadRequest || res.StatusCode == http.StatusNotFound):
		return c.noDraws()
	case res.StatusCode >= 300 && res.StatusCode < 400:
		e.Class, e.Hint = plugin.Misconfigured, "it leads elsewhere; give upstream.url as the server's own address"
	default:
		e.Class, e.Hint = plugin.Misconfigured, "is upstream.url the address of an upstream server?"
	}
	return e
}
