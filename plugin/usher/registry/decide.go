package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// question is a request and what it shows.
type question struct {
	*online.Request
	agent   string
	now     time.Time
	shown   *enforcer.License // the document that came with it, verified; nil: none, or a bad one
	problem *enforcer.Problem // why the document is bad

	word     *word // the server's word to itself in its last answer; nil: none
	moved    bool  // the block was another broker's, and is this one's now
	settling bool  // no new blocks go out, because the store may be an old copy
}

// decision is the answer to a request, and what to write for it. Deciding changes nothing.
type decision struct {
	none     *Answer // the request is malformed
	refused  *online.Refusal
	terms    *enforcer.License // of the licence; nil: the answer is complete
	chain    string
	document string
	next     *word // the server's word to itself with the answer; nil: none
	aged     bool  // the store is an old copy

	licence *Licence    // to be put
	host    *Activation // to be put
	gone    bool        // the host gives its place up
	joined  bool        // the host gets a place
	token   *Token      // to be put
	by      *Token      // by which the host is admitted; nil: by the document
	log     []func(*slog.Logger)
}

func (d *decision) changes() bool {
	return d.licence != nil || d.host != nil || d.gone || d.token != nil
}

func (d *decision) refuse(r *online.Refusal) (*decision, error) { d.refused = r; return d, nil }

// notActivated has an agent activate itself again and show its document.
var notActivated = &online.Refusal{System: online.SystemNotActivated, Reason: "this host is not activated here"}

func (d *decision) say(level slog.Level, what string, args ...any) {
	d.log = append(d.log, func(l *slog.Logger) { l.Log(context.Background(), level, what, args...) })
}

// carryOut writes what was decided.
func (g *Registry) carryOut(tx *bbolt.Tx, d *decision, q *question) error {
	var faults []error
	if d.joined && g.cfg.Site {
		faults = append(faults, prune(tx.Bucket(activations), q.License, q.now))
	}
	if d.gone && q.now.Sub(g.tidied) > 24*time.Hour {
		g.tidied = q.now
		faults = append(faults, forgetReleased(tx, q.now))
	}
	if d.licence != nil {
		faults = append(faults, put(tx.Bucket(licences), []byte(d.licence.ID), d.licence))
	}
	if d.token != nil {
		faults = append(faults, put(tx.Bucket(enrolments), []byte(d.token.ID), d.token))
	}
	key := activationKey(q.License, q.agent)
	switch {
	case d.gone:
		faults = append(faults, release(tx, d.host, q.now, reactivations(d.terms)))
	case d.host != nil:
		faults = append(faults, put(tx.Bucket(activations), key, d.host), tx.Bucket(released).Delete(key))
	}
	return errors.Join(faults...)
}

// decide decides one request. It tells an unknown key nothing of the licence before the key is admitted.
func (g *Registry) decide(tx *bbolt.Tx, q *question) (*decision, error) {
	d := &decision{}
	l, err := get[Licence](tx.Bucket(licences), []byte(q.License))
	if err != nil {
		return nil, err
	}
	key := activationKey(q.License, q.agent)
	host, err := get[Activation](tx.Bucket(activations), key)
	if err != nil {
		return nil, err
	}
	known := host != nil && l != nil
	if ahead := time.Unix(q.Issued, 0).Sub(q.now); ahead > maxAhead {
		return d.refuse(stale("the request's date is %s ahead", enforcer.Span(ahead.Round(time.Second))))
	}
	if !known {
		switch {
		case q.Call == online.CallActivate, q.Call == online.CallCheckOut,
			q.Call == online.CallDraw && q.Document != "":
		case q.forgotten(l), q.moved && l != nil:
		case q.Call == online.CallDeactivate, q.Call == online.CallReturn:
			return d, nil // there is nothing to give back
		default:
			return d.refuse(notActivated)
		}
		if !q.forgotten(l) && !(q.moved && l != nil) {
			l, err = g.admit(tx, q, l, d)
		}
		if err != nil || d.refused != nil {
			return d, err
		}
	} else if g.cfg.Site && q.shown != nil && g.shows(q, l) == nil && older([]byte(l.Document), []byte(q.Document)) {
		l = renewedBy(q, l, d) // a site server hears of a renewal from the agents that have it
	}
	terms, refused := g.judge(l, q.Request, q.agent)
	if refused != nil {
		// Do not write what was admitted above.
		return &decision{refused: refused}, nil
	}
	d.terms = terms
	if !known {
		if host, err = g.newHost(tx, q, l, terms, d); err != nil || d.refused != nil || d.none != nil {
			return d.dry(), err
		}
	}
	done := g.goOn(host, known, q, terms, d)
	d.next = &word{Labels: host.Labels, Host: host.ID, Pools: isBlockCall(q.Call),
		Draws: q.Call == online.CallDraw, Count: host.sequence(q.Call).Count}
	if done {
		return d, nil
	}
	if d.refused != nil || d.none != nil {
		return d, nil
	}
	d.host, d.joined = host, !known
	if q.Call == online.CallDeactivate {
		d.gone = true
		return d, nil
	}
	d.chain = host.sequence(q.Call).Chain
	if q.shown != nil && g.shows(q, l) == nil {
		host.Shown = max(host.Shown, usher.DateOf(q.shown.Issued))
	}
	if later := terms.Issued.Unix() > q.Dated && q.Dated != 0; later &&
		(q.Call == online.CallActivate || q.Call == online.CallCheckIn) {
		switch {
		case host.Shown != 0:
			d.document = l.Document
		case q.Call == online.CallCheckIn:
			// A host from before keys had to show the document: the agent activates itself again, and shows it.
			return &decision{refused: notActivated}, nil
		}
	}
	return d, nil
}

// dry returns the decision without its writes.
func (d *decision) dry() *decision { return &decision{refused: d.refused, none: d.none, log: d.log} }

// shows reports why the document of a request is no issue of a licence.
func (g *Registry) shows(q *question, l *Licence) error {
	switch {
	case q.problem != nil:
		return fmt.Errorf("%w (%s): %s", ErrRefused, q.problem.Code, q.problem.Reason)
	case q.shown == nil:
		return errors.New("it shows no document")
	case q.shown.ID != q.License:
		return fmt.Errorf("the document is licence %q, and the request is about %q", q.shown.ID, q.License)
	case g.cfg.Site && q.shown.SiteServer != g.own:
		return g.notOurs(q.shown.ID)
	}
	if l == nil {
		return nil
	}
	if at := usher.Describe([]byte(l.Document)); at != nil && at.Product != q.shown.Product {
		return fmt.Errorf("the document is for product %q", q.shown.Product)
	}
	// A key that signs test licences vouches for no licence that another has signed.
	have, p := usher.Format{}.Verify([]byte(l.Document), g.cfg.Anchors)
	if p == nil && q.shown.AnchorEnvironment == enforcer.Test && have.AnchorEnvironment != enforcer.Test {
		return fmt.Errorf("the document is signed by %q, a key for test licences", q.shown.KeyID)
	}
	return nil
}

func (g *Registry) notOurs(id string) error {
	return fmt.Errorf(
		"%w: licence %s does not name this site server, whose key is %s; have it signed with --site-server", ErrRefused,
		id, g.own)
}

// admit decides whether an unknown key may have a place on a licence: it must show the licence document, or a token. It
// returns the licence, from the document where that is new.
func (g *Registry) admit(tx *bbolt.Tx, q *question, l *Licence, d *decision) (*Licence, error) {
	fault := g.shows(q, l)
	token, why, err := g.tokenOf(tx, q)
	if err != nil {
		return nil, err
	}
	switch {
	case q.Document != "" && fault != nil:
		d.refused = &online.Refusal{System: "UNKNOWN_LICENSE", Reason: fault.Error(),
			Hint: "use a licence of this vendor's"}
	case token == nil && (g.cfg.RequireEnrolment || fault != nil && why != ""):
		if why == "" {
			why = "this upstream admits a new host by an enrolment token, and the host has shown none"
		}
		d.refused = &online.Refusal{System: online.SystemEnrolment, Reason: why,
			Hint: "ask the upstream's operator for a token (`usher upstream token " + q.License +
				"`), and name its file under upstream.enrolment_file"}
	case token == nil && fault != nil || l == nil && fault != nil:
		d.refused = &online.Refusal{System: online.SystemDocument,
			Reason: "a host that is not known here must show the licence document, and this one has not",
			Hint:   "update the agent, or give it an enrolment token"}
	}
	if d.refused != nil {
		return nil, nil
	}
	// Only an early clock, which has not learnt the time, may state an old one.
	if age := q.now.Sub(time.Unix(q.Issued, 0)); age > online.Fresh && !earlyClock(q.Issued) {
		d.refused = stale("the request is %s old", enforcer.Span(age.Round(time.Second)))
		return nil, nil
	}
	switch {
	case l == nil:
		l = &Licence{ID: q.shown.ID, Product: q.shown.Product, Licensee: q.shown.Licensee, Document: q.Document,
			State: StateActive, Machines: kept(g.cfg.Machines), Added: q.now}
		d.licence = l
		d.say(slog.LevelInfo, "a licence was seen for the first time", "licence", l.ID, "licensee", l.Licensee)
	case g.cfg.Site && fault == nil && older([]byte(l.Document), []byte(q.Document)):
		l = renewedBy(q, l, d)
	}
	if token != nil && (fault != nil || g.cfg.RequireEnrolment || len(token.Labels) > 0) {
		d.by = token
		if !token.admitted(q.agent) {
			token.Keys = append(token.Keys, q.agent)
			d.token = token
		}
	}
	return l, nil
}

// stale is a refusal that has an agent ask once more, with the time in the answer.
func stale(format string, args ...any) *online.Refusal {
	return &online.Refusal{System: online.SystemStale, Reason: fmt.Sprintf(format, args...),
		Hint: "set the host's clock"}
}

// renewedBy returns a licence with the later issue that a request shows.
func renewedBy(q *question, l *Licence, d *decision) *Licence {
	later := *l
	later.Document, later.Licensee = q.Document, q.shown.Licensee
	d.licence = &later
	d.say(slog.LevelInfo, "a later issue of a licence was seen", "licence", l.ID)
	return &later
}

// judge returns the licence's terms, or why it is of no use to anybody, or to this agent.
func (g *Registry) judge(l *Licence, r *online.Request, agent string) (*enforcer.License, *online.Refusal) {
	if code := map[string]enforcer.Code{StateSuspended: enforcer.Suspended,
		StateRevoked: enforcer.Revoked}[l.State]; code != "" {
		reason := l.Reason
		if reason == "" {
			reason = "the licence is " + l.State
		}
		return nil, &online.Refusal{Code: string(code), Reason: reason, Hint: "ask the vendor"}
	}
	terms, p := g.verify(l.Document)
	if p != nil {
		return nil, &online.Refusal{System: "UNKNOWN_LICENSE", Reason: p.Reason, Hint: p.Hint}
	}
	switch {
	case terms.Product != r.Product:
		return nil, &online.Refusal{Code: string(enforcer.ProductMismatch),
			Reason: fmt.Sprintf("the licence is for product %q", terms.Product)}
	case len(terms.AgentKeys) > 0 && !slices.Contains(terms.AgentKeys, agent):
		return nil, &online.Refusal{Code: string(enforcer.AgentKeyMismatch),
			Reason: "the licence names another agent's key",
			Hint:   "have it bound to this one: `usher fingerprint --request`"}
	}
	return terms, nil
}

// newHost makes the record of a key that was admitted, if the licence has a place left. A host that had given its place
// up continues with its former record.
func (g *Registry) newHost(tx *bbolt.Tx, q *question, l *Licence, terms *enforcer.License,
	d *decision) (*Activation, error) {
	if l.Machines > 0 && g.hosts(tx.Bucket(activations), l.ID, terms, q.now) >= l.Machines {
		d.refused = &online.Refusal{Code: string(enforcer.FingerprintMismatch), System: online.SystemTooMany,
			Reason: fmt.Sprintf("the licence is for %d hosts, and that many are activated", l.Machines),
			Hint:   "give one of them up (`usher license release-host` there), or have the licence extended"}
		return nil, nil
	}
	was, err := get[Released](tx.Bucket(released), activationKey(l.ID, q.agent))
	if err != nil {
		return nil, err
	}
	a := &Activation{License: l.ID, AgentKey: q.agent, ID: newChain(), Activated: q.now}
	if was != nil {
		a.Sequence, a.Blocks, a.Draws, a.Again, a.ClonedAt = was.Sequence, was.Blocks, was.Draws, was.Again,
			was.ClonedAt
	}
	switch {
	case d.by != nil:
		a.Enrolled, a.Labels = d.by.ID, d.by.Labels
	case q.word != nil: // the store may be an old copy
		a.Labels = q.word.Labels
	case was != nil:
		a.Labels = was.Labels
	}
	d.say(slog.LevelInfo, "a host was activated", "licence", l.ID, "agent_key", q.agent)
	return a, nil
}

// goOn continues a host's chain, and notes what the request says. It reports whether the request was answered before,
// and gets that answer again.
func (g *Registry) goOn(a *Activation, known bool, q *question, terms *enforcer.License, d *decision) (done bool) {
	s := a.sequence(q.Call)
	began := s.Issued != 0
	// A request that came before changes nothing: the network has doubled it, or somebody replays it.
	switch i := slices.Index(s.Nonces, q.Nonce); {
	case known && i >= 0 && i == len(s.Nonces)-1 && q.now.Sub(a.Seen) <= doubledWithin:
		d.chain = s.Chain
		return true
	// later dates came before such dates were refused
	case i >= 0 || q.Issued < min(s.Issued, q.now.Add(maxAhead).Unix()):
		*d = decision{none: bad(409, "the request is older than one that was answered")}
		return false
	case q.Issued == s.Issued && len(s.Nonces) >= noncesKept:
		*d = decision{none: bad(429, "the host has asked %d times within this second", len(s.Nonces))}
		return false
	}
	if began && g.copied(a, known, q, terms, d) {
		return false
	}
	if q.Issued > s.Issued {
		s.Nonces = nil
	}
	// The last reply may have been lost: its chain and the one before are both good once, and no longer.
	s.Issued, s.Previous, s.Chain = q.Issued, clip(q.Chain, maxChain), newChain()
	s.Nonces = append(s.Nonces, q.Nonce)
	if s.Count++; a.ID == "" { // of a former version
		a.ID = newChain()
	}
	g.note(a, q, terms, d)
	return false
}

// copied decides whether a request comes from a copy of the host that is known by its key, or from a host that is taken
// for one. It notes a copy on the known host and changes nothing else.
func (g *Registry) copied(a *Activation, known bool, q *question, terms *enforcer.License, d *decision) bool {
	s, block := a.sequence(q.Call), isShareCall(q.Call)
	anew := q.Call == online.CallActivate && q.Chain == "" && s.Chain != "" && !a.attempted(q)
	var chained bool
	switch {
	case s.Chain == "": // the operator has put it aside
		chained = true
	case q.Chain == "":
		// An agent that has lost its blocks checks others out; the lost ones expire.
		chained = q.Call == online.CallActivate || q.Call == online.CallCheckOut ||
			q.Call == online.CallDraw || q.moved
		if !chained {
			*d = decision{refused: notActivated}
			return true
		}
	case q.word.later(a, q.Call): // the store is an old copy
		chained, s.Count, d.aged = true, q.word.Count, true
	default: // a host that shows the chain of the last answer to any call is no copy
		chained = q.Chain == s.Chain || q.Chain == s.Previous || block && q.Chain == a.Chain
	}
	var refused *online.Refusal
	switch {
	case anew:
		refused = a.startAnew(q, reactivations(terms))
	case !chained:
		refused = cloned("another host has gone on with this one's state and key: one is a copy of the other")
	default:
		refused = a.comeBack(q, reactivations(terms))
	}
	if refused == nil {
		return false
	}
	d.say(slog.LevelWarn, "a host may be a copy of another", "licence", a.License, "agent_key", a.AgentKey,
		"system_code", refused.System, "why", refused.Reason)
	*d = decision{refused: refused, log: d.log}
	if known && (q.now.Sub(a.Marked) >= markEvery || !block && !chained && !a.Copied) { // else it is noted already
		a.Marked = q.now
		if refused.System == online.SystemCloned {
			a.ClonedAt = q.now
			a.Copied = a.Copied || !block
		}
		d.host = a
	}
	return true
}

func cloned(reason string) *online.Refusal {
	return &online.Refusal{Code: string(enforcer.AgentKeyMismatch), System: online.SystemCloned, Reason: reason,
		Hint: "remove the state folder and the agent's key on the copy, and activate it as a host of its own; if " +
			"there is no copy, have the upstream's operator forgive the host: `usher upstream forgive`"}
}

// note keeps what a request says of its host, within bounds.
func (g *Registry) note(a *Activation, q *question, terms *enforcer.License, d *decision) {
	a.Seen, a.Version, a.Components, a.Cores = q.now, clip(q.Version, maxVersion), boundedComponents(q.Components),
		q.Cores
	a.met(printOf(q.Components))
	if q.Call == online.CallActivate && q.Chain == "" && q.Attempt != a.Attempt {
		a.Attempt, a.Attempted = q.Attempt, q.now
	}
	if q.Usage != nil {
		a.Usage = usageOf(q.Usage, terms)
	}
	for _, e := range q.Emergencies {
		e.Reason = clip(e.Reason, maxReason)
		if slices.Contains(a.Emergencies, e) {
			continue
		}
		if a.Emergencies = append(a.Emergencies, e); len(a.Emergencies) > emergenciesKept {
			a.Emergencies = a.Emergencies[1:]
		}
		d.say(slog.LevelWarn, "an operator has begun an emergency", "licence", a.License, "agent_key", a.AgentKey,
			"began", time.Unix(e.Began, 0).UTC(), "reason", e.Reason)
	}
}

// sequence returns the sequence that a call belongs to: agents make calls for blocks and for draws beside the others,
// and each kind one after the other.
func (a *Activation) sequence(call string) *Sequence {
	switch {
	case isBlockCall(call):
		return &a.Blocks
	case call == online.CallDraw:
		return &a.Draws
	}
	return &a.Sequence
}

func isBlockCall(call string) bool {
	return call == online.CallCheckOut || call == online.CallExtend || call == online.CallReturn
}

// isShareCall reports whether a call is about what a site shares, which a site server serves.
func isShareCall(call string) bool { return isBlockCall(call) || call == online.CallDraw }

// earlyClock reports whether a host's time is before any licence: an edge box that has not learnt the time yet.
func earlyClock(issued int64) bool { return issued < 1_600_000_000 }
