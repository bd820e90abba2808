package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
)

// elasticHouse makes a house whose agent trusts a key of Elastic's.
func elasticHouse(t *testing.T, more string) (*house, elastictest.Signer) {
	t.Helper()
	s := elastictest.Shared()
	key := filepath.Join(t.TempDir(), "public.key")
	if err := os.WriteFile(key, s.DER(), 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, fmt.Sprintf("    - {system: elastic, kid: ece, key_file: %s}\n%s", key, more),
		"USHER_PRODUCT=elastic"), s
}

const platformPath = "/api/v1/regions/ece-region/platform/license"

// platformAnswer is an answer of ECE's API.
type platformAnswer struct {
	License struct {
		UID string `json:"uid"`
	} `json:"license"`
	Usage struct {
		Memory int64 `json:"total_connected_memory_total"`
	} `json:"usage_stats"`
	Errors []struct {
		Code   string
		Fields []string
	}
}

// platform sends a request of ECE's API, which must be answered with a status.
func (c *caller) platform(status int, method string, body []byte) (out platformAnswer) {
	c.t.Helper()
	res, b := c.send(method, platformPath, body)
	if err := json.Unmarshal(b, &out); err != nil || res.StatusCode != status {
		c.t.Fatalf("%s: %s %s", method, res.Status, b)
	}
	return out
}

// sayUnits checks that all who tell of the pool tell the same.
func (h *house) sayUnits(limit, inUse int64) {
	h.t.Helper()
	p, err := h.Pool(context.Background(), "resource_units")
	if err != nil || p.Limit == nil || *p.Limit != limit || p.InUse != inUse {
		h.t.Errorf("the pool is %+v (%v), and not %d of %d", p, err, inUse, limit)
	}
	m, err := h.Metrics(context.Background())
	for _, line := range []string{fmt.Sprintf(`usher_slots_limit{pool="resource_units"} %d`, limit),
		fmt.Sprintf(`usher_slots_in_use{pool="resource_units"} %d`, inUse)} {
		if err != nil || !strings.Contains(string(m), line+"\n") {
			h.t.Errorf("the metrics do not say %s (%v)", line, err)
		}
	}
}

// mover is a platform's product that has moved to an agent: it knows ECE's API, and takes units by the local one.
type mover struct {
	*toyProcess
	signer elastictest.Signer
	ece    *caller
	taken  []*wire.Lease
}

// newMover starts an agent in a process of its own, with a licence for three units.
func newMover(t *testing.T) *mover {
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, s := elasticHouse(t, fmt.Sprintf("listeners:\n  - {address: \"unix:%s/e\", dialect: elastic}\n", dir))
	h.drop("first.json", s.Orchestration(elastictest.License{UID: "first", Units: 3}))
	h.until("dropped", inForce("first"))
	h.stop()
	h.config = strings.Replace(h.config, "product: acme", "product: elastic", 1)
	if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &mover{toyProcess: &toyProcess{house: h}, signer: s, ece: callerOf(t, "unix:"+dir+"/e")}
	m.run()
	t.Cleanup(m.kill)
	return m
}

func (m *mover) put(l elastictest.License) { m.ece.platform(200, "PUT", m.signer.Orchestration(l)) }

func (m *mover) take() (*wire.Lease, error) {
	return m.Acquire(context.Background(), wire.AcquireRequest{Pool: "resource_units", Lifetime: "held"})
}

// refused checks that one more unit is refused.
func (m *mover) refused(code string) {
	m.t.Helper()
	var e *client.Error
	if l, err := m.take(); !errors.As(err, &e) || e.Code != code {
		m.t.Fatalf("one too many: %+v, %v", l, err)
	}
}

// fill takes units up to the limit.
func (m *mover) fill(n int) {
	m.t.Helper()
	for len(m.taken) < n {
		l, err := m.take()
		if err != nil {
			m.t.Fatal(err)
		}
		m.taken = append(m.taken, l)
	}
	m.refused("no_slots")
}

// show checks that all who tell of the licence and its units tell the same.
func (m *mover) show(uid string, limit, inUse int64) {
	m.t.Helper()
	if a := m.ece.platform(200, "GET", nil); a.License.UID != uid || a.Usage.Memory != inUse*65536 {
		m.t.Errorf("the platform says %+v, and not %s with %d units", a, uid, inUse)
	}
	m.sayUnits(limit, inUse)
	m.statusSays("valid", "VALID", "resource_units", inUse, limit)
}

// A platform's product moves to an agent: its licence is put, shown and swapped by ECE's own API and refused in its
// words, slots are taken to the limit and given back, all outlasts a kill of the agent, and everybody tells the same of
// the end.
func TestElasticProductMoves(t *testing.T) {
	t.Parallel()
	m := newMover(t)
	m.fill(3)
	m.show("first", 3, 3)
	m.kill()
	m.run()
	m.show("first", 3, 3)
	m.refused("no_slots")

	// A swap for more, one for less, and what is refused in between.
	m.put(elastictest.License{UID: "more", Units: 5})
	m.fill(5)
	m.show("more", 5, 5)
	forged := strings.Replace(string(m.signer.Orchestration(elastictest.License{UID: "more", Units: 5})), `:5,`, `:9,`,
		1)
	if a := m.ece.platform(400, "PUT", []byte(forged)); a.Errors[0].Code != "license.invalid_license" ||
		a.Errors[0].Fields[0] != "body.license.signature" {
		t.Errorf("%+v", a)
	}
	m.put(elastictest.License{UID: "less", Units: 1, Issued: time.Now().Add(-2 * time.Hour)})
	m.show("less", 1, 5)
	m.refused("no_slots")
	for _, l := range m.taken[1:] {
		if err := m.Release(t.Context(), l.ID, false); err != nil {
			t.Error(err)
		}
	}
	m.show("less", 1, 1)
	m.end()
}

// end has the licence end, and checks that everybody says so.
func (m *mover) end() {
	m.t.Helper()
	for life := time.Second; ; life *= 2 { // where the host is slow, it has ended before it is put
		doc := m.signer.Orchestration(elastictest.License{UID: "ending", Units: 2, Expires: time.Now().Add(life)})
		if res, _ := m.ece.send("PUT", platformPath, doc); res.StatusCode == 200 {
			break
		}
		if life > time.Minute {
			m.t.Fatal("no licence that ends can be put")
		}
	}
	m.until("ended", code("EXPIRED"))
	if a := m.ece.platform(200, "GET", nil); a.License.UID != "ending" || a.Usage.Memory != 65536 {
		m.t.Errorf("after the end the platform says %+v", a)
	}
	m.refused("license_expired")
	b, err := m.Metrics(context.Background())
	if err != nil || !strings.Contains(string(b), `usher_license_state{state="expired"} 1`) {
		m.t.Errorf("the metrics do not say that it has ended: %v", err)
	}
	if err := m.Release(context.Background(), m.taken[0].ID, false); err != nil {
		m.t.Errorf("after the end: %v", err)
	}
	m.ece.platform(200, "DELETE", nil)
	m.ece.platform(404, "GET", nil)
	m.until("removed", code("NOT_FOUND"))
}

// An agent fetches the licence of its platform, follows it to one of another id, and keeps it through an outage.
func TestElasticFollowsThePlatform(t *testing.T) {
	t.Parallel()
	platform := &elastictest.Platform{Authorization: "ApiKey k3y"}
	server := httptest.NewServer(platform)
	t.Cleanup(server.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("k3y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := elastictest.Shared()
	platform.Put(s.Orchestration(elastictest.License{UID: "one", Units: 1}))
	h, _ := elasticHouse(t, fmt.Sprintf("upstream: {elastic: {url: %q, secret_file: %s}}\n", server.URL, secret))
	h.until("fetched", inForce("one"))

	platform.Put(s.Orchestration(elastictest.License{UID: "two", Units: 2, Issued: time.Now().Add(-time.Minute)}))
	if err := h.UpstreamCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.until("followed", inForce("two"))

	platform.Answer(http.StatusServiceUnavailable)
	calls := len(platform.Calls())
	if err := h.UpstreamCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(platform.Calls()) == calls; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the platform is not asked")
		}
	}
	h.until("through an outage", inForce("two"))
	server.Close()
	h.stop()
	h.start()
	h.until("after a start without the platform", inForce("two"))
}

// Deployments hold memory: parts of units, of which the sum is rounded up, by HTTP and in a session, over a start of
// the agent too.
func TestElasticHoldsParts(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, s := elasticHouse(t, fmt.Sprintf("listeners:\n  - {address: \"unix:%s/e\", dialect: elastic}\n", dir))
	h.drop("a.json", s.Orchestration(elastictest.License{UID: "a", Units: 2}))
	h.until("dropped", inForce("a"))
	gib := func(n int64) wire.AcquireRequest {
		return wire.AcquireRequest{Pool: "resource_units", N: &n, Of: 64, Lifetime: "held"}
	}
	for range 3 {
		l, err := h.Acquire(t.Context(), gib(16))
		if err != nil || l.N != 16 || l.Of != 64 || l.Items[0].Of != 64 {
			t.Fatalf("%+v, %v", l, err)
		}
	}
	session, err := client.Open(t.Context(), client.WithSocket(h.Socket()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	if _, err := session.Acquire(t.Context(), gib(17)); err != nil {
		t.Fatal(err)
	}
	say := func(mib int64) {
		t.Helper()
		p, err := h.Pool(t.Context(), "resource_units")
		if err != nil || p.InUse != 2 || p.Parts != mib || p.Quantum != 65536 || *p.Available != 0 {
			t.Errorf("the pool is %+v (%v), and not %d MiB", p, err, mib)
		}
		if a := callerOf(t, "unix:"+dir+"/e").platform(200, "GET", nil); a.Usage.Memory != mib {
			t.Errorf("the platform says %d MiB, and not %d", a.Usage.Memory, mib)
		}
	}
	say(65 << 10)
	var e *client.Error
	if _, err := h.Acquire(t.Context(), gib(64)); !errors.As(err, &e) || e.Code != "no_slots" ||
		!strings.Contains(e.Detail, "64/64") {
		t.Errorf("more than is left: %v", err)
	}
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "resource_units", Of: 3}); !errors.As(err, &e) ||
		e.Code != "bad_request" || e.Field != "of" {
		t.Errorf("a third of a unit: %v", err)
	}
	h.stop()
	h.start()
	h.until("started again", inForce("a"))
	say(65 << 10)
	if _, err := h.Acquire(t.Context(), gib(63)); err != nil {
		t.Errorf("what is left: %v", err)
	}
	say(128 << 10)
}

func init() {
	askers["upstream.elastic.secret_file"] = asker{"elastic: {url: '%[1]s', secret_file: %[2]s}", fetches}
}
