package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
)

// Queues is what the API asks of the site's rules and of those that wait.
type Queues interface {
	// Policies returns the site's rules in force, nil for none, and what each has in use.
	Policies() (*enforcer.Policies, []enforcer.RuleUse)
	// Explain says what the rules say of a holder in a pool.
	Explain(h *enforcer.Holder, pool string) enforcer.Explanation
	// Queue returns the first most acquires that wait and that own accepts (all for nil), in their order; more says
	// that there are others. It may take long.
	Queue(own func(*enforcer.Waiter) bool, most int) (out []*enforcer.InQueue, more bool)
	// Estimate returns how long an acquire may still wait at the pace of late; zero: not known.
	Estimate(q *enforcer.InQueue) time.Duration
}

func (s *Server) getPolicies(c *call) {
	rules, uses := s.operations.Policies()
	out := wire.Policies{Policies: []wire.Policy{}}
	if rules != nil {
		for _, r := range rules.Rules {
			p := wire.Policy{Name: r.Name, Does: r.Does(), Elsewhere: r.Elsewhere, Uses: []wire.PolicyUse{}}
			for _, u := range uses {
				if u.Rule == r.Name && u.Pool != "" {
					p.Uses = append(p.Uses, wire.PolicyUse{Pool: u.Pool, Limit: u.Limit, InUse: u.InUse, Most: u.Most,
						Unused: u.Unused})
				}
			}
			out.Policies = append(out.Policies, p)
		}
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) explainPolicies(c *call) {
	q := c.req.URL.Query()
	h, d := s.asked(q)
	if d == nil && q.Get("pool") == "" {
		d = badRequest("pool", "name the pool, as `usher pools` lists it", "pool is missing")
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	x := s.operations.Explain(h, q.Get("pool"))
	out := wire.PolicyExplanation{Pool: q.Get("pool"), Known: x.Known, DeniedBy: x.Deny, Room: count(x.Room),
		Rules: []wire.PolicyConcern{}}
	if x.Denial != nil {
		out.Code, out.Detail = string(x.Denial.Code), x.Denial.Detail
	}
	for _, r := range x.Rules {
		out.Rules = append(out.Rules, wire.PolicyConcern{Name: r.Rule.Name, Concerns: r.Concerns, Why: r.Why})
	}
	s.answer(c, http.StatusOK, out)
}

// asked reads a holder that an admin asks about. Of a user that the host's files know, they tell the uid.
func (s *Server) asked(q url.Values) (*enforcer.Holder, *enforcer.Denial) {
	h := &enforcer.Holder{Caller: enforcer.Caller{UID: Nobody, GID: Nobody, Exe: q.Get("exe"), Pod: q.Get("pod")}}
	login := q.Get("user")
	switch uid, err := strconv.ParseUint(q.Get("uid"), 10, 32); {
	case q.Get("uid") == "" && login != "":
		h.UID = s.accounts.uidOf(login)
	case q.Get("uid") == "":
	case err != nil:
		return nil, badRequest("uid", "give a user's number, as id -u prints it", "uid is %q",
			plugin.Short(q.Get("uid")))
	default:
		h.UID = uint32(uid)
		if login == "" {
			login, _ = s.accounts.names(h.UID, nil)
		}
	}
	h.Profile = enforcer.ProfileOf(enforcer.Profile{Login: login, Groups: strings.Join(q["group"], "\n"),
		Cgroup: q.Get("cgroup")})
	for _, l := range q["label"] {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			return nil, badRequest("label", "give NAME=VALUE", "label is %q", plugin.Short(l))
		}
		if h.Labels == nil {
			h.Labels = map[string]string{}
		}
		h.Labels[key] = value
	}
	return h, nil
}

// mostWaiting is how many acquires that wait are listed.
const mostWaiting = 1000

// getWaiting lists the acquires that wait: all of them to an admin, and to others their own. One user reads one list at
// a time.
func (s *Server) getWaiting(c *call) {
	done, err := s.listings.take(c.req.Context(), c.peer.key())
	if err != nil {
		return // it has hung up
	}
	defer done()
	var own func(*enforcer.Waiter) bool
	if !c.admin {
		by := c.peer.caller(false)
		own = func(w *enforcer.Waiter) bool {
			return by.SameUser(w.Request.Caller) || by.SameProcess(w.Request.Caller)
		}
	}
	all, more := s.operations.Queue(own, mostWaiting)
	out := wire.Waiting{Waiting: make([]wire.Waiter, 0, len(all)), More: more}
	for _, q := range all {
		by := holderOf(&enforcer.Holder{Caller: q.Request.Caller, Labels: q.Request.Labels})
		x := wire.Waiter{LeaseID: q.ID.String(), Items: ItemShapes(q.Items), Position: q.Position, Priority: q.Priority,
			Since: q.Since.UTC(),
			Until: q.Until.UTC(), NextEndsAt: Instant(q.Next), UID: by.UID, PID: by.PID, Holder: &by,
			EstimateSeconds: s.operations.Estimate(q).Round(time.Second).Seconds()}
		if q.Barred != nil {
			x.Rule, x.Reason = q.Barred.Rule, q.Barred.Detail
			if !c.admin {
				x.Rule, x.Reason = redact.Text(x.Rule), redact.Text(x.Reason)
			}
		}
		out.Waiting = append(out.Waiting, x)
	}
	s.answer(c, http.StatusOK, out)
}
