package upstreams

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// fetcher is an upstream that gives its system's name as a document.
type fetcher struct {
	plugin.Upstream
	system string
}

func (f fetcher) System() string { return f.system }

func (f fetcher) Fetch(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return &plugin.Reply{Document: []byte(f.system)}, nil
}

// refetcher wants ending licences fetched again, or does not.
type refetcher struct {
	fetcher
	wants bool
}

func (r refetcher) Refetches(*enforcer.License) bool { return r.wants }

// Each system decides for itself. Of several ending licences, only the one whose own upstream wants it is fetched
// again. One that has ended is fetched, and so is one that is missing.
func TestFetchAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		now := time.Now()
		judged := func(system string, code enforcer.Code) enforcer.Judged {
			return enforcer.Judged{Code: code, License: &enforcer.License{System: system, Issued: now.Add(-time.Hour),
				Expires: now.Add(time.Minute)}}
		}
		v := &enforcer.Verdict{Licenses: []enforcer.Judged{judged("keeps", enforcer.Valid),
			judged("renews", enforcer.Valid),
			judged("stays", enforcer.Valid), judged("ended", enforcer.Expired)}}
		var taken []string
		f := &Fetching{
			Upstreams: map[string]plugin.Upstream{"keeps": fetcher{system: "keeps"},
				"renews": refetcher{fetcher{system: "renews"}, true},
				"stays":  refetcher{fetcher{system: "stays"}, false},
				"ended":  fetcher{system: "ended"}, "missing": fetcher{system: "missing"}},
			Verdict: func() *enforcer.Verdict { return v },
			Now:     time.Now,
			Within:  time.Second,
			Request: func(system string) *plugin.Request { return &plugin.Request{System: system} },
			Take: func(_ context.Context, system string, document []byte) error {
				if string(document) != system {
					t.Errorf("%s brought %s", system, document)
				}
				taken = append(taken, system)
				return nil
			},
			Log: slog.New(slog.DiscardHandler),
		}
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		synctest.Wait()
		if want := []string{"ended", "missing", "renews"}; !slices.Equal(taken, want) {
			t.Errorf("fetched for %v, want %v", taken, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
