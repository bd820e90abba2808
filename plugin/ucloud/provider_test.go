package ucloud_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/ucloud"
)

// platform is a UCloud that takes a provider's updates. The older generation keeps them, the newer one only says that
// it has.
type platform struct {
	t     testing.TB
	older bool

	mu      sync.Mutex
	state   map[string]string // by licence
	boundTo map[string][]string
	said    []string // each item of control.update, in words
	status  int      // of the next update; 0: 200
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	answer := func(status int, text string, args ...any) {
		w.WriteHeader(status)
		fmt.Fprintf(w, text, args...)
	}
	id := r.URL.Query().Get("id")
	switch r.Method + " " + r.URL.Path {
	case "POST /auth/providers/refresh":
		if string(body) != `{"items":[{"refreshToken":"provider-refresh"}]}` || r.Header.Get("Authorization") != "" {
			p.t.Errorf("the refresh is %s, %v", body, r.Header)
		}
		answer(200, `{"responses":[{"accessToken":%q}]}`, token(p.t, "RS256",
			map[string]any{"sub": "#P_example", "role": "PROVIDER", "exp": noon.Add(time.Hour).Unix()}))
	case "GET /api/licenses/browse":
		answer(200, `{"itemsPerPage":250,"items":[%s],"next":null}`, resource("K", "7", "READY"))
	case "GET /api/licenses/control/retrieve":
		if p.state[id] == "" {
			answer(404, `{"why":"Not found"}`)
			return
		}
		list, _ := json.Marshal(p.boundTo[id]) // null where nothing is bound
		answer(200, `{"id":%q,"status":{"state":%q,"boundTo":%s}}`, id, p.state[id], list)
	case "POST /api/licenses/control/update":
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") || r.Header.Get("Project") != "" {
			p.t.Errorf("the update comes with %v", r.Header)
		}
		status := p.status
		if p.status = 0; status != 0 {
			answer(status, `{"why":"No"}`)
			return
		}
		answer(p.update(body))
	default:
		answer(404, "404 page not found")
	}
}

// update takes an update, strictly as the platform reads it.
func (p *platform) update(body []byte) (int, string) {
	var in struct {
		Items []struct {
			ID     string
			Update struct {
				Timestamp *int64
				State     *string
				Binding   *ucloud.Binding
			}
		}
	}
	if err := json.Unmarshal(body, &in); err != nil || len(in.Items) == 0 || len(in.Items) > 1000 {
		p.t.Errorf("%.300s: %v", body, err)
		return 400, `{"why":"Invalid request supplied"}`
	}
	for _, i := range in.Items {
		if p.state[i.ID] == "" {
			return 404, `{"why":"Not found or permission denied (` + i.ID + `)"}`
		}
	}
	for _, i := range in.Items {
		u := i.Update
		if u.Timestamp == nil || *u.Timestamp != noon.UnixMilli() {
			p.t.Errorf("a timestamp is none: %s", body)
		}
		if u.State != nil {
			p.said = append(p.said, i.ID+" "+*u.State)
			if p.older {
				p.state[i.ID] = *u.State
			}
		}
		if b := u.Binding; b != nil {
			p.said = append(p.said, i.ID+" "+b.Kind+" "+b.Job)
			switch {
			case !p.older:
			case b.Kind == ucloud.Bind:
				p.boundTo[i.ID] = append(p.boundTo[i.ID], b.Job)
			default:
				p.boundTo[i.ID] = slices.DeleteFunc(p.boundTo[i.ID], func(j string) bool { return j == b.Job })
			}
		}
	}
	return 200, "{}"
}

// took returns what was said since it was asked last.
func (p *platform) took() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.said, ", ")
	p.said = nil
	return out
}

// provided is a provider at a platform that has the licences 7 and 8.
type provided struct {
	*platform
	*ucloud.Provider
	kept []byte
}

func newProvided(t *testing.T, older bool) *provided {
	p := &platform{t: t, older: older, state: map[string]string{"7": "PREPARING", "8": "READY"},
		boundTo: map[string][]string{}}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	say := func(s string) func() (string, error) { return func() (string, error) { return s, nil } }
	c, err := ucloud.NewProvider(ucloud.Config{URL: s.URL, Token: say("uc1-secret"), Project: "p-1",
		Anchors: func() []plugin.Anchor { return anchors(t) }, Now: func() time.Time { return noon }},
		say("provider-refresh"))
	if err != nil {
		t.Fatal(err)
	}
	return &provided{platform: p, Provider: c}
}

// report reports a code and jobs of a document, and checks what the platform hears.
func (p *provided) report(doc []byte, code enforcer.Code, jobs []string, want string) {
	p.t.Helper()
	r := &plugin.Report{Document: doc, Code: code, State: p.kept}
	for _, j := range jobs {
		r.Leases = append(r.Leases, plugin.Bearer{Labels: map[string]string{"job": j}})
	}
	kept, err := p.Report(p.t.Context(), r)
	if got := p.took(); err != nil || got != want {
		p.t.Errorf("%s %v: the platform hears %q (%v), and should hear %q", code, jobs, got, err, want)
	}
	p.kept = kept
}

// What has changed is told, and nothing twice: bindings that are over, then new ones, then the state. A job that the
// platform has bound by itself is not bound again. Ids that are no numbers stay here.
func TestProviderTellsThePlatform(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{true, false} {
		p := newProvided(t, older)
		doc, other := companion(t, 2, nil), companion(t, 2, func(c *ucloud.Claims) { c.LicenseID = "8" })
		p.report(doc, enforcer.Valid, nil, "7 READY")
		p.report(doc, enforcer.Valid, []string{"41", "41", "a-b-c", "007", "42"}, "7 BIND 41, 7 BIND 42")
		p.report(doc, enforcer.Valid, []string{"41", "42"}, "")
		p.report(doc, enforcer.ValidInGrace, []string{"42", "43"}, "7 UNBIND 41, 7 BIND 43")
		p.report(doc, enforcer.Expired, []string{"42", "43"}, "7 UNAVAILABLE")
		p.report(doc, enforcer.NotYetValid, []string{"42", "43"}, "7 PREPARING")
		if older {
			p.boundTo["7"] = append(p.boundTo["7"], "50") // by the platform itself, as a job is created
			p.report(doc, enforcer.Valid, []string{"42", "50"}, "7 UNBIND 43, 7 READY")
		} else {
			p.report(doc, enforcer.Valid, []string{"42", "50"}, "7 UNBIND 43, 7 BIND 50, 7 READY")
		}
		p.report(other, enforcer.Valid, []string{"50"}, "7 UNBIND 42, 7 UNBIND 50, 7 UNAVAILABLE, 8 BIND 50, 8 READY")
		p.report(nil, enforcer.NotFound, nil, "8 UNBIND 50, 8 UNAVAILABLE")
		p.report(nil, enforcer.NotFound, nil, "")
		var many []string
		for i := range 2500 {
			many = append(many, fmt.Sprint(1000+i))
		}
		_, err := p.Report(t.Context(), &plugin.Report{Document: doc, Code: enforcer.Valid, State: []byte("lost"),
			Leases: func() (out []plugin.Bearer) {
				for _, j := range many {
					out = append(out, plugin.Bearer{Labels: map[string]string{"job": j}})
				}
				return out
			}()})
		if said := p.took(); err != nil || strings.Count(said, "BIND") != 2500 || !strings.HasSuffix(said, "7 READY") {
			t.Errorf("of many jobs the platform hears %.200s, %v", said, err)
		}
	}
}

// A platform that fails is an error, by which the agent reports again. A licence that is gone and held by nobody here
// has nothing to be told.
func TestProviderFailures(t *testing.T) {
	t.Parallel()
	p := newProvided(t, true)
	doc := companion(t, 2, nil)
	p.report(doc, enforcer.Valid, []string{"42"}, "7 BIND 42, 7 READY")
	for status, class := range map[int]plugin.Class{500: plugin.Transient, 429: plugin.Transient, 449: plugin.Transient,
		404: plugin.Misconfigured, 402: plugin.Refused} {
		p.platform.mu.Lock()
		p.status = status
		p.platform.mu.Unlock()
		_, err := p.Report(t.Context(), &plugin.Report{Document: doc, Code: enforcer.Valid, State: p.kept})
		var e *plugin.Error
		if !errors.As(err, &e) || e.Class != class {
			t.Errorf("%d: %v", status, err)
		}
	}
	p.report(doc, enforcer.Valid, nil, "7 UNBIND 42")
	forged := append([]byte("x"), doc...)
	if _, err := p.Report(t.Context(), &plugin.Report{Document: forged, Code: enforcer.Valid}); err == nil {
		t.Error("a document that does not verify is reported")
	}
	delete(p.state, "7")
	p.report(nil, enforcer.NotFound, nil, "")
}
