package upstreams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// How often to ask an upstream for a first document while it has none to give, and how often to look whether one is
// needed.
const (
	fetchLeast = time.Second
	fetchMost  = 5 * time.Minute
	fetchLook  = 30 * time.Second
)

// Fetching brings documents into the licence folder from upstreams that can give one, where the folder has none that
// counts. All fields are required; the functions are safe for concurrent use.
type Fetching struct {
	Upstreams map[string]plugin.Upstream // by system
	Verdict   func() *enforcer.Verdict   // nil before the first
	Now       func() time.Time           // licence time
	Within    time.Duration              // for a whole call
	// Request makes the request for a system's document. It has the document to replace, if there is one.
	Request func(system string) *plugin.Request
	// Take verifies a fetched document of a system, and puts it into the folder.
	Take func(ctx context.Context, system string, document []byte) error
	Log  *slog.Logger
}

// Run fetches until ctx ends.
func (f *Fetching) Run(ctx context.Context) error {
	wait, said := fetchLeast, ""
	for {
		next := fetchLook
		for _, system := range slices.Sorted(maps.Keys(f.Upstreams)) {
			u, ok := f.Upstreams[system].(plugin.Fetcher)
			if !ok || !f.lacks(u) {
				continue
			}
			err := f.fetch(ctx, u)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				wait, said = fetchLeast, ""
				continue
			}
			next, wait = wait/2+rand.N(wait/2+1), min(2*wait, fetchMost)
			if said != err.Error() {
				said = err.Error()
				f.Log.Warn("no licence could be fetched; the agent tries again", "system", system, "why", err)
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// lacks reports whether no licence of an upstream's system is at hand that can be in force, now or after the upstream's
// next word.
func (f *Fetching) lacks(u plugin.Fetcher) bool {
	v, now := f.Verdict(), f.Now()
	again, _ := u.(plugin.Refetcher)
	return v == nil || !slices.ContainsFunc(v.Licenses, func(j enforcer.Judged) bool {
		l := j.License
		return l != nil && l.System == u.System() && j.Code != enforcer.Expired &&
			(again == nil || !again.Refetches(l) || !l.Ending(now))
	})
}

// fetch brings one document.
func (f *Fetching) fetch(ctx context.Context, u plugin.Fetcher) error {
	ctx, cancel := context.WithTimeout(ctx, f.Within)
	defer cancel()
	r, err := u.Fetch(ctx, f.Request(u.System()))
	if err != nil {
		var e *plugin.Error
		if errors.As(err, &e) && e.Hint != "" {
			return fmt.Errorf("%w; %s", err, e.Hint)
		}
		return err
	}
	if err := r.Check(f.Now()); err != nil {
		return err
	}
	return f.Take(ctx, u.System(), r.Document)
}
