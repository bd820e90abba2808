package plugintest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	strict "github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// toy is a dialect in which a PUT of {"name": …} takes a seat, with at most one fault.
type toy struct{ fault string }

func (toy) System() string     { return "toy" }
func (toy) Credential() string { return "a word" }

func (y toy) Handler(d plugin.Desk) http.Handler {
	return &toyHandler{y, d, map[string]enforcer.LeaseID{}}
}

type toyHandler struct {
	toy
	desk  plugin.Desk
	known map[string]enforcer.LeaseID // the fault "forgets" keeps here what belongs on the lease
}

func (h *toyHandler) refuse(w http.ResponseWriter, status int, why string) {
	if h.fault == "plain" {
		http.Error(w, why, status)
		return
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"why": why})
}

func (h *toyHandler) find(c enforcer.Caller, name string) (enforcer.LeaseID, bool) {
	if h.fault == "forgets" {
		id, ok := h.known[name]
		return id, ok
	}
	if h.fault == "everybody" {
		c = enforcer.Caller{UID: 1000}
	}
	leases := h.desk.Leases(c)
	i := slices.IndexFunc(leases, func(l *enforcer.Lease) bool { return string(l.Data.Bytes) == name })
	if i < 0 {
		return enforcer.LeaseID{}, false
	}
	return leases[i].ID, true
}

func (h *toyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch h.fault {
	case "slow":
		<-time.After(20 * time.Second)
	case "hangs":
		<-time.After(time.Hour)
		panic("nobody waits any more")
	}
	c, ok := h.desk.Caller(r)
	if !ok && h.fault != "open" {
		h.refuse(w, http.StatusUnauthorized, "say the word")
		return
	}
	if h.fault == "everybody" {
		c = enforcer.Caller{UID: 1000}
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch r.Method {
	case http.MethodPut:
		h.put(w, r, c)
	case http.MethodGet:
		if name == "license" && h.fault != "reads nothing" {
			if !h.desk.Verdict().Good() && h.fault != "reads anything" {
				h.refuse(w, http.StatusNotFound, "no licence")
			}
			return
		}
		if _, ok := h.find(c, name); !ok {
			h.refuse(w, http.StatusNotFound, "not there")
		}
	case http.MethodDelete:
		id, ok := h.find(c, name)
		switch {
		case !ok:
			h.refuse(w, http.StatusNotFound, "not there")
		case h.fault == "keeps":
		default:
			if d := h.desk.Release(&enforcer.Release{ID: id, Caller: c}); d != nil {
				h.refuse(w, http.StatusConflict, string(d.Code))
			}
		}
	}
}

func (h *toyHandler) put(w http.ResponseWriter, r *http.Request, c enforcer.Caller) {
	var in struct{ Name string }
	read := func(b []byte, to any) error { return strict.Unmarshal(b, to) }
	if h.fault == "lenient" {
		read = json.Unmarshal
	}
	if b, err := io.ReadAll(r.Body); h.fault != "careless" && err != nil || read(b, &in) != nil || in.Name == "" {
		if h.fault == "panics" {
			panic("bad body")
		}
		if h.fault == "half done" {
			h.desk.Store().Apply(plugin.Change{Key: "refused", Value: []byte{1}})
		}
		if h.fault == "fails" {
			h.refuse(w, http.StatusInternalServerError, "it fails")
			return
		}
		if h.fault != "careless" {
			h.refuse(w, http.StatusBadRequest, "give a name")
			return
		}
	}
	l, _, d := h.desk.Acquire(r.Context(),
		&enforcer.Acquire{Pool: "seats", N: 1, Lifetime: enforcer.LifetimeHeld, Caller: c}, []byte(in.Name))
	switch {
	case d == nil:
		h.known[in.Name] = l.ID
		if h.fault == "echoes" {
			w.Header().Set("X-Name", in.Name)
		}
		if h.fault == "writes by hand" {
			fmt.Fprintf(w, `{"name":"%s"}`, in.Name)
		}
	case h.fault == "generous":
	case h.fault == "vague":
		h.refuse(w, http.StatusConflict, "no")
	default:
		h.refuse(w, http.StatusConflict, string(d.Code))
	}
}

func toySamples() plugintest.DialectSamples {
	return plugintest.DialectSamples{
		License: &enforcer.License{ID: "a", System: "toy", Product: "acme", Role: enforcer.RoleBase, KeyID: "k",
			Issued: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC),
			Pools:  map[string]enforcer.PoolTerm{"seats": {Max: 2, Scope: enforcer.ScopeHost}}},
		Pool: "seats", Slots: 2, NoSlots: "no_slots",
		Take: func(i int) *http.Request {
			return httptest.NewRequest("PUT", "/", strings.NewReader(fmt.Sprintf(`{"Name":"n%d"}`, i)))
		},
		Give: func(i int, _ *httptest.ResponseRecorder) *http.Request {
			return httptest.NewRequest("DELETE", fmt.Sprintf("/n%d", i), http.NoBody)
		},
		Held: func(i int, _ *httptest.ResponseRecorder) *http.Request {
			return httptest.NewRequest("GET", fmt.Sprintf("/n%d", i), http.NoBody)
		},
		Send: func(body io.Reader) *http.Request { return httptest.NewRequest("PUT", "/", body) },
		Calls: []plugintest.DialectCall{{Name: "PUT", Required: []string{"Name"},
			Body: func(plugintest.Sender) string { return `{"Name":"n"}` },
			Send: func(body io.Reader) *http.Request { return httptest.NewRequest("PUT", "/", body) }}},
		Reads: []string{"/license"},
		Refusal: func(w *httptest.ResponseRecorder) error {
			var out struct{ Why string }
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
				return err
			}
			if out.Why == "" {
				return errors.New("it does not say why")
			}
			return nil
		},
	}
}

// The suite passes a good dialect, and catches each fault of a bad one by what it says.
func TestDialects(t *testing.T) {
	plugintest.Dialect(t, toy{}, toySamples())
	for fault, says := range map[string]string{
		"generous":  "at the limit: the answer is 200, not a refusal",
		"vague":     `does not say "no_slots"`,
		"plain":     "has not the system's form",
		"keeps":     "after a slot was given back: 2 slots",
		"everybody": "after another caller's release: 0 slots",
		"forgets":   "after a restart: slot 1 held: false",
		"open":      "a caller without a credential has a slot",
		"careless":  "is answered 200",
		"panics":    "bodies: it panics",

		"lenient":        "Name is there twice: it is answered 200 and should be refused",
		"half done":      "Name is missing: it is refused, and yet changes something",
		"fails":          "Name is null: the answer is 500",
		"echoes":         "the header X-Name is",
		"writes by hand": "its body has control characters",
	} {
		if err := errors.Join(plugintest.CheckDialect(toy{fault}, toySamples())...); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%s: the suite says %v, and nothing of %q", fault, err, says)
		}
	}
}

// The suite tries a dialect whose API takes no slots by what it tells of the licence.
func TestDialectsWithoutSlots(t *testing.T) {
	s := toySamples()
	s.Take, s.Give, s.Held = nil, nil, nil
	s.Read = func() *http.Request { return httptest.NewRequest("GET", "/license", http.NoBody) }
	plugintest.Dialect(t, toy{"reader"}, s)
	for fault, says := range map[string]string{
		"reads anything": "no licence: there is no licence: the answer is 200",
		"reads nothing":  "the licence cannot be read",
		"open":           "nobody vouches",
	} {
		if err := errors.Join(plugintest.CheckDialect(toy{fault}, s)...); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%s: the suite says %v, and nothing of %q", fault, err, says)
		}
	}
}

// With Check the desk's folder is judged: what does not verify is refused, and Would tells before what will become of a
// document.
func TestDeskDocuments(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	d := plugintest.NewDesk("toy", now)
	d.Sender.Admin = true
	d.Check = func(doc []byte) (*enforcer.License, *enforcer.Problem) {
		l := toySamples().License
		if l.ID = string(doc); l.ID == "bad" {
			return nil, &enforcer.Problem{Code: enforcer.BadSignature, Reason: "it is bad"}
		}
		if l.ID == "old" {
			l.Expires = now.Add(-time.Hour)
		}
		return l, nil
	}
	for doc, code := range map[string]enforcer.Code{"good": enforcer.Valid, "old": enforcer.Expired,
		"bad": enforcer.BadSignature} {
		if j := d.Would([]byte(doc), "x"); j.Code != code || d.Verdict().Code != enforcer.NotFound {
			t.Errorf("%s would be %s", doc, j.Code)
		}
	}
	if denial := d.Install(t.Context(), *d.Sender, []byte("bad"), ""); denial == nil || len(d.Documents) > 0 {
		t.Error("a bad document is installed")
	}
	if denial := d.Install(t.Context(), *d.Sender, []byte("good"), "x"); denial != nil ||
		d.Verdict().Code != enforcer.Valid {
		t.Errorf("%v, %s", denial, d.Verdict().Code)
	}
	if denial := d.Remove(t.Context(), *d.Sender, "x"); denial != nil || d.Verdict().Code != enforcer.NotFound {
		t.Errorf("%v, %s", denial, d.Verdict().Code)
	}
}

// The desk keeps what it has acknowledged, and its store keeps its promises.
func TestDesk(t *testing.T) {
	d := plugintest.NewDesk("toy", time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), toySamples().License)
	s := d.Store()
	if err := s.Apply(plugin.Change{Key: "a", Value: []byte("1"), If: true},
		plugin.Change{Key: "b", Value: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(plugin.Change{Key: "c", Value: []byte("3")},
		plugin.Change{Key: "a", If: true}); !errors.Is(err, plugin.ErrConflict) || d.Stored() != 2 {
		t.Errorf("a change that must not hold: %v, %d keys", err, d.Stored())
	}
	d.DieAt = plugintest.StepAcquired
	func() {
		defer func() {
			if r := recover(); r != (plugintest.Died{At: plugintest.StepAcquired}) {
				t.Errorf("the agent died of %v", r)
			}
		}()
		d.Acquire(t.Context(),
			&enforcer.Acquire{Pool: "seats", N: 1, Lifetime: enforcer.LifetimeHeld, Caller: *d.Sender}, nil)
	}()
	d.Restart()
	if n := d.InUse("seats"); n != 1 || len(d.Leases(*d.Sender)) != 1 {
		t.Errorf("after the crash %d seats are in use", n)
	}
}

// An answer may take its time, however many there are in a check; one that does not come is a fault.
func TestSlowDialects(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		plugintest.Dialect(t, toy{"slow"}, toySamples())
		all := plugintest.CheckDialect(toy{"hangs"}, toySamples())
		if err := errors.Join(all...); err == nil || !strings.Contains(err.Error(), "limit: it hangs") {
			t.Errorf("of a dialect that hangs the suite says %v", err)
		}
		<-time.After(time.Hour)
	})
}
