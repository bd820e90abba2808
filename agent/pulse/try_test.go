package pulse

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// A licence that is not here yet is tried without a trace of a failure; a success counts as its activation.
func TestTryANewLicence(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		l := Licence{&enforcer.License{ID: "L2", System: "fake", Issued: time.Now(),
			CheckIn: enforcer.Period{Every: time.Hour}}, []byte("new"), r.remote}
		r.remote.set(down)
		var e *plugin.Error
		if err := r.Try(t.Context(), l); !errors.As(err, &e) || e.Class != plugin.Transient {
			t.Errorf("%v", err)
		}
		if _, kept := r.Facts()["fake/L2"]; kept {
			t.Error("a licence that is not here has failed")
		}
		r.remote.set(func(c Call, q *plugin.Request) (*plugin.Reply, error) {
			if c != Activate || string(q.Document) != "new" || len(q.Nonce) == 0 {
				t.Errorf("%s of %s", c, q.Document)
			}
			return &plugin.Reply{State: []byte("chain")}, nil
		})
		if err := r.Try(t.Context(), l); err != nil {
			t.Error(err)
		}
		if f := r.Facts()["fake/L2"]; !f.Activated.Equal(time.Now()) || f.State != "ok" {
			t.Errorf("%+v", f)
		}
		r.remote.set(func(c Call, q *plugin.Request) (*plugin.Reply, error) {
			if c != CheckIn || string(q.State) != "chain" {
				t.Errorf("%s with %q", c, q.State)
			}
			return &plugin.Reply{}, nil
		})
		if err := r.Try(t.Context(), l); err != nil {
			t.Error(err)
		}
		free := Licence{&enforcer.License{ID: "L3", System: "fake"}, nil, r.remote}
		before := len(r.remote.seen())
		if err := r.Try(t.Context(), free); err != nil || len(r.remote.seen()) != before {
			t.Errorf("a licence without duties: %v", err)
		}
	})
}

// A licence that is here is tried by the same state: its failures count, unless nobody waits for the answer any more.
// While a call is under way there is no second one.
func TestTryALicenceAtHand(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		l := Licence{r.licence, []byte("doc"), r.remote}
		r.remote.set(down)
		if err := r.Try(t.Context(), l); err == nil || r.Facts()["fake/L1"].State != "retrying" {
			t.Errorf("%v, %+v", err, r.Facts()["fake/L1"])
		}
		r.remote.set(nil)
		if err := r.Try(t.Context(), l); err != nil || r.Facts()["fake/L1"].State != "ok" {
			t.Errorf("%v, %+v", err, r.Facts()["fake/L1"])
		}
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) { return nil, errHang })
		ctx, gone := context.WithCancel(t.Context())
		first := make(chan error)
		go func() { first <- r.Try(ctx, l) }()
		synctest.Wait()
		before := len(r.remote.seen())
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Try(impatient, l); err == nil || len(r.remote.seen()) != before {
			t.Errorf("a second call is made: %v", err)
		}
		second := make(chan error)
		go func() { second <- r.Try(t.Context(), l) }()
		synctest.Wait()
		r.remote.set(nil)
		gone()
		if err := <-second; err != nil {
			t.Errorf("when the first is over: %v", err)
		}
		if err := <-first; err == nil || r.Facts()["fake/L1"].State != "ok" {
			t.Errorf("%v, %+v", err, r.Facts()["fake/L1"])
		}
		r.pass(time.Hour)
		r.want(enforcer.Valid)
	})
}
