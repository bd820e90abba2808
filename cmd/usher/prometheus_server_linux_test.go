package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// prometheus is a running server.
type prometheus struct {
	t       *testing.T
	address string
}

// startPrometheus starts Prometheus with the project's rules. Its intervals are short, and no alert waits: see
// [shortened].
func startPrometheus(t *testing.T, agents ...*process) *prometheus {
	t.Helper()
	program := debianTool(t, "prometheus")
	dir := t.TempDir()
	var targets []string
	for _, a := range agents {
		targets = append(targets, a.listen)
	}
	config, err := yaml.Marshal(map[string]any{
		"global": map[string]any{"scrape_interval": "500ms", "scrape_timeout": "500ms",
			"evaluation_interval": "500ms"},
		"rule_files": []string{"usher.alerts.yml", "usher.rules.yml"},
		"scrape_configs": []map[string]any{{"job_name": "usher",
			"static_configs": []map[string]any{{"targets": targets}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"usher.alerts.yml": shortened(t),
		"usher.rules.yml": read(t, recordingFile),
		"prometheus.yml":  string(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &prometheus{t: t, address: ownAddress(t)}
	cmd := exec.Command(program, "--config.file", filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path",
		filepath.Join(dir, "data"), "--web.listen-address", p.address, "--log.level", "error")
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus: %s", log)
		}
	})
	await(t, "prometheus scrapes every agent", func() bool {
		out, err := p.query("sum(up)")
		return err == nil && len(out) == 1 && out[0] == strconv.Itoa(len(agents))
	})
	return p
}

// series is one series of an answer.
type series struct {
	labels map[string]string
	value  string
}

// series returns what an expression has now.
func (p *prometheus) series(expr string) (all []series, err error) {
	res, err := http.PostForm("http://"+p.address+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var out struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return nil, err
	}
	if out.Status != "success" {
		return nil, errors.New(out.Error)
	}
	for _, r := range out.Data.Result {
		all = append(all, series{r.Metric, fmt.Sprint(r.Value[1])})
	}
	return all, nil
}

// query returns the values that an expression has now.
func (p *prometheus) query(expr string) (values []string, err error) {
	all, err := p.series(expr)
	for _, s := range all {
		values = append(values, s.value)
	}
	return values, err
}

// fires waits until an alert fires for an agent, or does not any more.
func (p *prometheus) fires(alert string, of *process, want bool) {
	p.t.Helper()
	expr := fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing",instance=%q}`, alert, of.listen)
	await(p.t, fmt.Sprintf("%s of %s fires: %t", alert, of.name, want), func() bool {
		out, err := p.query(expr)
		return err == nil && (len(out) > 0) == want
	})
}

// trial is the agents that faults are made of, and what they need.
type trial struct {
	*scene
	long                string // a good licence
	plain, online, pool *process
	timed, checking     *process
	ahead               *atomic.Int64 // nanoseconds that the timed agent's clock is ahead
	vendor, lender      *process
	lease               string // of the plain agent
}

// ask has an agent do something, which it must.
func (x *trial) ask(a *process, args ...string) string {
	x.t.Helper()
	out, err := a.ask(args...)
	if err != nil {
		x.t.Fatalf("usher %v: %v\n%s", args, err, out)
	}
	return out
}

func (x *trial) take(n string) func() {
	return func() {
		x.lease = strings.TrimSpace(x.ask(x.plain, "acquire", "--pool", "streams", "--n", n, "--ttl", "1h"))
	}
}

func (x *trial) release() { x.ask(x.plain, "release", x.lease) }

// instead has another licence in the place of the good one, and again puts that back.
func (x *trial) instead(id string, args ...string) func() {
	return func() {
		x.ask(x.plain, "license", "remove", "long.lic")
		file := x.sign(id, over([]string{"--scope", "host"}, args...)...)
		x.ask(x.plain, "license", "install", "--name", "other.lic", file)
	}
}

func (x *trial) again() {
	x.ask(x.plain, "license", "remove", "other.lic")
	x.ask(x.plain, "license", "install", "--name", "long.lic", x.long)
}

func newTrial(t *testing.T) *trial {
	s := newScene(t)
	x := &trial{scene: s, long: s.sign("long", "--limit", "streams=20", "--scope", "host", "--expires", "365d")}
	beating := s.sign("beating", "--limit", "streams=8", "--scope", "host", "--expires", "365d", "--heartbeat", "6s")
	due := s.sign("due", "--limit", "streams=8", "--scope", "host", "--expires", "365d", "--check-in", "15s")
	x.vendor = s.server("vendor", "--key", s.path("keys/k1.key"), "--license", s.dir)
	key := strings.TrimSpace(strings.Split(s.do("upstream", "site-key", "--data", s.path("site")), "\n")[0])
	shared := s.sign("shared", "--limit", "streams=50", "--expires", "365d", "--site-server", key)
	x.lender = s.server("site", "--serve-pools", "--trust", s.path("keys/k1.pub"), "--license", shared, "--block-ttl",
		"5s")
	x.plain = s.agent("plain", "", x.long)
	x.smallDisk("online")
	x.online = s.agent("online", "upstream: {url: 'http://"+x.vendor.listen+"'}\nlisteners: [{address: "+
		s.path("online/k")+", dialect: "+aDialect+"}]\n", beating)
	x.checking = s.agent("checking", "upstream: {url: 'http://"+x.vendor.listen+"'}\n", due)
	x.timed = x.inTime("timed", x.long)
	x.pool = s.agent("pool", "upstream: {pools_url: 'http://"+x.lender.listen+"'}\n", shared)
	return x
}

// injected is a fault that can be made here, and its end.
type injected struct {
	alert      string
	of         *process
	begin, end func()
}

func (x *trial) faults() []injected {
	date := func(d time.Duration) string { return time.Now().UTC().Add(d).Format(time.RFC3339) }
	old := []string{"--limit", "streams=8", "--issued", "2026-01-01"}
	of := func(more ...string) []string { return append(old[:len(old):len(old)], more...) }
	beside := x.path("plain/license.d/broken.lic")
	return []injected{
		{"UsherPoolFull", x.plain, x.take("20"), x.release},
		{"UsherPoolNearlyFull", x.plain, x.take("19"), x.release},
		{"UsherReloadFailed", x.plain, func() {
			x.plain.configure("nonsense: 1\n")
			_, _ = x.plain.ask("reload")
		}, func() { x.plain.configure(""); x.ask(x.plain, "reload") }},
		{"UsherNotValid", x.plain, func() { x.ask(x.plain, "license", "remove", "long.lic") },
			func() { x.ask(x.plain, "license", "install", "--name", "long.lic", x.long) }},
		{"UsherCoverageEnds7d", x.plain, x.instead("week", of("--expires", "5d")...), x.again},
		{"UsherCoverageEnds30d", x.plain, x.instead("month", of("--expires", "20d")...), x.again},
		{"UsherInGrace", x.plain, x.instead("late", of("--expires", date(-24*time.Hour), "--grace", "30d")...),
			x.again},
		{"UsherTestLicence", x.plain, x.instead("try", of("--expires", "365d", "--environment", "test")...), x.again},
		{"UsherClockBehind", x.plain, x.instead("dated", "--limit", "streams=8", "--expires", "365d", "--issued",
			date(20*time.Hour)), x.again},
		{"UsherDocumentRefused", x.plain, func() {
			if err := os.WriteFile(beside, []byte("no licence"), 0o600); err != nil {
				x.t.Fatal(err)
			}
		}, func() { _ = os.Remove(beside) }},
		{"UsherAgentAbsent", x.plain, x.plain.stop, x.plain.start},
		{"UsherSiteServerSilent", x.pool, x.lender.stop, x.lender.start},
		{"UsherUpstreamSilent", x.online, x.vendor.stop, x.vendor.start},
	}
}

// A real Prometheus scrapes real agents: each alert whose fault can be made here fires on it and clears after it. The
// board's queries are asked of the same server.
func TestAlertsFireAndClear(t *testing.T) {
	t.Parallel()
	debianTool(t, "prometheus")
	x := newTrial(t)
	p := startPrometheus(t, x.plain, x.online, x.pool, x.timed, x.checking)
	await(t, "no alert of a healthy agent fires", func() bool {
		states, err := p.query(`sum(usher_license_state{state="valid"})`)
		out, errAlerts := p.query(`count(ALERTS{alertstate="firing"}) or vector(0)`)
		return err == nil && errAlerts == nil && fmt.Sprint(states, out) == "[5] [0]"
	})
	all := append(x.faults(), x.hostFaults()...)
	for _, a := range alerts(t) {
		isMade := slices.ContainsFunc(all, func(f injected) bool { return f.alert == a.Alert })
		if _, is := unmade[a.Alert]; is == isMade {
			t.Errorf("%s: a fault is made of it: %t; it is among those that are not: %t", a.Alert, isMade, is)
		}
	}
	for _, f := range all {
		f.begin()
		p.fires(f.alert, f.of, true)
		f.end()
		p.fires(f.alert, f.of, false)
	}
	p.shows(readBoard(t))
}
