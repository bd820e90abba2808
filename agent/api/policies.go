package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Queues is what the API asks of the site's rules and of those that wait.
type Queues interface {
	// Policies returns the site's rules in force, nil for none, and what each has in use.
	Policies() (*enforcer.Policies, []enforcer.RuleUse)
	// Explain says what the rules say of a holder in a pool.
	Explain(h *enforcer.Holder, pool string) enforcer.Explanation
	// Queue returns the acquires that wait, in their order.
	Queue() []enforcer.InQueue
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

// getWaiting lists the acquires that wait: all of them to an admin, and to others their own.
func (s *Server) getWaiting(c *call) {
	out := wire.Waiting{Waiting: []wire.Waiter{}}
	own := c.peer.caller(false)
	for _, w := range s.operations.Queue() {
		by := w.Request.Caller
		if !c.admin && !own.SameUser(by) && !own.SameProcess(by) {
			continue
		}
		x := wire.Waiter{Items: ItemShapes(w.Items), Position: w.Position, Since: w.Since.UTC(), Until: w.Until.UTC(),
			NextEndsAt: Instant(w.Next), UID: by.UID, PID: by.PID}
		if w.Blocked != nil {
			x.Rule, x.Reason = w.Blocked.Rule, w.Blocked.Detail
		}
		out.Waiting = append(out.Waiting, x)
	}
	s.answer(c, http.StatusOK, out)
}
