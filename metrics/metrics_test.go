package metrics

import (
	"bytes"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/usher-agent/usher/enforcer"
)

var update = flag.Bool("update", false, "rewrite testdata")

var at = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func verdict() *enforcer.Verdict {
	l := &enforcer.License{ID: "a", Expires: at.AddDate(0, 1, 0), Grace: 24 * time.Hour}
	return &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, TerminatesAt: l.Terminates(),
		Match: enforcer.HostMatch{Bound: true, OK: true, Matched: 2, Of: 3, Spare: 1},
		Warnings: []enforcer.Warning{{Code: enforcer.WarnExpiresSoon}, {Code: enforcer.WarnDocument},
			{Code: enforcer.WarnDocument}},
		Licenses: []enforcer.Judged{{Document: "a", License: l, InForce: true, Code: enforcer.Valid},
			{Document: "b", Code: enforcer.BadSignature}, {Document: "c", Code: enforcer.Superseded}},
		Pools:  map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 8, Budget: 8}},
		Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders", Limit: 100, Budget: 100}}}
}

func full() *Metrics {
	v := verdict()
	m := New(Options{Version: "1.2.3", Revision: "abc", Anchors: "config", Product: "acme", Now: at,
		Snapshot: func() Snapshot {
			return Snapshot{Verdict: v, Now: at, Holders: map[string]int{"ttl": 3}, WatchMode: "fsnotify",
				StateFree: 1 << 30, ClockBehind: time.Second, Plugins: map[string]bool{"acme": true, "other": false},
				Tampered: map[string]bool{"upstream.json": true, "draws.json": false},
				Unfit:    map[string]bool{"socket": true, "state": false}, LogDropped: 7,
				LeaseLog: map[string]uint64{"written": 5, "dropped": 2},
				Fleet: &Fleet{State: "member", States: []string{"joining", "member"}, Fence: 20 * time.Second,
					Members: 3,
					Pools:   []FleetPool{{"streams", 2, 5, 8}, {"streams", 1, 1, 4}}},
				Draining: true, ClockAhead: 48 * time.Hour, RevokedStillAlive: 1,
				Contacts: map[string]Contact{
					"check_in": {Last: at, Period: 7 * 24 * time.Hour, Next: at.Add(6 * 24 * time.Hour),
						Due: at.AddDate(0, 0, 7)},
					"heartbeat": {Last: at, Period: time.Minute, Next: at.Add(20 * time.Second),
						Ends: at.Add(time.Hour)}}}
		}, Pools: func() []enforcer.PoolStatus {
			return []enforcer.PoolStatus{{Name: "streams", Limit: 8, Budget: 8, InUse: 9, Peak: 9, Leases: 3,
				Borrowed: 2},
				{Name: "seats", Limit: enforcer.Unlimited, Budget: enforcer.Unlimited, InUse: 1},
				{Name: "renders", Meter: true, Limit: 100, Budget: 100, InUse: 40}}
		}})
	m.Observe(&enforcer.Event{Kind: enforcer.EventVerdict, Verdict: v})
	m.Acquired("streams", 3*time.Microsecond, nil, false)
	m.Acquired("streams", 3*time.Microsecond, nil, true)
	m.Acquired("streams", 3*time.Microsecond, &enforcer.Denial{Code: enforcer.NoSlots}, false)
	m.Acquired("made up", 3*time.Microsecond, &enforcer.Denial{Code: enforcer.PoolUnknown}, false)
	m.Observe(&enforcer.Event{Kind: enforcer.EventEnded, Cause: enforcer.CauseExpired,
		Lease: &enforcer.Lease{Items: []enforcer.Item{{Pool: "streams", N: 1}}}})
	m.UpstreamCalled("heartbeat", "ok", at)
	m.UpstreamCalled("check_in", "transient", at)
	m.Reloaded(true, at)
	m.EmergencyBegan()
	counts := NewFleetCounts([]string{"change"}, []string{"done", "conflict"}, []string{"refused"})
	m.WithFleet(counts)
	counts.Called("change", "conflict", 2*time.Millisecond)
	counts.Failed("refused")
	counts.Reaped(3)
	counts.WatchEnded()
	return m
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(full().Gatherer(), Names()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// The whole exposition, but for what the process itself says.
func TestGolden(t *testing.T) {
	families, err := full().Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if slices.Contains(Names(), f.GetName()) {
			if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := regexp.MustCompile(`goversion="[^"]*"`).ReplaceAll(b.Bytes(), []byte(`goversion="go"`))
	if *update {
		if err := os.WriteFile("testdata/full.prom", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/full.prom")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the exposition has changed; run with -update and read the difference:\n%s", got)
	}
}

// A server's metrics have a row each on the page about servers, and no others have.
func TestServerMetrics(t *testing.T) {
	r := NewRegistry(func() Kept {
		return Kept{Licences: map[string]int{"active": 2}, Hosts: 3, Cloned: 1,
			Blocks: map[[2]string]Blocks{{"L1", "streams"}: {2, 7}}}
	})
	r.Answered("check-out", "ok")
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/upstream.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, f := range families {
		if name := f.GetName(); strings.HasPrefix(name, "usher_") {
			got = append(got, name)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(usher_upstream_server_\\w+)`").FindAllSubmatch(page, -1) {
		want = append(want, string(m[1]))
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("a server has %v, the page %v", got, want)
	}
	if n, err := testutil.GatherAndCount(r.registry, "usher_upstream_server_block_slots"); err != nil || n != 1 {
		t.Errorf("%d series of slots, %v", n, err)
	}
}

// series counts the series of a metric.
func series(t *testing.T, m *Metrics, name string) int {
	t.Helper()
	n, err := testutil.GatherAndCount(m.Gatherer(), name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Callers name pools; only those of a licence become series, and those that are no more go when there are too many.
func TestClosedPools(t *testing.T) {
	m := full()
	before := series(t, m, "usher_acquires_total")
	for i := range 10_000 {
		m.Acquired(fmt.Sprintf("pool-%d", i), time.Microsecond, &enforcer.Denial{Code: enforcer.PoolUnknown}, false)
	}
	if after := series(t, m, "usher_acquires_total"); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	if n := (*m.pools.Load())[""].told().denials(slices.Index(denialCodes, enforcer.PoolUnknown)); n != 10_001 {
		t.Errorf("%v made-up pools are counted", n)
	}
	for i := range mostPools {
		v := verdict()
		v.Pools = map[string]enforcer.PoolGrant{fmt.Sprint("other-", i): {}}
		m.Observe(&enforcer.Event{Kind: enforcer.EventVerdict, Verdict: v})
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "usher_acquires_total" {
			continue
		}
		for _, x := range f.GetMetric() {
			for _, l := range x.GetLabel() {
				if l.GetValue() == "streams" {
					t.Error("a pool that is no more still has a series")
				}
			}
		}
	}
}

// A verdict that names a pool again does not set its counters back, also where the licence was gone meanwhile.
func TestCountersGoOn(t *testing.T) {
	m := full()
	m.Observe(&enforcer.Event{Kind: enforcer.EventVerdict, Verdict: &enforcer.Verdict{}})
	m.Observe(&enforcer.Event{Kind: enforcer.EventVerdict, Verdict: verdict()})
	if n := m.of("streams").told().granted.Load(); n != 1 {
		t.Errorf("granted is %v", n)
	}
}

func TestNothingAllocated(t *testing.T) {
	m := full()
	lease := &enforcer.Lease{Items: []enforcer.Item{{Pool: "streams", N: 1}}}
	denial := &enforcer.Denial{Code: enforcer.NoSlots}
	if n := testing.AllocsPerRun(100, func() {
		m.Acquired("streams", time.Microsecond, nil, false)
		m.Acquired("streams", time.Microsecond, denial, false)
		m.Observe(&enforcer.Event{Kind: enforcer.EventEnded, Cause: enforcer.CauseReleased, Lease: lease})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrent(t *testing.T) {
	m := full()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				m.Acquired("streams", time.Microsecond, nil, false)
				m.Observe(&enforcer.Event{Kind: enforcer.EventVerdict, Verdict: verdict()})
				m.Handler(false).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
			}
		})
	}
	wg.Wait()
	var _ prometheus.Gatherer = m.Gatherer()
}

// Before the first verdict a scrape is answered too.
func TestEmpty(t *testing.T) {
	m := New(Options{Snapshot: func() Snapshot { return Snapshot{StateFree: -1} }})
	w := httptest.NewRecorder()
	m.Handler(false).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if s := w.Body.String(); w.Code != 200 || !strings.Contains(s, `usher_license_code{code="PREPARING"} 1`) ||
		strings.Contains(s, "state_free_bytes") {
		t.Errorf("%d %s", w.Code, s)
	}
}

// docs/metrics.md has a line for every metric, and for no other.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(usher_[a-z_]+)` \\|").FindAllStringSubmatch(string(b), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(documented)
	if !slices.Equal(documented, Names()) {
		t.Errorf("documented are\n%s\nand there are\n%s", strings.Join(documented, "\n"), strings.Join(Names(), "\n"))
	}
}
