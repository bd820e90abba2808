package elastic

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Client reads the licence of a platform: an ECE or an Elasticsearch. It tells the platform nothing but a credential.
// What comes back is not signed, but for the licence itself; so no answer makes a licence worse, and only one that
// verifies renews it.
type Client struct {
	base    *url.URL
	kind    string
	region  string // of an ECE; empty: its API without regions
	user    string // empty: the secret is an API key
	secret  func() (string, error)
	http    *http.Client
	now     func() time.Time
	anchors func() []plugin.Anchor
}

var (
	_ plugin.Replacer  = (*Client)(nil)
	_ plugin.Refetcher = platform{}
)

// platform is the Client of an ECE, which gives its licence's document. Elasticsearch shows its own without the
// signature.
type platform struct{ *Client }

func client(transport http.RoundTripper) *http.Client {
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if transport != nil {
		c.Transport = transport
	}
	return c
}

// System returns "elastic".
func (c *Client) System() string { return System }

// Capabilities returns that it is checked in with.
func (c *Client) Capabilities() plugin.Capabilities { return plugin.Capabilities{CheckIn: true} }

// Every returns how often a licence is looked for: once a day.
func (c *Client) Every(*enforcer.License) enforcer.Period {
	return enforcer.Period{Every: 24 * time.Hour}
}

// Replaces reports whether a licence that the platform has takes the place of another that it had: the later issued
// does, and has an id of its own.
func (c *Client) Replaces(of, is *enforcer.License) bool {
	return of.Terms["kind"] == c.kind && is.Terms["kind"] == c.kind && is.Issued.After(of.Issued)
}

// Refetches reports whether the platform may have another licence than this one when it ends: it may.
func (p platform) Refetches(l *enforcer.License) bool { return l.Terms["kind"] == KindOrchestration }

// Activate is never called.
func (c *Client) Activate(context.Context, *plugin.Request) (*plugin.Reply, error) { return cannot() }

// Heartbeat is never called.
func (c *Client) Heartbeat(context.Context, *plugin.Request) (*plugin.Reply, error) { return cannot() }

// Deactivate is never called.
func (c *Client) Deactivate(context.Context, *plugin.Request) (*plugin.Reply, error) { return cannot() }

func cannot() (*plugin.Reply, error) {
	return nil, misconfigured("", "a platform of Elastic's only tells which licence it has")
}

// CheckIn looks whether the platform still has the licence, and brings the one that it has in its place.
func (c *Client) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	held, err := parse(r.Document)
	if err != nil {
		return nil, misconfigured("", "the licence at hand is none of Elastic's: %v", err)
	}
	is := latest(held)
	document, f, e := c.read(ctx)
	if e != nil {
		return nil, e
	}
	switch {
	case f.uid.s == is.uid.s && f.issue.n == is.issue.n:
		return &plugin.Reply{}, nil
	case c.kind == KindStack:
		return nil, misconfigured(
			"put the file of that licence into the licence folder: Elasticsearch does not give it "+
				"away", "%s has another licence than the one at hand: %s, issued on %s", c.base.Host,
			plugin.Short(f.uid.s),
			day(f.issue.n))
	case f.issue.n < is.issue.n:
		return nil, misconfigured("install the later one on the platform, too", "%s has a licence that was issued "+
			"before the one at hand: %s, issued on %s", c.base.Host, plugin.Short(f.uid.s), day(f.issue.n))
	}
	return &plugin.Reply{Document: document}, nil
}

// Fetch brings the platform's licence, where there is none at hand, or only one that ends.
func (p platform) Fetch(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	document, f, e := p.read(ctx)
	if e != nil {
		return nil, e
	}
	if held, err := parse(r.Document); err == nil && latest(held).issue.n >= f.issue.n {
		return nil, plugin.Transiently("%s has no later licence than the one at hand", p.base.Host)
	}
	return &plugin.Reply{Document: document}, nil
}

func day(millis int64) string { return time.UnixMilli(millis).UTC().Format("2006-01-02") }

func misconfigured(hint, format string, args ...any) *plugin.Error {
	return &plugin.Error{Class: plugin.Misconfigured, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

// read asks for the platform's licence. That of an ECE is verified, and comes with its document.
func (c *Client) read(ctx context.Context) (document []byte, f *fields, _ *plugin.Error) {
	body, e := c.get(ctx)
	if e != nil {
		return nil, nil, e
	}
	_, license, ok := find(body)
	if !ok || license == nil || whole(body) != nil {
		return nil, nil, plugin.Transiently("%s: its answer has no licence in it: it is no such API, or something "+
			"stands between", c.base.Host)
	}
	f, err := parseFields(license)
	if err != nil {
		return nil, nil, plugin.Transiently("%s: its licence cannot be read: %v", c.base.Host, err)
	}
	if c.kind == KindStack {
		return nil, f, nil
	}
	if document, err = asDocument(license); err != nil {
		return nil, nil, plugin.Transiently("%s: its licence cannot be written down: %v", c.base.Host, err)
	}
	l, p := f.verify(c.anchors())
	switch {
	case p != nil:
		return nil, nil, misconfigured(p.Hint, "%s: its licence is not good: %s", c.base.Host, p.Reason)
	case l.Terms["kind"] != c.kind:
		return nil, nil, misconfigured("see to upstream.elastic.kind", "%s: its licence is of the kind %v", c.base.Host,
			l.Terms["kind"])
	}
	return document, f, nil
}

// get makes the request.
func (c *Client) get(ctx context.Context) ([]byte, *plugin.Error) {
	target := c.base.JoinPath("_license")
	if c.kind == KindOrchestration {
		target = c.base.JoinPath("api", "v1", "platform", "license")
		if c.region != "" {
			target = c.base.JoinPath("api", "v1", "regions", url.PathEscape(c.region), "platform", "license")
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, misconfigured("", "%v", err)
	}
	req.Header.Set("Accept", "application/json")
	if c.secret != nil {
		secret, err := c.secret()
		if err != nil {
			return nil, misconfigured("", "%v", err)
		}
		if req.Header.Set("Authorization", "ApiKey "+secret); c.user != "" {
			req.SetBasicAuth(c.user, secret)
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, plugin.Unreached(ctx, c.base.Host, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, plugin.MaxDocument+1))
	switch {
	case err != nil:
		return nil, plugin.Unreached(ctx, c.base.Host, err)
	case len(body) > plugin.MaxDocument:
		return nil, plugin.Transiently("%s: its answer is larger than a licence may be", c.base.Host)
	case res.StatusCode == http.StatusOK:
		return body, nil
	}
	return nil, c.refused(res, body)
}

// refused is what an answer other than 200 means. None says anything of the licence at hand.
func (c *Client) refused(res *http.Response, body []byte) *plugin.Error {
	var said struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	code := ""
	if json.Unmarshal(body, &said) == nil && len(said.Errors) > 0 {
		code = said.Errors[0].Code
	}
	var e *plugin.Error
	switch status := res.StatusCode; {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e = misconfigured("see to upstream.elastic.user and upstream.elastic.secret_file",
			"%s: it does not let us read its licence (%d)", c.base.Host, status)
	case status == http.StatusNotFound && (c.kind == KindStack || code == codeNoLicense):
		e = misconfigured("install the licence on the platform", "%s: it has no licence", c.base.Host)
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500:
		e = plugin.Transiently("%s: it answers %d", c.base.Host, status)
		e.RetryAfter = plugin.RetryAfter(res.Header, c.now())
	default:
		e = misconfigured("see to upstream.elastic.url and upstream.elastic.kind", "%s: it answers %d, which the API "+
			"does not", c.base.Host, status)
	}
	e.SystemCode = plugin.Short(code)
	return e
}
