package online_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// draw takes draws, and goes on from the state that the answer brought.
func (s *several) draw(token string, again bool) error {
	r := s.request()
	r.State = s.drawn
	got, err := s.Draw(s.t.Context(), &plugin.Draw{Request: r, Meter: "pages", N: 2, Token: token, Again: again,
		Period: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)})
	if err == nil {
		err, s.drawn = got.Check("pages", 2), got.State
	}
	return err
}

// A draw goes to the server that the agent asks, names the draw before, and shows the licence to a server that has
// answered none yet; where that one is dead or away, another is asked for the same.
func TestSeveralDraw(t *testing.T) {
	for name, fails := range map[string]func(*siteServer){
		"it is dead": func(x *siteServer) { x.is(true, nil) },
		"it is away": func(x *siteServer) { x.is(false, away) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openSeveral(t)
			if err := errors.Join(s.draw("1", false), s.draw("2", false)); err != nil {
				t.Fatal(err)
			}
			if got := s.a.last(); got.Draw == nil || got.Draw.After != "1" || got.Draw.Token != "2" ||
				*got.Draw.Period != 1772323200 || got.Chain == "" || s.b.last().Call != "" {
				t.Errorf("the first was asked for %+v", got)
			}
			fails(s.a)
			if err := s.draw("3", false); err != nil {
				t.Fatal(err)
			}
			if got := s.b.last(); got.Draw == nil || got.Draw.Token != "3" || got.Draw.After != "2" || got.Chain != "" {
				t.Errorf("the other was asked for %+v", got)
			}
		})
	}
}

// A server's no to a draw that an earlier one may have taken does not have the agent forget it: it asks again with the
// same token. That all are taken is an answer to any.
func TestSeveralOpenDraw(t *testing.T) {
	no := &online.Refusal{System: "UNKNOWN_LICENSE", Reason: "x"}
	full := &online.Refusal{System: plugin.SystemFull, Reason: "x"}
	for name, c := range map[string]struct {
		dead, again bool
		refuses     *online.Refusal
		class       plugin.Class
	}{
		"at first":                 {refuses: no, class: plugin.Misconfigured},
		"after one that is dead":   {dead: true, refuses: no, class: plugin.Transient},
		"asked again":              {again: true, refuses: no, class: plugin.Transient},
		"all are taken":            {refuses: full, class: plugin.Misconfigured},
		"all are taken, once more": {again: true, refuses: full, class: plugin.Misconfigured},
		"the period":               {refuses: &online.Refusal{System: "OTHER_PERIOD"}, class: plugin.Transient},
	} {
		s := openSeveral(t)
		s.a.is(c.dead, c.refuses)
		s.b.is(false, c.refuses)
		var e *plugin.Error
		if err := s.draw("1", c.again); !errors.As(err, &e) || e.Class != c.class || e.SystemCode != c.refuses.System {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An agent that has lost its state hears which draw was its last, and asks once more.
func TestDrawAfterTheLast(t *testing.T) {
	s := openSeveral(t)
	s.a.is(false, &online.Refusal{System: online.SystemOrder, Reason: "x", Last: "z"})
	var e *plugin.Error
	if err := s.draw("1", false); !errors.As(err, &e) || e.Class != plugin.Transient {
		t.Errorf("%v", err)
	}
	if got := s.a.last(); got.Draw == nil || got.Draw.After != "z" || got.Draw.Token != "1" {
		t.Errorf("it was asked for %+v", got)
	}
}

// A server of a former version answers that it knows no such call: the error has a code, says the mend, and leaves open
// whether an earlier server has taken the draws.
func TestDrawOfAFormerServer(t *testing.T) {
	side := newSide(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]any{"detail": "the request names no call or no licence"})
	}))
	defer srv.Close()
	for again, class := range map[bool]plugin.Class{false: plugin.Misconfigured, true: plugin.Transient} {
		_, err := online.NewSite(side.client(t, srv.URL, nil)).Draw(t.Context(), &plugin.Draw{
			Request: plugin.Request{LicenseID: "L1", Product: "acme", Nonce: nonce}, Meter: "pages", N: 1, Token: "1",
			Again: again})
		var e *plugin.Error
		if !errors.As(err, &e) || e.Class != class || e.SystemCode != plugin.SystemNoDraws ||
			!strings.Contains(e.Hint, "fleet.endpoints") {
			t.Errorf("again %t: %+v", again, e)
		}
	}
}
