package keygen_test

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

// lossy is a transport that loses increments and answers.
type lossy struct {
	random *rand.Rand
}

var errLost = errors.New("lost on the way")

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.Path, "increment-usage") {
		return http.DefaultTransport.RoundTrip(r)
	}
	if l.random.IntN(3) == 0 {
		return nil, errLost
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && l.random.IntN(3) == 0 {
		res.Body.Close()
		return nil, errLost
	}
	return res, err
}

func (o *online) draw(n int64, state []byte, again bool) (*plugin.Drawn, error) {
	r := o.request()
	r.State = state
	return o.client.Draw(o.t.Context(),
		&plugin.Draw{Request: *r, Meter: keygen.MeterUses, N: n, Token: "t", Again: again})
}

func (o *online) used() (n int64) {
	o.Change("lic-1", func(l *keygentest.License) { n = l.Attributes.Uses })
	return n
}

// Each use is counted once even if answers are lost, until none are left.
func TestUses(t *testing.T) {
	o := open(t, func(l *keygentest.License) {
		l.Attributes.MaxUses, l.Attributes.Uses = new(int64(100)), 7
	}, keygen.Config{HTTP: &lossy{rand.New(rand.NewPCG(1, 2))}})
	var state []byte
	taken := int64(7)
	for i := range 30 {
		n := int64(i%3 + 1)
		for tries := 0; ; tries++ {
			got, err := o.draw(n, state, tries > 0)
			if err == nil {
				if err := got.Check(keygen.MeterUses, n); err != nil {
					t.Fatal(err)
				}
				state = got.State
				break
			}
			var e *plugin.Error
			if !errors.As(err, &e) || e.Class != plugin.Transient || tries > 50 {
				t.Fatalf("draw %d: %v", i, err)
			}
		}
		if taken += n; o.used() != taken {
			t.Fatalf("draw %d: %d are counted, want %d", i, o.used(), taken)
		}
	}
}

// If uses could be this agent's or another's, it takes them for its own, so that none counts twice. It cannot draw more
// uses than are left.
func TestUsesOfOthers(t *testing.T) {
	o := open(t, func(l *keygentest.License) { l.Attributes.MaxUses = new(int64(10)) }, keygen.Config{})
	got, err := o.draw(2, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	o.Change("lic-1", func(l *keygentest.License) { l.Attributes.Uses += 3 })
	if _, err := o.draw(3, got.State, true); err != nil || o.used() != 5 {
		t.Errorf("%d are counted, %v", o.used(), err)
	}
	if _, err := o.draw(3, got.State, false); err != nil || o.used() != 8 {
		t.Errorf("%d are counted, %v", o.used(), err)
	}
	_, err = o.draw(3, got.State, false)
	fault(t, err, plugin.SystemFull)
	if o.used() != 8 {
		t.Errorf("%d are counted", o.used())
	}
	_, err = o.client.Draw(t.Context(), &plugin.Draw{Request: *o.request(), Meter: "renders", N: 1, Token: "t"})
	fault(t, err, plugin.SystemNoPools)
}
