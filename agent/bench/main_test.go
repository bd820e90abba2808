package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(asRole) != "" { // one of the processes of a run
		main()
		return
	}
	os.Exit(m.Run())
}

// What needs no process of the agent runs and writes well-formed rows. No figure is judged.
func TestRowsAreWellFormed(t *testing.T) {
	out := filepath.Join(t.TempDir(), "bench.json")
	if err := run(t.Context(), &suite{runs: 1, share: 500}, out); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		t.Fatal("no rows")
	}
	for _, r := range rows {
		for _, key := range []string{"name", "value", "unit", "limit", "ratio", "low", "high", "goal", "met"} {
			if _, ok := r[key]; !ok {
				t.Errorf("%v has no %s", r["name"], key)
			}
		}
		if v, _ := r["value"].(float64); v <= 0 {
			t.Errorf("%v is %v", r["name"], r["value"])
		}
	}
}

// A machine that is slow for a while is slow for both slices of a round, and a hiccup is in one round. So neither is in
// the ratio, which is the median of the rounds' ratios and not the ratio of medians.
func TestRatiosAreOfRounds(t *testing.T) {
	var c contest
	for run := range 5 {
		var rounds [][2]sample
		for round, slow := range []float64{1, 10, 5} {
			slow *= float64(run + 1)
			hiccup := 1.0
			if round == 2 {
				hiccup = 3
			}
			rounds = append(rounds, [2]sample{{p50: 13 * slow * hiccup, rate: 7 / slow / hiccup, server: 4},
				{p50: 10 * slow, rate: 10 / slow, server: 2}})
		}
		c = append(c, rounds)
	}
	for _, x := range []struct {
		of   func(sample) float64
		want float64
	}{{p50, 1.3}, {rate, 0.7}, {serverCPU, 2}} {
		s := &suite{}
		s.add("x", "µs", goal{}, c.figures(x.of))
		for _, got := range []float64{s.rows[0].Ratio, s.rows[0].Low, s.rows[0].High} {
			if got < x.want-1e-9 || got > x.want+1e-9 {
				t.Errorf("the ratio is %g, not %g: %+v", got, x.want, s.rows[0])
			}
		}
	}
}

// In a round of four slices each side has an early and a late place, and a side begins in every second round.
func TestRoundsAreBalanced(t *testing.T) {
	var order []string
	for r := range 2 {
		for k := range 4 {
			order = append(order, string("ab"[turn(r, k)]))
		}
	}
	if got := strings.Join(order, ""); got != "abbabaab" {
		t.Errorf("the turns are %s", got)
	}
	if m := mean([]sample{{1, 2, 3, 4}, {3, 4, 5, 6}}); m != (sample{2, 3, 4, 5}) {
		t.Errorf("the mean is %+v", m)
	}
	for _, x := range [][]float64{{2}, {3, 1}, {9, 2, 1}, {1, 3, 1, 9}} {
		if m := median(x); m != 2 {
			t.Errorf("the median of %v is %g", x, m)
		}
	}
}

func TestGoals(t *testing.T) {
	s := &suite{}
	s.add("a", "µs", ratioAtMost(1.2), []figure{{12, 10, 1.2}, {13, 10, 1.3}, {11, 10, 1.1}})
	s.add("b", "1/s", ratioAtLeast(0.7), []figure{{6, 10, 0.6}})
	s.add("c", "ms", atMost(5), []figure{{4, 1, 4}, {9, 1, 9}, {5, 1, 5}})
	s.add("d", "B", atMost(400), plain(401))
	s.add("e", "B", goal{}, plain(1))
	s.add("none", "B", atMost(1), nil)
	var got []string
	for _, r := range s.rows {
		got = append(got, r.Name+"="+r.Met)
	}
	if strings.Join(got, " ") != "a=yes b=no c=yes d=no e=" {
		t.Error(got)
	}
	if r := s.rows[0]; r.Low != 1.1 || r.High != 1.3 || r.Goal != "ratio ≤ 1.2" {
		t.Errorf("%+v", r)
	}
	if r := s.rows[2]; r.Low != 4 || r.High != 9 || r.Goal != "≤ 5" {
		t.Errorf("%+v", r)
	}
	file := filepath.Join(t.TempDir(), "bench.json")
	b, err := json.Marshal(s.rows)
	if err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	var table strings.Builder
	if err := errors.Join(err, markdown(file, &table)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| a | 12 µs | 10 µs | 1.20 × | 1.1 to 1.3 | ratio ≤ 1.2 | yes |",
		"| b | 6 1/s | 10 1/s | **0.60 ×** | 0.6 to 0.6 | ratio ≥ 0.7 | no |",
		"| d | **401 B** |  |  | 401 to 401 | ≤ 400 | no |",
	} {
		if !strings.Contains(table.String(), line+"\n") {
			t.Errorf("the table has no line %q:\n%s", line, &table)
		}
	}
}

// Two servers are measured by callers of their own, of each kind. That the figures are there is all that counts here.
func TestDuelOfProcesses(t *testing.T) {
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	canned, err := startServer(t.Context(), "canned", socket, answers(socket))
	if err != nil {
		t.Fatal(err)
	}
	defer end(canned)
	s := &suite{runs: 1, share: 500}
	sockets, servers := [2]string{socket, socket}, [2]int{canned.Process.Pid, canned.Process.Pid}
	alone, err := s.single(t.Context(), 2, "caller", sockets, servers)
	if err != nil {
		t.Fatal(err)
	}
	many, err := s.many(t.Context(), 2, 2, 3, duellists{sockets, servers})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []contest{alone, many} {
		for _, sample := range c[0][0] {
			if sample.p50 <= 0 || sample.rate <= 0 || hasCPUTime && (sample.server <= 0 || sample.client <= 0) {
				t.Errorf("%+v", sample)
			}
		}
	}
	crew, err := hire(t.Context(), 1, "caller", "-socket", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer crew.dismiss()
	const stall = 30 * time.Millisecond // of what happens, which is looked at until it is over and once more
	slices := 0
	most, err := longest(crew, func() error { slices++; return rest(stall) })
	if err != nil || most <= 0 || slices != 1 {
		t.Errorf("the longest is %g ms after %d moments: %v", most, slices, err)
	}
}

// Relay answers a claim with 201 and a release with 204; without a free licence it answers 410, and the caller
// says what to do.
func TestRelayCaller(t *testing.T) {
	claimed, empty := false, false
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/v1/nodes/usher-bench":
			w.WriteHeader(http.StatusNotFound)
		case empty:
			w.WriteHeader(http.StatusGone)
		case r.Method == http.MethodPut && !claimed:
			claimed = true
			w.WriteHeader(http.StatusCreated)
		case r.Method == http.MethodDelete && claimed:
			claimed = false
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusConflict)
		}
	}))
	defer relay.Close()
	var out strings.Builder
	if err := relayCaller(relay.URL, strings.NewReader("5ms\n5ms\n"), &out); err != nil {
		t.Fatal(err)
	}
	var w work
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 4 || json.Unmarshal([]byte(lines[2]), &w) != nil || w.Pairs == 0 || w.P50 <= 0 || claimed {
		t.Errorf("%q", lines)
	}
	empty = true
	if err := relayCaller(relay.URL, strings.NewReader("5ms\n"), &out); err == nil ||
		!strings.Contains(err.Error(), "relay add") {
		t.Error(err)
	}
}
