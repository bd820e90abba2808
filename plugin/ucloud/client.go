package ucloud

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

const (
	maxAnswer = 4 << 20 // bytes
	maxPages  = 1000    // of a list
	pageSize  = 250     // one that both generations know
	// renewBefore is how long before its end an access token is replaced, as UCloud's own clients do it.
	renewBefore = 3 * time.Minute
)

// Config is what a Client needs.
type Config struct {
	URL string // of the UCloud
	// Token returns the API token ("uc…-…"), or the refresh token, for the next call.
	Token   func() (string, error)
	Project string // the workspace; empty: none is named
	Anchors func() []plugin.Anchor
	HTTP    http.RoundTripper // nil: the default
	Now     func() time.Time  // nil: time.Now
}

// Client looks at a UCloud's licence resource. The companion document names the resource, and states its slots.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client

	mu     sync.Mutex // guards access; never held over a call
	access string     // the access token of a refresh token; empty: none yet
	from   string     // the refresh token that access is from
}

var _ plugin.VoluntaryChecker = (*Client)(nil)

// NewClient checks the configuration. It makes no call.
func NewClient(c Config) (*Client, error) {
	base, err := address(c.URL)
	if err != nil {
		return nil, fmt.Errorf("upstream.ucloud.url %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	// A redirect could come from somebody other than the server.
	return &Client{cfg: c, base: base, http: &http.Client{Transport: c.HTTP,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// System returns "ucloud".
func (c *Client) System() string { return System }

// Capabilities returns the check-in. UCloud knows no hosts, so there is nothing to activate.
func (c *Client) Capabilities() plugin.Capabilities { return plugin.Capabilities{CheckIn: true} }

// Every returns how often the resource is looked at where the document states no check-in: once an hour.
func (c *Client) Every(*enforcer.License) enforcer.Period { return enforcer.Period{Every: time.Hour} }

func noSuchCall() error {
	return &plugin.Error{Class: plugin.Misconfigured, Reason: "UCloud has no such call"}
}

// Activate is not announced.
func (c *Client) Activate(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, noSuchCall()
}

// Heartbeat is not announced.
func (c *Client) Heartbeat(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, noSuchCall()
}

// Deactivate is not announced.
func (c *Client) Deactivate(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, noSuchCall()
}

// CheckIn looks whether the resource is there and ready. Only a resource that a whole, successful list lacks is taken
// for revoked: a lone 403 or 404 also means an expired token or a maintenance.
func (c *Client) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	if _, p := (Format{}).Verify(r.Document, c.cfg.Anchors()); p != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "the companion document: " + p.Reason,
			Hint: p.Hint}
	}
	want, err := claimsOf(r.Document)
	if err != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "the companion document: " + err.Error()}
	}
	found, e := c.look(ctx, want)
	if e == nil {
		e = c.judge(found, want)
	}
	if e != nil {
		return nil, e
	}
	return &plugin.Reply{}, nil
}

// seen is a licence as either generation writes it. Times are not read: a bad one is no fault here.
type seen struct {
	ID            string `json:"id"`
	Specification struct {
		Product ProductRef `json:"product"`
	} `json:"specification"`
	Status struct {
		State   string `json:"state"`
		Support *struct {
			Support struct {
				Maintenance *Maintenance `json:"maintenance"`
			} `json:"support"`
		} `json:"resolvedSupport"`
	} `json:"status"`
}

func (s *seen) is(want *Claims) bool {
	return s.Specification.Product == want.Resource && (want.LicenseID == "" || s.ID == want.LicenseID)
}

// look finds the resource; nil: a whole list lacks it.
func (c *Client) look(ctx context.Context, want *Claims) (*seen, *plugin.Error) {
	flags := url.Values{"includeOthers": {"false"}, "includeUpdates": {"false"}, "includeSupport": {"true"},
		"includeProduct": {"true"}}
	if want.LicenseID != "" {
		flags.Set("id", want.LicenseID)
		one := &seen{}
		switch status, e := c.get(ctx, "/api/licenses/retrieve", flags, one); {
		case e != nil:
			return nil, e
		case status == http.StatusOK && one.is(want):
			return one, nil
		}
		flags.Del("id")
	}
	flags.Set("itemsPerPage", strconv.Itoa(pageSize))
	var best *seen
	next := map[string]bool{}
	for range maxPages {
		var page struct {
			Items *[]seen `json:"items"`
			Next  *string `json:"next"`
		}
		status, e := c.get(ctx, "/api/licenses/browse", flags, &page)
		switch {
		case e != nil:
			return nil, e
		case status == http.StatusNotFound:
			return nil, plugin.Transiently("%s answered 404 for the list of licences", c.base.Host)
		case status != http.StatusOK:
			return nil, c.forbidden(status)
		case page.Items == nil:
			return nil, plugin.Transiently("%s: its answer is no list of licences", c.base.Host)
		}
		for _, s := range *page.Items {
			if s.is(want) && (best == nil || rank(s.Status.State) < rank(best.Status.State)) {
				best = &s
			}
		}
		if page.Next == nil {
			return best, nil
		}
		if next[*page.Next] {
			break
		}
		next[*page.Next] = true
		flags.Set("next", *page.Next)
	}
	return nil, plugin.Transiently("%s: its list of licences does not end", c.base.Host)
}

// forbidden says what a refusal of the list of licences means. After a new access token it means that access has been
// taken away. An API token may as well have ended, which nobody can tell apart: that takes nothing back.
func (c *Client) forbidden(status int) *plugin.Error {
	e := &plugin.Error{Class: plugin.Refused, Code: enforcer.Revoked, SystemCode: "FORBIDDEN",
		Reason: fmt.Sprintf(
			"%s answered %d for the list of licences, also to a new access token: access to it has been "+
				"taken away", c.base.Host, status),
		Hint: "check upstream.ucloud.project, or ask for access at UCloud"}
	if token, err := c.cfg.Token(); err == nil && isAPIToken(token) {
		e.Code = enforcer.Unavailable
		e.Reason = fmt.Sprintf("%s answered %d for the list of licences: the API token has ended, or access has been "+
			"taken away", c.base.Host, status)
		e.Hint = "check that the token of upstream.ucloud.token_file is good, and belongs to the project"
	}
	return e
}

// rank orders states, the best first.
func rank(state string) int {
	if i := slices.Index([]string{StateReady, StatePreparing, StateUnavailable}, state); i >= 0 {
		return i
	}
	return 3
}

// judge says what a resource's state means; nil: it may be used.
func (c *Client) judge(found *seen, want *Claims) *plugin.Error {
	if found == nil {
		return &plugin.Error{Class: plugin.Refused, Code: enforcer.Revoked, SystemCode: "DELETED",
			Reason: fmt.Sprintf("UCloud lists no licence of %s/%s: it has been deleted, or is no longer shared",
				want.Resource.Provider, want.Resource.ID),
			Hint: "ask for the licence again at UCloud, or check upstream.ucloud.project"}
	}
	unavailable := func(why string) *plugin.Error {
		return &plugin.Error{Class: plugin.Refused, Code: enforcer.Unavailable, SystemCode: StateUnavailable,
			Reason: fmt.Sprintf("licence %s at UCloud is not available: %s", plugin.Short(found.ID), why),
			Hint:   "this is no revocation: leases stand, and it heals when UCloud says READY"}
	}
	if s := found.Status.Support; s != nil && s.Support.Maintenance != nil {
		m, now := s.Support.Maintenance, c.cfg.Now().UnixMilli()
		if m.Availability == NoService && m.StartsAt <= now && (m.EstimatedEndsAt == nil || now < *m.EstimatedEndsAt) {
			return unavailable(cmp.Or(m.Description, "its product is under maintenance"))
		}
	}
	switch found.Status.State {
	case StateReady:
		return nil
	case StatePreparing:
		return &plugin.Error{Class: plugin.Refused, Code: enforcer.Preparing, SystemCode: StatePreparing,
			Reason: fmt.Sprintf("licence %s at UCloud is being prepared", plugin.Short(found.ID)), Hint: "wait"}
	case StateUnavailable:
		return unavailable("its provider says so")
	default:
		return plugin.Transiently("%s: the licence's state %q is not known", c.base.Host,
			plugin.Short(found.Status.State))
	}
}

// get makes a call. The status is 200, 401, 403 or 404, the last three after a new access token; out is filled for 200.
// Anything else is an error.
func (c *Client) get(ctx context.Context, path string, q url.Values, out any) (int, *plugin.Error) {
	token, err := c.cfg.Token()
	if err != nil {
		return 0, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error(),
			Hint: "mend the file of upstream.ucloud.token_file"}
	}
	for try := 0; ; try++ {
		bearer, e := c.bearer(ctx, token, try > 0)
		if e != nil {
			return 0, e
		}
		status, b, e := c.call(ctx, http.MethodGet, path, q, bearer)
		switch {
		case e != nil:
			return 0, e
		case status == http.StatusOK:
			if err := json.Unmarshal(b, out); err != nil {
				return 0, plugin.Transiently("%s: its answer cannot be read: %v", c.base.Host,
					plugin.JSONFault(err, "member"))
			}
			return status, nil
		case (status == http.StatusUnauthorized || status == http.StatusForbidden) && try == 0 && !isAPIToken(token):
			continue
		case status == http.StatusUnauthorized, status == http.StatusForbidden:
			return status, nil
		}
		var f struct {
			Why *string `json:"why"`
		}
		why := cmp.Or(http.StatusText(status), "it gave no reason")
		if json.Unmarshal(b, &f) == nil && f.Why != nil {
			why = *f.Why
		}
		switch {
		case status == http.StatusPaymentRequired:
			return 0, &plugin.Error{Class: plugin.Refused, Code: enforcer.Suspended, SystemCode: ErrorNoCredits,
				Reason: "UCloud answered 402: " + why, Hint: "apply for more credit at UCloud"}
		case status == http.StatusNotFound && !strings.Contains(strings.ToLower(why), "maintenance"):
			return status, nil
		default:
			return 0, plugin.Transiently("%s answered %d: %s", c.base.Host, status, why)
		}
	}
}

// call makes one request, and returns the answer's body.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, bearer string) (int, []byte,
	*plugin.Error) {
	target := c.base.JoinPath(path)
	target.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return 0, nil, &plugin.Error{Class: plugin.Misconfigured, Reason: err.Error()}
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/json")
	if c.cfg.Project != "" {
		req.Header.Set("Project", c.cfg.Project)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, plugin.Unreached(ctx, c.base.Host, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, plugin.Transiently("%s: its answer broke off", c.base.Host)
	case len(b) > maxAnswer:
		return 0, nil, plugin.Transiently("%s: its answer is larger than %d bytes", c.base.Host, maxAnswer)
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500:
		e := plugin.Transiently("%s answered %s", c.base.Host, res.Status)
		e.RetryAfter = plugin.RetryAfter(res.Header, c.cfg.Now())
		return 0, nil, e
	}
	return res.StatusCode, b, nil
}

// isAPIToken reports whether a token is used as it is. UCloud tells the kinds by the same two letters.
func isAPIToken(token string) bool { return strings.HasPrefix(token, "uc") }

// bearer returns the token for a call: the API token, or an access token that is good for a while.
func (c *Client) bearer(ctx context.Context, token string, anew bool) (string, *plugin.Error) {
	if isAPIToken(token) {
		return token, nil
	}
	c.mu.Lock()
	access := c.access
	if c.from != token {
		access = ""
	}
	c.mu.Unlock()
	if !anew && access != "" && expires(access).Sub(c.cfg.Now()) > renewBefore {
		return access, nil
	}
	status, b, e := c.call(ctx, http.MethodPost, "/auth/refresh", nil, token)
	if e != nil {
		return "", e
	}
	var out struct {
		Access string `json:"accessToken"`
	}
	if status != http.StatusOK || json.Unmarshal(b, &out) != nil || out.Access == "" {
		return "", &plugin.Error{Class: plugin.Misconfigured,
			Reason: fmt.Sprintf("%s answered %d, and gave no access token for the refresh token", c.base.Host, status),
			Hint:   "put a new refresh token, or an API token, into upstream.ucloud.token_file"}
	}
	c.mu.Lock()
	c.access, c.from = out.Access, token
	c.mu.Unlock()
	return out.Access, nil
}

// expires reads the end of an access token, without verifying it: only the server needs to.
func expires(token string) time.Time {
	parts := strings.Split(token, ".")
	var body struct {
		Expires int64 `json:"exp"`
	}
	if len(parts) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil && json.Unmarshal(b, &body) == nil {
			return time.Unix(body.Expires, 0)
		}
	}
	return time.Time{}
}
