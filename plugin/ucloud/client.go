package ucloud

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

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
	cfg Config
	*session

	found sync.Map // wanted → the id of the licence that was found last
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
	return &Client{cfg: c, session: newSession(base, &c, c.Token, false)}, nil
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
	want, e := c.claims(r.Document)
	if e != nil {
		return nil, e
	}
	found, e := c.look(ctx, want)
	if e == nil {
		c.remember(want, found)
		e = c.judge(found, want)
	}
	if e != nil {
		return nil, e
	}
	return &plugin.Reply{}, nil
}

// claims verifies a companion document, and returns what it says.
func (c *Client) claims(document []byte) (*Claims, *plugin.Error) {
	if _, p := (Format{}).Verify(document, c.cfg.Anchors()); p != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "the companion document: " + p.Reason,
			Hint: p.Hint}
	}
	want, err := claimsOf(document)
	if err != nil {
		return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "the companion document: " + err.Error()}
	}
	return want, nil
}

// wanted names the licence that a document is about.
type wanted struct {
	product ProductRef
	id      string
}

// remember notes which licence is the document's.
func (c *Client) remember(want *Claims, found *seen) {
	if found != nil {
		c.found.Store(wanted{want.Resource, want.LicenseID}, found.ID)
	}
}

// resourceID returns the id of the document's licence; empty: UCloud lists none.
func (c *Client) resourceID(ctx context.Context, want *Claims) (string, *plugin.Error) {
	if want.LicenseID != "" {
		return want.LicenseID, nil
	}
	if id, ok := c.found.Load(wanted{want.Resource, ""}); ok {
		return id.(string), nil
	}
	found, e := c.look(ctx, want)
	if e != nil || found == nil {
		return "", e
	}
	c.remember(want, found)
	return found.ID, nil
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
