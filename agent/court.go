package agent

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// longestTimer bounds a wait on the monotonic clock, which stops while the host is suspended.
const longestTimer = time.Minute

// court gathers the facts and has them judged: whenever a document, the host, the configuration or the time gives
// cause, and at no other time.
type court struct {
	desk    *desk.Desk
	catalog *catalog.Catalog
	path    string                  // license.path
	judged  func(*enforcer.Verdict) // told of each verdict, after it is in force
	// history is what is recorded of licences' first uses, emergencies and returns.
	history *history
	log     *slog.Logger
	reset   func(from, to time.Time) // told that a document has put the licence time back

	mu      sync.Mutex // guards all below; taken before desk.mu, never the other way round
	anchors []plugin.Anchor
	secrets plugin.Secrets    // what documents are opened with: those of the configuration and of the folder
	keys    []string          // the configuration's licence keys
	beside  map[string][]byte // the folder's licence keys, by their files' names
	reopen  bool              // the secrets have changed, and the watcher has not been told to check again
	facts   enforcer.Facts
	inline  []byte
	files   []file
	extra   []enforcer.Warning // the agent's own
	renewed []file             // documents that upstreams brought, see renewedFor
	// upstream is asked what is known of the licences' upstreams; nil: nobody knows anything.
	upstream func() map[enforcer.Ref]enforcer.Upstream
	// budgets is asked what may be handed out of site pools, and until when on the boot-time clock; nil: nobody has
	// any.
	budgets func() (map[enforcer.Share]enforcer.Limit, time.Duration)
	// draws is asked what was taken of site meters; it is there where budgets is.
	draws func() map[enforcer.Share]enforcer.Taken
	// shares is told of each verdict before it is in force, and says whether budgets has more to say since.
	shares  func(*enforcer.Verdict) bool
	cache   map[[32]byte]verified
	trusted int                 // counts the times that the anchors were replaced
	teller  string              // the system whose signed dates tell the time; empty: none
	toAsk   map[[32]byte][]byte // documents that a plugin is to be asked about
	again   time.Time           // when to judge again
	ready   bool                // files have been read once
	steps   int                 // how often the time had been set when it was judged last

	wake chan struct{} // capacity 1: again became sooner
	ask  chan struct{} // capacity 1: toAsk is not empty
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

// maxCache is how many documents' answers are remembered.
const maxCache = 1024

// known returns what is known of a document without asking a plugin. c.mu is held.
func (c *court) known(key [32]byte, data []byte) (verified, bool) {
	if v, ok := c.cache[key]; ok {
		return v, true
	}
	l, p, ok := c.catalog.VerifyQuickly(data, c.anchors, c.secrets)
	if !ok {
		return verified{}, false
	}
	return c.remember(key, verified{l, p}), true
}

// remember keeps an answer. When there are too many, those that can be had again at once go first. c.mu is held.
func (c *court) remember(key [32]byte, v verified) verified {
	if len(c.cache) >= maxCache {
		maps.DeleteFunc(c.cache, func(_ [32]byte, v verified) bool { return !c.fromPlugin(v) })
	}
	if c.cache == nil || len(c.cache) >= maxCache {
		c.cache = map[[32]byte]verified{}
	}
	c.cache[key] = v
	return v
}

// fromPlugin reports whether a plugin has found a document good: that stands while the plugin is away.
func (c *court) fromPlugin(v verified) bool {
	return v.problem == nil && v.license != nil && c.catalog.IsPlugin(v.license.System)
}

// verifyCached returns what is known of a document, and has a plugin asked where one must be: nobody waits for a plugin
// under c.mu, which is held.
func (c *court) verifyCached(data []byte) verified {
	key := sha256.Sum256(data)
	if v, ok := c.known(key, data); ok {
		return v
	}
	if c.toAsk == nil {
		c.toAsk = map[[32]byte][]byte{}
	}
	c.toAsk[key] = data
	select {
	case c.ask <- struct{}{}:
	default:
	}
	return verified{problem: &enforcer.Problem{Code: enforcer.Unavailable, Reason: "a plugin is being asked about it"}}
}

// verify has a document verified, by a plugin where it must be, and waits for that. c.mu is not held.
func (c *court) verify(data []byte) verified {
	key := sha256.Sum256(data)
	c.mu.Lock()
	v, ok := c.known(key, data)
	anchors, secrets, trusted := c.anchors, c.secrets, c.trusted
	c.mu.Unlock()
	if ok {
		return v
	}
	v.license, v.problem = c.catalog.Verify(data, anchors, secrets)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trusted == trusted {
		c.remember(key, v)
	}
	return v
}

// forgetUnsure forgets what no plugin could be asked about, and reports whether there was anything. c.mu is not held.
func (c *court) forgetUnsure() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.cache)
	maps.DeleteFunc(c.cache, func(_ [32]byte, v verified) bool {
		return v.problem != nil && v.problem.Code == enforcer.Unavailable
	})
	return len(c.cache) < before
}

// askPlugins asks about what judging has found not known, and judges again, until ctx ends.
func (c *court) askPlugins(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.ask:
		}
		c.mu.Lock()
		asked := c.toAsk
		c.toAsk = nil
		c.mu.Unlock()
		for _, data := range asked {
			c.verify(data)
		}
		c.change(func() {})
	}
}

// check tells the watcher whether a document is good, or a file of licence keys.
func (c *court) check(name string, data []byte) *enforcer.Problem {
	if c.isKey(name, data) {
		return c.checkKey(name, data)
	}
	return c.verify(data).problem.Of(name)
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
				d.Problem = v.problem.Of(f.name)
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
	at := c.desk.Sign(enforcer.Signed(c.facts.Documents, c.teller))
	now := at.Time
	c.facts.Clock, c.steps = at.Clock, at.Steps
	fence := c.fill(&c.facts, now)
	v := enforcer.Judge(c.facts, now)
	if issued := v.ClockReset(c.teller); !issued.IsZero() {
		if from, to, healed := c.desk.Heal(issued); healed {
			at = c.desk.Timing()
			now = at.Time
			c.facts.Clock, c.steps = at.Clock, at.Steps
			fence = c.fill(&c.facts, now)
			v = enforcer.Judge(c.facts, now)
			if c.reset != nil {
				c.reset(from, to)
			}
		}
	}
	uses := enforcer.FirstUses(c.facts, v, now, c.history.began())
	err := c.history.see(&c.facts, uses, now)
	if err == nil && len(uses) > 0 {
		c.history.fill(&c.facts, now)
		v = enforcer.Judge(c.facts, now)
	}
	if c.shares != nil && c.shares(v) {
		fence = c.fill(&c.facts, now)
		v = enforcer.Judge(c.facts, now)
	}
	v.Warnings = append(v.Warnings, c.extra...)
	c.again = v.JudgeAgainAt
	if err != nil {
		c.log.Error("a licence's first use could not be recorded, and does not count yet", "error", err)
		v.Warnings = append(v.Warnings, enforcer.Warning{Code: enforcer.WarnDocument,
			Detail: "a licence's first use could not be recorded, and does not count yet: " + err.Error()})
		if retry := now.Add(longestTimer); c.again.IsZero() || retry.Before(c.again) {
			c.again = retry
		}
	}
	c.desk.SetVerdict(v, fence)
	c.look()
	if c.judged != nil {
		c.judged(v)
	}
	return v
}

// moved reports whether the time was set since the last judgement, or the wall clock stands otherwise to it. c.mu is
// held.
func (c *court) moved(at desk.Reading) bool {
	return c.ready && (at.Steps != c.steps || (at.Behind-c.facts.Clock.Behind).Abs() >= time.Second)
}

// look has the clocks read now rather than when the next thing is due.
func (c *court) look() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// fill gathers what others know, and says until when it holds on the boot-time clock; zero: until it changes. c.mu is
// held.
func (c *court) fill(f *enforcer.Facts, now time.Time) (fence time.Duration) {
	if c.budgets != nil {
		f.Budgets, fence = c.budgets()
		f.Draws = c.draws()
	}
	if c.upstream != nil {
		f.Upstream = c.upstream()
		for _, d := range f.Documents { // what a former version knew, until the pulse has taken it over
			if d.License != nil && !d.License.IsTest() {
				_, _ = enforcer.Kept(f.Upstream, d.License)
			}
		}
	}
	c.history.fill(f, now)
	return fence
}

// renewedFor returns the documents that upstreams brought for licences that are among files: one counts for as long as
// an issue of its licence lies in the folder, so that what an operator takes out is gone. c.mu is held.
func (c *court) renewedFor(files []file) (out []file) {
	if len(c.renewed) == 0 {
		return nil
	}
	there := map[enforcer.Ref]bool{}
	for _, f := range files {
		if f.data != nil {
			if l := c.verifyCached(f.data).license; l != nil {
				there[l.Ref()] = true
			}
		}
	}
	for _, f := range c.renewed {
		if l := c.verifyCached(f.data).license; l != nil && there[l.Ref()] {
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
	facts := c.facts
	facts.Documents = c.documents(&f)
	now, clock := c.desk.Would(enforcer.Signed(facts.Documents, c.teller))
	facts.Clock = clock
	c.fill(&facts, now)
	v := enforcer.Judge(facts, now)
	uses := enforcer.FirstUses(facts, v, now, c.history.began())
	if len(uses) == 0 {
		return v
	}
	maps.Copy(facts.Seen, uses)
	return enforcer.Judge(facts, now)
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

// trust replaces the anchors. What was verified with the old ones is forgotten, but for what a plugin has verified with
// one that has not changed: the plugin may be away. c.mu is held.
func (c *court) trust(anchors []plugin.Anchor) {
	same := func(system, keyID string) bool {
		of := func(in []plugin.Anchor) int {
			return slices.IndexFunc(in, func(a plugin.Anchor) bool { return a.System == system && a.KeyID == keyID })
		}
		i, j := of(c.anchors), of(anchors)
		return i >= 0 && j >= 0 && reflect.DeepEqual(c.anchors[i], anchors[j])
	}
	maps.DeleteFunc(c.cache, func(_ [32]byte, v verified) bool {
		return !c.fromPlugin(v) || !same(v.license.System, v.license.KeyID)
	})
	c.anchors = anchors
	c.teller = catalog.TimeTeller(anchors)
	c.trusted++
}

// Run judges again when the verdict's time has come, until ctx ends.
func (c *court) Run(ctx context.Context) error {
	timer := time.NewTimer(longestTimer)
	defer timer.Stop()
	for {
		c.mu.Lock()
		wait := longestTimer
		at := c.desk.Timing()
		if !c.again.IsZero() && !at.Time.Before(c.again) || c.moved(at) {
			c.judge()
			at = c.desk.Timing()
		}
		if !c.again.IsZero() {
			wait = min(wait, max(time.Millisecond, c.again.Sub(at.Time)))
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
