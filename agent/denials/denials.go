// Package denials gathers denied acquires for those who watch: the first of a kind is told at once, and how many more
// there were after a while. So a caller that is denied again and again floods nobody, and no acquire waits for whoever
// is told. Start reading at [Tally.Denied].
package denials

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Report says how often acquires were denied that are of one kind: of one pool, with one code, by one user.
type Report struct {
	Pool   string // that the last of them asked for
	Code   enforcer.DenialCode
	Detail string          // of the last of them
	By     enforcer.Caller // of the last of them
	Count  int64
	// Since is when the last report of the kind was made; zero: this is the first.
	Since time.Time
	// Others says that the denials are of several kinds, more than were told apart; only Count and Since are set.
	Others bool
}

// Config is what New needs.
type Config struct {
	Every time.Duration // for how long denials of a kind are gathered, after the first
	Most  int           // kinds that are told apart in that time: of all together there are 2 × Most + 1 reports in it
	Now   func() time.Time
	Tell  func(Report) // may wait: nobody else does
}

// Tally gathers denials. Its methods are safe for concurrent use.
type Tally struct {
	cfg  Config
	wake chan struct{} // capacity 1: there is a new kind

	mu     sync.Mutex // guards all below
	kinds  map[kind]*gathered
	others gathered
}

// kind tells denials apart. No text that a caller chooses is part of it.
type kind struct {
	pool  string
	code  enforcer.DenialCode
	user  enforcer.User
	pid   int32 // with start, of callers that are no user
	start uint64
}

// gathered is the denials of a kind since they were last told.
type gathered struct {
	report Report
	told   bool // the kind was told before
}

// New returns a tally of nothing.
func New(c Config) *Tally {
	return &Tally{cfg: c, wake: make(chan struct{}, 1), kinds: map[kind]*gathered{}}
}

// Denied takes note of a denial. It waits for nothing.
func (t *Tally) Denied(r *enforcer.Acquire, d *enforcer.Denial) {
	k := kind{code: d.Code, user: r.Caller.Who()}
	if d.Code != enforcer.PoolUnknown {
		k.pool = d.Pool
	}
	if r.Caller.UID == enforcer.Nobody && r.Caller.Credential == "" {
		k.pid, k.start = r.Caller.PID, r.Caller.Start
	}
	pool := cmp.Or(k.pool, r.Pool)
	if pool == "" && len(r.Items) > 0 {
		pool = r.Items[0].Pool
	}
	if len(pool) > enforcer.MaxName {
		pool = ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.kinds[k]
	switch {
	case g != nil:
	case len(t.kinds) >= t.cfg.Most:
		t.others.report.Count++
		return
	default:
		g = &gathered{}
		t.kinds[k] = g
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	n, since := g.report.Count+1, g.report.Since
	g.report = Report{Pool: pool, Code: d.Code, Detail: d.Detail, By: r.Caller, Count: n, Since: since}
}

// Run tells of denials until ctx ends, and then of those that are left.
func (t *Tally) Run(ctx context.Context) {
	timer := time.NewTimer(t.cfg.Every)
	defer timer.Stop()
	timer.Stop()
	for gathers := false; ; {
		select {
		case <-ctx.Done():
			t.tell(false, true)
			return
		case <-t.wake:
			if t.tell(true, false); !gathers {
				gathers = true
				timer.Reset(t.cfg.Every)
			}
		case <-timer.C:
			if gathers = t.tell(false, false); gathers {
				timer.Reset(t.cfg.Every)
			}
		}
	}
}

// tell makes reports: of kinds that are new alone, or of all; the kinds of which there was nothing more are forgotten
// then. It says whether any are left.
func (t *Tally) tell(fresh, last bool) (left bool) {
	now := t.cfg.Now()
	var out []Report
	t.mu.Lock()
	for k, g := range t.kinds {
		switch {
		case fresh && g.told:
		case g.report.Count > 0:
			out = append(out, g.report)
			g.told, g.report = true, Report{Since: now}
		default:
			delete(t.kinds, k)
		}
	}
	if others := &t.others.report; !fresh {
		if others.Count > 0 {
			out = append(out, Report{Count: others.Count, Since: others.Since, Others: true})
		}
		*others = Report{Since: now}
	} else if others.Since.IsZero() {
		others.Since = now
	}
	left = len(t.kinds) > 0
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Report) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Code, b.Code), cmp.Compare(a.By.UID, b.By.UID))
	})
	for _, r := range out {
		t.cfg.Tell(r)
	}
	return left && !last
}
