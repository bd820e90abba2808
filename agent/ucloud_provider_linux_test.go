package agent_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// ucloudCore is a UCloud with one licence, whose state and jobs its provider tells.
type ucloudCore struct {
	mu    sync.Mutex
	state string
	jobs  []string
	down  bool
}

func (c *ucloudCore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	jobs, _ := json.Marshal(c.jobs)
	item := fmt.Sprintf(`{"id":"7","specification":{"product":{"id":"abaqus","category":"abaqus",`+
		`"provider":"example"}},"status":{"state":%q,"boundTo":%s}}`, c.state, jobs)
	switch r.URL.Path {
	case "/api/licenses/browse":
		fmt.Fprintf(w, `{"itemsPerPage":250,"items":[%s],"next":null}`, item)
	case "/api/licenses/control/retrieve":
		fmt.Fprint(w, item)
	case "/api/licenses/control/update":
		if c.down {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		var in struct {
			Items []struct {
				Update struct {
					State   string
					Binding struct{ Kind, Job string }
				}
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil ||
			r.Header.Get("Authorization") != "Bearer uc2-provider" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		for _, i := range in.Items {
			switch b := i.Update.Binding; b.Kind {
			case "BIND":
				c.jobs = append(c.jobs, b.Job)
			case "UNBIND":
				c.jobs = slices.DeleteFunc(c.jobs, func(j string) bool { return j == b.Job })
			}
			if s := i.Update.State; s != "" {
				c.state = s
			}
		}
		fmt.Fprint(w, "{}")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (c *ucloudCore) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// becomes waits until the platform knows a state and jobs.
func (c *ucloudCore) becomes(t *testing.T, state string, jobs ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(5 * time.Millisecond) {
		c.mu.Lock()
		got := fmt.Sprint(c.state, c.jobs)
		c.mu.Unlock()
		if got == fmt.Sprint(state, jobs) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the platform knows %s, and not %s %v", got, state, jobs)
		}
	}
}

// An agent with a provider's token makes a UCloud's licence ready, and tells which jobs hold its slots, whoever has
// taken them, over outages of the platform and starts of the agent. A licence that ends is told so, and its renewal
// makes it ready again: the agent takes none of its own words for the platform's.
func TestUCloudIsTold(t *testing.T) {
	t.Parallel()
	core := &ucloudCore{state: "PREPARING"}
	server := httptest.NewServer(core)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	for name, text := range map[string]string{"user": "uc1-user", "provider": "uc2-provider"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, v := ucloudHouse(t, fmt.Sprintf("upstream: {ucloud: {url: %q, token_file: %s/user, provider_token_file: "+
		"%s/provider}}\n", server.URL, dir, dir))
	h.drop("a.lic", v.sign("a", 4, 0))
	core.becomes(t, "READY")
	h.until("ready", inForce("a"))
	take := func(job string) wire.Lease {
		t.Helper()
		l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "abaqus", Lifetime: "held",
			Labels: map[string]string{"job": job}})
		if err != nil {
			t.Fatal(err)
		}
		return *l
	}
	one := take("41")
	core.becomes(t, "READY", "41")
	preview, err := h.UpstreamPreview(t.Context())
	if err != nil || !slices.ContainsFunc(preview, func(r wire.UpstreamRequest) bool {
		return r.Report != nil && r.License == "a" && fmt.Sprint(*r.Report) == "{VALID job [41]}"
	}) {
		t.Errorf("the preview of what leaves the host is %+v, %v", preview, err)
	}
	core.set(func() { core.down = true })
	take("42")
	take("no-number")
	if err := h.Release(t.Context(), one.ID, false); err != nil {
		t.Fatal(err)
	}
	h.stop() // what the platform has not heard yet is told by the next agent
	core.set(func() { core.down = false })
	h.start()
	core.becomes(t, "READY", "42")

	h.drop("a.lic", v.sign("b", 4, 2*time.Second))
	h.until("ended", code("EXPIRED"))
	core.becomes(t, "UNAVAILABLE", "42")
	if err := h.UpstreamCall(t.Context()); err != nil {
		t.Log(err) // the platform repeats what it was told
	}
	h.drop("a.lic", v.sign("c", 4, 0))
	core.becomes(t, "READY", "42")
	h.until("renewed", inForce("c"))
	take("43")
	core.becomes(t, "READY", "42", "43")
}
