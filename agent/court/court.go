// Package court gathers the facts and has [enforcer.Judge] judge them: whenever a document, the host, the
// configuration, a source of facts, or the time gives cause, and at no other time. It decides which documents are
// installed, which renew a licence, and when an emergency or a return may be recorded.
//
// [Verifier] says which bytes are a good document. [History] keeps what must not be forgotten of licences. [Court]
// judges until no [Source] has changed and puts the verdict in force once. Start reading at [Court.judge].
//
// The court's lock is taken before the desk's and the verifier's. It is not held while a disk, a plugin or an upstream
// is waited for: first uses, emergencies and returns are recorded without it, one at a time, and judged again.
package court

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// longestTimer bounds a wait on the monotonic clock, which stops while the host is suspended.
const longestTimer = time.Minute

// maxRounds bounds how often one change is judged because a source has changed. Each round of a correct source knows
// more than the one before, and there are few things to learn from one verdict.
const maxRounds = 8

// Desk is what the court needs of the place where the verdict is in force. Its methods wait for no disk.
type Desk interface {
	// Sign says with what date the latest document at hand is signed, and returns the licence time with it.
	Sign(signed time.Time) Time
	// Timing returns the licence time.
	Timing() Time
	// Would returns the licence time as it would be with that date.
	Would(signed time.Time) Time
	// Heal puts the licence time back to the issue of a document that says so. A document does so once.
	Heal(issued time.Time) (from, to time.Time, healed bool)
	// SetVerdict puts a verdict in force. Part of what it grants is over when the time since boot has reached fence;
	// zero: never.
	SetVerdict(v *enforcer.Verdict, fence time.Duration)
	// SetFence changes the fence of the verdict in force.
	SetFence(fence time.Duration)
	// Verdict returns the verdict in force; nil before the first.
	Verdict() *enforcer.Verdict
}

// Time is the licence time, what it comes from, and how often it has been set.
type Time struct {
	enforcer.Clock
	Now   time.Time
	Steps int
}

// Source is somebody whose knowledge counts with the judge. Its methods are called under the court's lock: they wait
// for nobody, and call neither the court nor the desk.
type Source interface {
	// Fill puts what the source knows into the facts, of which Documents is complete. It returns until when that holds,
	// since boot; zero: until it changes.
	Fill(f *enforcer.Facts, now time.Time) (fence time.Duration)
	// See shows the source a verdict on f before it is in force, and reports whether Fill has more to say since.
	// document returns the bytes of a document by its name, which are not to be changed.
	See(f *enforcer.Facts, v *enforcer.Verdict, document func(name string) []byte) (changed bool)
}

// Config is what a Court needs. All but those marked are required.
type Config struct {
	Desk     Desk
	Verifier *Verifier
	Folder   Folder
	History  *History
	Sources  []Source // optional
	// Facts is what the judge is told of the configuration and the host.
	Facts enforcer.Facts
	// Inline is a document from the configuration; empty: there is none.
	Inline []byte
	// Renewed are documents that upstreams brought and that could not be put into the folder. KeepRenewed keeps one
	// more, of a licence, over restarts.
	Renewed     []File
	KeepRenewed func(of enforcer.Ref, document []byte) error
	// InForce is told of each verdict when it is in force, under the court's lock: it waits for nobody. document is as
	// in [Source]. Optional.
	InForce func(v *enforcer.Verdict, f *enforcer.Facts, document func(name string) []byte)
	// ClockReset is told that a document has put the licence time back, under the court's lock. Optional.
	ClockReset func(from, to time.Time)
	Log        *slog.Logger // optional
}

// Court holds the facts and judges them. Make one with New. It is safe for concurrent use.
type Court struct {
	cfg     Config
	history *History
	again   chan struct{} // capacity 1: the time to judge again has changed
	rounds  atomic.Uint64 // of Run

	mu       sync.Mutex     // guards all below; see the package comment
	facts    enforcer.Facts // as they were judged last
	files    []File
	warnings []enforcer.Warning // of the folder
	others   []enforcer.Warning // of the configuration
	renewed  []File
	arrived  map[dated]time.Time // when documents that are dated ahead were first seen, by clock and mark
	ready    bool                // the folder has been read once
	judgeAt  time.Time           // when to judge again
	steps    int                 // how often the time had been set when it was judged last
	unsaid   bool                // a first use is still to be recorded: the last caller could not wait for that
}

// New returns a Court that judges from the first SetFolder on.
func New(c Config) *Court {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.InForce == nil {
		c.InForce = func(*enforcer.Verdict, *enforcer.Facts, func(string) []byte) {}
	}
	if c.ClockReset == nil {
		c.ClockReset = func(time.Time, time.Time) {}
	}
	c.Sources = append(slices.Clone(c.Sources), c.History)
	return &Court{cfg: c, history: c.History, again: make(chan struct{}, 1), facts: c.Facts,
		renewed: slices.Clone(c.Renewed)}
}

// History returns what is recorded of licences.
func (c *Court) History() *History { return c.history }

// judgement is a verdict that is not in force yet.
type judgement struct {
	*enforcer.Verdict
	at    time.Time     // the licence time that it was judged at
	fence time.Duration // see [Source.Fill]
}

// judge judges all the documents now, until no source has changed. c.mu is held.
func (c *Court) judge() judgement {
	timeTeller := c.cfg.Verifier.TimeTeller()
	c.facts.Documents = c.documents(nil)
	c.arrive(c.facts.Documents)
	signed, filled, fence := c.evidence(&c.facts)
	at := c.cfg.Desk.Sign(signed)
	for round := 1; ; round++ {
		c.facts.Clock, c.steps = at.Clock, at.Steps
		if round > 1 || at.Now.Sub(filled).Abs() >= time.Second { // the evidence makes it another time
			fence = c.fill(&c.facts, at.Now)
		}
		v := enforcer.Judge(c.facts, at.Now)
		if issued := v.ClockReset(timeTeller); !issued.IsZero() {
			if from, to, healed := c.cfg.Desk.Heal(issued); healed {
				c.cfg.ClockReset(from, to)
				at = c.cfg.Desk.Timing()
				continue // no source sees a verdict by a time that was false
			}
		}
		changed := false
		for _, s := range c.cfg.Sources {
			changed = s.See(&c.facts, v, c.document) || changed
		}
		if !changed || round == maxRounds {
			return judgement{v, at.Now, fence}
		}
	}
}

// evidence returns the latest date of the documents that is evidence of the time. It has filled the facts for the time
// without any, which it returns with what fill does. c.mu is held.
func (c *Court) evidence(f *enforcer.Facts) (signed, bare time.Time, fence time.Duration) {
	bare = c.cfg.Desk.Would(time.Time{}).Now
	fence = c.fill(f, bare)
	return enforcer.Evidence(*f, c.cfg.Verifier.TimeTeller(), func(signed time.Time) (time.Time, enforcer.Clock) {
		at := c.cfg.Desk.Would(signed)
		return at.Now, at.Clock
	}), bare, fence
}

// fill has every source fill its part in, and says until when that holds, since boot; zero: until it changes. c.mu is
// held.
func (c *Court) fill(f *enforcer.Facts, now time.Time) (fence time.Duration) {
	for _, s := range c.cfg.Sources {
		if until := s.Fill(f, now); until != 0 && (fence == 0 || until < fence) {
			fence = until
		}
	}
	return fence
}

// maxRecords bounds how often one change waits for first uses to be recorded. Others may change the facts meanwhile.
const maxRecords = 4

// settle has the facts judged and puts the verdict in force. Where a licence is used for the first time, that is
// recorded before, without c.mu, and then what counts is judged: others may have put verdicts in force meanwhile. c.mu
// is held.
func (c *Court) settle() {
	if !c.ready {
		return
	}
	for range maxRecords {
		j := c.judge()
		uses := c.history.unrecorded(&c.facts, j.Verdict, j.at)
		if uses == nil {
			c.putInForce(j, nil)
			return
		}
		c.mu.Unlock()
		err := c.history.record(uses)
		c.mu.Lock()
		if err != nil {
			c.putInForce(c.judge(), err)
			return
		}
	}
	c.putInForce(c.judge(), nil) // what is still to be recorded does not count
}

// settleAtOnce is settle for those who can wait for no disk: a first use counts later then. c.mu is held.
func (c *Court) settleAtOnce() {
	j := c.judge()
	c.putInForce(j, nil)
	if c.history.unrecorded(&c.facts, j.Verdict, j.at) != nil {
		c.unsaid = true
		ring(c.again)
	}
}

// putInForce puts a verdict in force. unrecorded is why first uses could not be recorded; nil: they are. c.mu is held.
func (c *Court) putInForce(j judgement, unrecorded error) {
	v := j.Verdict
	v.Warnings = slices.Concat(v.Warnings, c.warnings, c.others)
	c.judgeAt, c.unsaid = v.JudgeAgainAt, false
	if unrecorded != nil {
		c.cfg.Log.Error("a licence's first use could not be recorded, and does not count yet", "error", unrecorded)
		v.Warnings = append(v.Warnings, enforcer.Warning{Code: enforcer.WarnDocument,
			Detail: "a licence's first use could not be recorded, and does not count yet: " + unrecorded.Error()})
		if retry := j.at.Add(longestTimer); c.judgeAt.IsZero() || retry.Before(c.judgeAt) {
			c.judgeAt = retry
		}
	}
	c.cfg.Desk.SetVerdict(v, j.fence)
	c.Look()
	c.cfg.InForce(v, &c.facts, c.document)
}

// change changes the facts and has them judged. The verdict is in force when it returns.
func (c *Court) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.settle()
}

// Rejudge has the facts judged again: a source knows more.
func (c *Court) Rejudge() { c.change(func() {}) }

// Reshare has what may be handed out of site pools and meters counted again. The facts are judged where that has
// changed, and not where only the time has until which it holds. When it returns, nothing is handed out that is over.
// It waits for no disk.
func (c *Court) Reshare() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ready {
		return
	}
	now := c.facts
	fence := c.fill(&now, c.cfg.Desk.Timing().Now)
	if maps.Equal(now.Budgets, c.facts.Budgets) && maps.Equal(now.Kept, c.facts.Kept) &&
		maps.Equal(now.Draws, c.facts.Draws) && maps.Equal(now.SharesFailing, c.facts.SharesFailing) {
		c.cfg.Desk.SetFence(fence)
		return
	}
	c.settleAtOnce()
}

// Settings is what a reload replaces.
type Settings struct {
	Anchors []plugin.Anchor
	Keys    []string // licence keys
	// Facts is what the judge is told of the configuration. Products and Host stay as they are.
	Facts enforcer.Facts
}

// recheckWithin is how long a reload waits for the licence folder to be read again.
const recheckWithin = 2 * time.Second

// Reload puts the settings of a new configuration in force. It returns when the licence folder has been looked at with
// them, or does not answer.
func (c *Court) Reload(s Settings) {
	c.change(func() {
		c.cfg.Verifier.Trust(s.Anchors)
		c.cfg.Verifier.setConfigured(s.Keys)
		s.Facts.Products, s.Facts.Host, s.Facts.FolderFault = c.facts.Products, c.facts.Host, c.facts.FolderFault
		c.facts = s.Facts
	})
	c.cfg.Verifier.reopened()
	c.cfg.Folder.Recheck()
	ctx, cancel := context.WithTimeout(context.Background(), recheckWithin)
	defer cancel()
	if err := c.cfg.Folder.Sync(ctx); err != nil {
		c.cfg.Log.Warn("the licence folder does not answer; its documents are looked at again when it does")
	}
}

// Warn replaces the warnings that go with each verdict and are not of the licence folder.
func (c *Court) Warn(warnings []enforcer.Warning) {
	c.change(func() { c.others = warnings })
}

// SetHost replaces what is known of the host. fingerprint is what documents are opened with.
func (c *Court) SetHost(h enforcer.Host, fingerprint string) {
	c.change(func() {
		c.facts.Host = h
		c.cfg.Verifier.setFingerprint(fingerprint)
	})
	if c.cfg.Verifier.reopened() {
		c.cfg.Folder.Recheck()
	}
}

// AskPlugins asks plugins about the documents that judging has found not known, and judges again, until ctx ends. It
// returns nil.
func (c *Court) AskPlugins(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.cfg.Verifier.wanted:
		}
		c.cfg.Verifier.askPlugins()
		c.Rejudge()
	}
}

// RetryUnsure has the documents tried again that no plugin could be asked about. It reports whether there were any.
func (c *Court) RetryUnsure() bool {
	if !c.cfg.Verifier.forgetUnsure() {
		return false
	}
	c.cfg.Folder.Recheck()
	c.Rejudge()
	return true
}

// Run judges again when the verdict's time has come, until ctx ends. It returns nil.
func (c *Court) Run(ctx context.Context) error {
	timer := time.NewTimer(longestTimer)
	defer timer.Stop()
	for {
		timer.Reset(c.judgeDue())
		c.rounds.Add(1)
		select {
		case <-ctx.Done():
			return nil
		case <-c.again:
		case <-timer.C:
		}
	}
}

// Rounds returns how often Run has gone round: it does so when something is due, and after each Look.
func (c *Court) Rounds() uint64 { return c.rounds.Load() }

// judgeDue judges again where that is due, and returns how long to wait for more.
func (c *Court) judgeDue() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.cfg.Desk.Timing()
	if c.unsaid || !c.judgeAt.IsZero() && !at.Now.Before(c.judgeAt) || c.moved(at) {
		c.settle()
		at = c.cfg.Desk.Timing()
	}
	if c.judgeAt.IsZero() {
		return longestTimer
	}
	return min(longestTimer, max(time.Millisecond, c.judgeAt.Sub(at.Now)))
}

// moved reports whether the time was set since the last judgement, or the wall clock stands otherwise to it. c.mu is
// held.
func (c *Court) moved(at Time) bool {
	return c.ready && (at.Steps != c.steps || (at.Behind-c.facts.Clock.Behind).Abs() >= time.Second)
}

// Look has the clocks read now rather than when the next thing is due.
func (c *Court) Look() { ring(c.again) }

// ring wakes the receiver of a channel of capacity 1.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
