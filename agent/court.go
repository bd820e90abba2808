package agent

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// court gathers the facts and has them judged: whenever a document, the host, the configuration or the time gives
// cause, and at no other time.
type court struct {
	desk   *desk
	judged func(*enforcer.Verdict) // told of each verdict, after it is in force

	mu      sync.Mutex // guards all below; taken before desk.mu, never the other way round
	anchors []plugin.Anchor
	facts   enforcer.Facts
	inline  []byte
	files   []file
	extra   []enforcer.Warning // the agent's own
	renewed []file             // documents that upstreams brought, see renewedFor
	// upstream is asked what is known of the licences' upstreams; nil: nobody knows anything.
	upstream func() map[string]enforcer.Upstream
	cache    map[[32]byte]verified
	again    time.Time // when to judge again
	ready    bool      // files have been read once

	wake chan struct{} // capacity 1: again became sooner
}

// file is one document as the folder has it.
type file struct {
	name    string
	data    []byte            // current, or the last good
	problem *enforcer.Problem // why the current one is not good
	stale   bool              // data is the last good
}

type verified struct {
	license *enforcer.License
	problem *enforcer.Problem
}

// inlineName is what a licence from the configuration is called among the documents.
const inlineName = "USHER_LICENSE"

// verify finds the system of a document and has it verified.
func verify(data []byte, anchors []plugin.Anchor) verified {
	format, err := catalog.Recognise(data)
	if err != nil {
		return verified{problem: &enforcer.Problem{Code: enforcer.Malformed, Reason: err.Error(),
			Hint: "take it out of the folder, or replace it by the licence file as the vendor sent it"}}
	}
	l, p := format.Verify(data, anchors)
	return verified{l, p}
}

// verifyCached is verify with the answers for the present anchors remembered. c.mu is held.
func (c *court) verifyCached(data []byte) verified {
	key := sha256.Sum256(data)
	if v, ok := c.cache[key]; ok {
		return v
	}
	v := verify(data, c.anchors)
	if c.cache == nil || len(c.cache) >= 1024 {
		c.cache = map[[32]byte]verified{}
	}
	c.cache[key] = v
	return v
}

// check tells the watcher whether a document is good.
func (c *court) check(name string, data []byte) *enforcer.Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	return named(name, c.verifyCached(data).problem)
}

// named says in a problem which document has it.
func named(name string, p *enforcer.Problem) *enforcer.Problem {
	if p == nil {
		return nil
	}
	out := *p
	out.Reason = "licence " + name + ": " + p.Reason
	return &out
}

// documents returns what the judge is to look at, with replace in the place of the file of its name. c.mu is held.
func (c *court) documents(replace *file) []enforcer.Document {
	files := c.files
	if replace != nil {
		files = nil
		for _, f := range c.files {
			if f.name != replace.name {
				files = append(files, f)
			}
		}
		if replace.data != nil {
			files = append(files, *replace)
		}
	}
	if len(c.inline) > 0 {
		files = append(files[:len(files):len(files)], file{name: inlineName, data: c.inline})
	}
	files = append(files[:len(files):len(files)], c.renewedFor(files)...)
	docs := make([]enforcer.Document, 0, len(files))
	for _, f := range files {
		d := enforcer.Document{Name: f.name, Problem: f.problem}
		if f.data != nil && (f.problem == nil || f.stale) {
			v := c.verifyCached(f.data)
			switch {
			case v.problem != nil && f.problem == nil:
				d.Problem = named(f.name, v.problem)
			case v.problem == nil:
				d.License = v.license
				if f.stale {
					p := *f.problem
					p.Stale = true
					d.Problem = &p
				}
			}
		}
		docs = append(docs, d)
	}
	return docs
}

// judge judges all the documents now and puts the verdict in force. c.mu is held.
func (c *court) judge() *enforcer.Verdict {
	if !c.ready {
		return nil
	}
	c.facts.Documents = c.documents(nil)
	c.look()
	now := c.desk.time()
	v := enforcer.Judge(c.facts, now)
	v.Warnings = append(v.Warnings, c.extra...)
	c.desk.setVerdict(v)
	c.again = v.JudgeAgainAt
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if c.judged != nil {
		c.judged(v)
	}
	return v
}

// look gathers what others know. c.mu is held.
func (c *court) look() {
	if c.upstream != nil {
		c.facts.Upstream = c.upstream()
	}
}

// renewedFor returns the documents that upstreams brought for licences that are among files: one counts for as long as an
// issue of its licence lies in the folder, so that what an operator takes out is gone. c.mu is held.
func (c *court) renewedFor(files []file) (out []file) {
	if len(c.renewed) == 0 {
		return nil
	}
	type name struct{ system, id string }
	there := map[name]bool{}
	for _, f := range files {
		if f.data != nil {
			if l := c.verifyCached(f.data).license; l != nil {
				there[name{l.System, l.ID}] = true
			}
		}
	}
	for _, f := range c.renewed {
		if l := c.verifyCached(f.data).license; l != nil && there[name{l.System, l.ID}] {
			out = append(out, f)
		}
	}
	return out
}

// document returns the bytes of a document by its name. c.mu is held.
func (c *court) document(name string) []byte {
	if name == inlineName {
		return c.inline
	}
	for _, f := range slices.Concat(c.files, c.renewed) {
		if f.name == name {
			return f.data
		}
	}
	return nil
}

// would returns the verdict as it would be with one file replaced (or, without data, removed).
func (c *court) would(f file) *enforcer.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	facts := c.facts
	facts.Documents = c.documents(&f)
	return enforcer.Judge(facts, c.desk.time())
}

// has reports whether a document of that name is among those judged.
func (c *court) has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.files, func(f file) bool { return f.name == name })
}

// change changes the facts and has them judged.
func (c *court) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.judge()
}

// trust replaces the anchors; what was verified with the old ones is forgotten. c.mu is held.
func (c *court) trust(anchors []plugin.Anchor) { c.anchors, c.cache = anchors, nil }

// Run judges again when the verdict's time has come, until ctx ends.
func (c *court) Run(ctx context.Context) error {
	timer := time.NewTimer(longestTimer)
	defer timer.Stop()
	for {
		c.mu.Lock()
		wait := longestTimer
		if !c.again.IsZero() {
			now := c.desk.time()
			if !now.Before(c.again) {
				c.judge()
				now = c.desk.time()
			}
			if !c.again.IsZero() {
				wait = min(wait, max(time.Millisecond, c.again.Sub(now)))
			}
		}
		c.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-timer.C:
		}
	}
}
