package brainframe

import (
	"cmp"
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

// maxAnswer is the size of the largest answer, in bytes.
const maxAnswer = 64 << 10

// Client asks a BrainFrame server for its licence: state and terms. The server tells and signs nothing more, so an
// answer licenses nothing: it proves that a licence at hand is still the server's.
type Client struct {
	base      *url.URL
	http      *http.Client
	now       func() time.Time
	inclusive bool // as [Inclusive] says
	user      string
	password  func() (string, error) // nil: no credential is shown
	verify    func(document []byte) (*enforcer.License, *enforcer.Problem)
}

var _ plugin.Upstream = (*Client)(nil)

func newClient(base *url.URL, e plugin.Environment, inclusive bool) *Client {
	// A redirect could come from somebody other than the server.
	return &Client{base: base, now: e.Now, inclusive: inclusive, verify: e.Verify,
		http: &http.Client{Transport: e.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// System returns "brainframe".
func (c *Client) System() string { return System }

// Capabilities returns what a question for the licence can serve for. A server gives hosts no places.
func (c *Client) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true}
}

// Activate is CheckIn.
func (c *Client) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.CheckIn(ctx, r)
}

// Heartbeat is CheckIn.
func (c *Client) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.CheckIn(ctx, r)
}

// Deactivate does nothing.
func (c *Client) Deactivate(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return &plugin.Reply{}, nil
}

// CheckIn asks whether the server's licence is valid, and has the terms of the licence at hand or better ones.
// "expired" and "missing" are refusals. "invalid" is none: the server says so as well when its own check-in failed.
func (c *Client) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	l, p := c.verify(r.Document)
	if p != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Hint: p.Hint,
			Reason: "the licence key cannot be verified: " + p.Reason}
	}
	info, e := c.read(ctx)
	if e != nil {
		return nil, e
	}
	word := string(info.State)
	switch info.State {
	case enforcer.StateExpired:
		return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.Expired, SystemCode: word,
			Reason: c.base.Host + ": the server's licence has expired"}
	case enforcer.StateMissing:
		return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.NotFound, SystemCode: word,
			Reason: c.base.Host + ": the server has no licence", Hint: "upload the licence key to the server"}
	case enforcer.StateInvalid:
		return nil, &plugin.Error{Class: plugin.Transient, SystemCode: word, Reason: c.base.Host + ": the server's " +
			"licence is not valid, or the server's own check-in has failed"}
	}
	if why := c.lacks(info.Terms, l); why != "" {
		return nil, &plugin.Error{Class: plugin.Misconfigured,
			Reason: c.base.Host + ": the server has another licence than this one: " + why,
			Hint:   "give the server and this agent the same licence key"}
	}
	return &plugin.Reply{}, nil
}

// lacks says what the server's terms have less of than a licence; empty: nothing.
func (c *Client) lacks(t *Terms, l *enforcer.License) string {
	if t == nil {
		return "it states no terms"
	}
	if p, ok := l.Pools[PoolStreams]; ok && t.MaxStreams != nil &&
		(p.Max == enforcer.Unlimited || *t.MaxStreams < int64(p.Max)) {
		return fmt.Sprintf("it has %d streams", *t.MaxStreams)
	}
	end := dateOf(l.Expires, c.inclusive)
	if t.Expires != nil && (end == nil || time.Time(*t.Expires).Before(time.Time(*end))) {
		return "it ends on " + t.Expires.String()
	}
	return ""
}

// read asks the server for its licence.
func (c *Client) read(ctx context.Context) (*LicenseInfo, *plugin.Error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath("api", "license").String(), http.NoBody)
	if err != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "upstream.brainframe.url cannot be called"}
	}
	if c.password != nil {
		password, err := c.password()
		if err != nil {
			return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error()}
		}
		q.SetBasicAuth(c.user, password)
	}
	a, err := c.http.Do(q)
	if err != nil {
		return nil, plugin.Unreached(ctx, c.base.Host, err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer+1))
	if err != nil {
		return nil, plugin.Unreached(ctx, c.base.Host, err)
	}
	if a.StatusCode != http.StatusOK {
		return nil, c.fault(a, b)
	}
	if len(b) > maxAnswer {
		return nil, plugin.Transiently("%s: the answer is larger than %d bytes", c.base.Host, maxAnswer)
	}
	info, err := ParseLicenseInfo(b)
	if err != nil {
		return nil, plugin.Transiently("%s: the answer is no licence: %v", c.base.Host, err)
	}
	return info, nil
}

// fault puts an answer that is no licence into the contract's words.
func (c *Client) fault(a *http.Response, body []byte) *plugin.Error {
	var said Fault
	_ = json.Unmarshal(body, &said) // what is no fault of BrainFrame has no title
	title := plugin.Short(said.Title)
	e := &plugin.Error{Class: plugin.Transient, SystemCode: title,
		Reason: fmt.Sprintf("%s: %s", c.base.Host, cmp.Or(title, fmt.Sprintf("status %d", a.StatusCode)))}
	switch {
	case said.Title == Unauthorized || said.Title == InsufficientRole || said.Title == InvalidSession ||
		a.StatusCode == http.StatusUnauthorized || a.StatusCode == http.StatusForbidden:
		e.Class, e.Hint = plugin.Misconfigured, "check upstream.brainframe.user and password_file"
	case a.StatusCode == http.StatusTooManyRequests || a.StatusCode >= 500:
		e.RetryAfter = plugin.RetryAfter(a.Header, c.now())
	case a.StatusCode < 500:
		e.Class, e.Hint = plugin.Misconfigured, "check upstream.brainframe.url: a BrainFrame server answers there"
	}
	return e
}
