package metrics

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/usher-agent/usher/enforcer"
)

// withPools is an agent's metrics of some pools.
func withPools(states []enforcer.PoolStatus, giveWay func()) *Metrics {
	v := &enforcer.Verdict{Pools: map[string]enforcer.PoolGrant{}, Meters: map[string]enforcer.MeterGrant{}}
	for _, p := range states {
		if p.Meter {
			v.Meters[p.Name] = enforcer.MeterGrant{}
		} else {
			v.Pools[p.Name] = enforcer.PoolGrant{}
		}
	}
	m := New(Options{Now: at, Snapshot: func() Snapshot { return Snapshot{Verdict: v, Now: at} },
		Pools: func() []enforcer.PoolStatus { return states }, GiveWay: giveWay})
	m.setPools(v)
	return m
}

// manyPools are n pools of one slot.
func manyPools(n int) (states []enforcer.PoolStatus) {
	for i := range n {
		states = append(states, enforcer.PoolStatus{Name: fmt.Sprint("p", i), Limit: 1, Budget: 1})
	}
	return states
}

// oddPools have names and numbers that are written in unusual ways.
func oddPools() *Metrics {
	m := withPools([]enforcer.PoolStatus{
		{Name: `a"b\c` + "\n", Limit: enforcer.Unlimited, Budget: 1_000_000, InUse: 123_456_789},
		{Name: "größe", Limit: 999_999, Budget: 1 << 60, Waiting: 1, Reserved: 20_000_000},
		{Name: "renders", Meter: true, Limit: 7, Budget: 7, InUse: 9},
		{Name: "scenes", Meter: true, Limit: enforcer.Unlimited, Budget: enforcer.Unlimited},
	}, nil)
	m.Acquired("größe", time.Microsecond, nil, false)
	m.of("renders").counts().drawn.Add(1e15)
	m.of("größe").counts().granted.Add(1 << 62)
	m.of("größe").counts().replayed.Add(1e6)
	return m
}

// get scrapes once.
func get(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest(http.MethodGet, target, nil), httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

// own returns the lines of an answer that are of the agent's own metrics, sorted.
func own(body string) (lines []string) {
	for line := range strings.Lines(body) {
		if strings.Contains(line, "usher_") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

const openMetrics = "application/openmetrics-text; version=1.0.0"

// What is written without the library's registry is, line by line, what the registry would have written.
func TestTextIsAsTheLibraryHasIt(t *testing.T) {
	for name, m := range map[string]*Metrics{"full": full(), "odd": oddPools(), "none": withPools(nil, nil)} {
		library := promhttp.HandlerFor(m.Gatherer(), promhttp.HandlerOpts{EnableOpenMetrics: true})
		for _, accept := range []string{"", "text/plain; version=0.0.4", openMetrics,
			"application/openmetrics-text; version=0.0.1", openMetrics + "; escaping=underscores"} {
			got, want := get(m.Handler(false), "/metrics", "Accept", accept), get(library, "/metrics", "Accept", accept)
			if g, w := got.Header().Get("Content-Type"), want.Header().Get("Content-Type"); g != w {
				t.Errorf("%s, %q: the type is %q, want %q", name, accept, g, w)
			}
			g, w := own(got.Body.String()), own(want.Body.String())
			for i := range max(len(g), len(w)) {
				if i >= len(g) || i >= len(w) || g[i] != w[i] {
					t.Fatalf("%s, %q: the answers differ, first in line %d:\n%q\n%q", name, accept, i,
						g[i:min(i+1, len(g))], w[i:min(i+1, len(w))])
				}
			}
			if strings.HasPrefix(accept, "application") != strings.HasSuffix(got.Body.String(), "\n# EOF\n") {
				t.Errorf("%s, %q: the answer ends in %q", name, accept, tail(got.Body.String()))
			}
			checkTogether(t, got.Body.String())
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-20):] }

// checkTogether checks that the series of a metric stand together, under one head.
func checkTogether(t *testing.T, body string) {
	t.Helper()
	seen := map[string]bool{}
	last := ""
	for line := range strings.Lines(body) {
		f := strings.Fields(line)
		if f[0] == "#" && len(f) > 2 && f[1] == "TYPE" {
			if last = f[2]; seen[last] && !strings.HasPrefix(last, "go_") { // the library itself has one so
				t.Errorf("%s begins twice", last)
			}
			seen[last] = true
		}
		if f[0] != "#" && !strings.HasPrefix(line, last) {
			t.Errorf("under %s stands %s", last, line)
		}
	}
}

// A caller that wants some metrics alone, or a form that is no text, gets what the library makes.
func TestOtherFormsAreTheLibrarys(t *testing.T) {
	h := full().Handler(false)
	w := get(h, "/metrics?name[]=usher_slots_limit")
	if b := w.Body.String(); strings.Count(b, "# TYPE") != 1 ||
		!strings.Contains(b, `usher_slots_limit{pool="streams"} 8`) {
		t.Errorf("of one metric: %s", b)
	}
	const proto = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
	w = get(h, "/metrics", "Accept", proto)
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "application/vnd.google.protobuf") ||
		!strings.Contains(w.Body.String(), "usher_slots_limit") {
		t.Errorf("%s: %d bytes", w.Header().Get("Content-Type"), w.Body.Len())
	}
}

// An answer is compressed for a caller that takes that, and only over a network.
func TestCompressed(t *testing.T) {
	m := full()
	plain := own(get(m.Handler(true), "/metrics").Body.String())
	for accept, want := range map[string]bool{"gzip": true, "deflate, GZIP;q=0.5": true, "": false, "gzip;q=0": false,
		"gzip; q=0.0": false, "identity": false, "gzip;q=x": false} {
		w := get(m.Handler(true), "/metrics", "Accept-Encoding", accept)
		if is := w.Header().Get("Content-Encoding") == "gzip"; is != want {
			t.Errorf("%q: compressed is %v", accept, is)
		}
		if !want {
			continue
		}
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil || !slices.Equal(own(string(b)), plain) {
			t.Errorf("%q: %v, %d bytes", accept, err, len(b))
		}
	}
	if w := get(m.Handler(false), "/metrics", "Accept-Encoding", "gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Error("it is compressed on the same host")
	}
}

// A scrape makes no garbage of the series of pools, however many there are, and others are let in between its chunks.
func TestScrapeOfManyPools(t *testing.T) {
	ways := 0
	m := withPools(manyPools(400), func() { ways++ })
	m.Handler(false).ServeHTTP(nowhere{}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if ways < 4 {
		t.Errorf("others are let in %d times", ways)
	}
	s, pools := new(spare), m.ofPools()
	pieces := testing.AllocsPerRun(2, func() {
		for i := range poolFamilies {
			s.family(&poolFamilies[i], pools, func() {})
		}
	})
	if pieces > float64(2*len(poolFamilies)) { // the library makes ten of each of 55 series of each pool
		t.Errorf("%v pieces of memory for 400 pools", pieces)
	}
}

// nowhere takes an answer, and nowhere fails after some bytes.
type nowhere struct{ room, writes *int }

func (nowhere) Header() http.Header { return http.Header{} }
func (nowhere) WriteHeader(int)     {}

func (n nowhere) Write(b []byte) (int, error) {
	if n.room == nil {
		return len(b), nil
	}
	*n.writes++
	if *n.room -= len(b); *n.room < 0 {
		return 0, errors.New("the caller has hung up")
	}
	return len(b), nil
}

// Nothing more is made for a caller that has hung up.
func TestScraperHangsUp(t *testing.T) {
	writes, room := 0, textChunk+textChunk/2
	h := withPools(manyPools(400), func() {}).Handler(false)
	h.ServeHTTP(nowhere{&room, &writes}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if writes > 3 {
		t.Errorf("%d chunks were made", writes)
	}
}

// A scrape tells for how long the lock was held during the one before, and measures that whatever form it has.
func TestLongestHold(t *testing.T) {
	begun, ended := 0, 0
	m := New(Options{Now: at, Snapshot: func() Snapshot { return Snapshot{} },
		MeasureHolds: func() func() time.Duration {
			begun++
			return func() time.Duration { ended++; return time.Duration(ended) * time.Millisecond }
		}})
	h := m.Handler(false)
	for i, want := range []string{"0", "0.001", "0.002"} {
		w := get(h, []string{"/metrics", "/metrics?name[]=usher_build_info", "/metrics"}[i])
		line := "usher_scrape_longest_hold_seconds " + want + "\n"
		if i != 1 && !strings.Contains(w.Body.String(), line) {
			t.Errorf("scrape %d does not have %q", i, line)
		}
		if begun != i+1 || ended != begun {
			t.Errorf("after scrape %d: begun %d, ended %d", i, begun, ended)
		}
	}
}

// A scrape of some metrics by name asks the pools only for one of theirs.
func TestNamedMetricsAskNoPools(t *testing.T) {
	for target, want := range map[string]int{"?name[]=usher_build_info&name[]=usher_license_state": 0,
		"?name[]=usher_build_info&name[]=usher_slots_in_use": 1, "": 1} {
		asked := 0
		m := full()
		states := m.states
		m.states = func() []enforcer.PoolStatus { asked++; return states() }
		w := get(m.Handler(false), "/metrics"+target)
		if asked != want || !strings.Contains(w.Body.String(), "usher_build_info{") {
			t.Errorf("%q asks the pools %d times, want %d", target, asked, want)
		}
	}
}

// More scrapes at a time than mostScrapes are turned away, and those that are answered hold nobody up.
func TestTooManyScrapes(t *testing.T) {
	inside, on := make(chan struct{}), make(chan struct{})
	m := New(Options{Now: at, Snapshot: func() Snapshot {
		inside <- struct{}{}
		<-on
		return Snapshot{}
	}})
	h := m.Handler(false)
	var answers []chan int
	for range mostScrapes {
		code := make(chan int, 1)
		answers = append(answers, code)
		go func() { code <- get(h, "/metrics").Code }()
		<-inside
	}
	if w := get(h, "/metrics"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", w.Code)
	}
	close(on)
	for _, code := range answers {
		if c := <-code; c != http.StatusOK {
			t.Errorf("one of those that there is room for: %d", c)
		}
	}
	go func() { <-inside }()
	if w := get(h, "/metrics"); w.Code != http.StatusOK {
		t.Errorf("afterwards: %d", w.Code)
	}
}
