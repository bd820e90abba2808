package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

const (
	alertFile     = "../../configs/prometheus/usher.alerts.yml"
	recordingFile = "../../configs/prometheus/usher.rules.yml"
)

// debianTool finds a program of a Debian package that .ci/debian names.
func debianTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		lacks(t, "%s is missing: .ci/debian installs its package", name)
	}
	return path
}

// alert is one rule of the alert file.
type alert struct {
	Alert, Expr, For string
	Labels           map[string]string
	Annotations      map[string]string
}

func alerts(t *testing.T) (out []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []alert
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, alertFile)), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// Every alert has its entry in the runbook, which its annotation names, and the runbook has no other.
func TestAlertsHaveRunbooks(t *testing.T) {
	var want, got []string
	for _, a := range alerts(t) {
		want = append(want, a.Alert)
		if a.Annotations["runbook_url"] != "docs/runbooks.md#"+strings.ToLower(a.Alert) || a.Labels["severity"] == "" ||
			a.For == "" || a.Annotations["summary"] == "" {
			t.Errorf("%s: %+v", a.Alert, a)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(read(t, "../../docs/runbooks.md"),
		-1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("the runbook has\n%v\nthe alerts are\n%v", got, want)
	}
}

// faulty are, for each alert, series that fire it for three hours, and series that then clear it. Times are in seconds
// from the start.
var faulty = map[string][][3]string{
	"UsherNotValid":        {{`usher_license_state{state="valid"}`, "0", "1"}},
	"UsherInGrace":         {{`usher_license_code{code="VALID_IN_GRACE"}`, "1", "0"}},
	"UsherCoverageEnds30d": {{coverageEnd, "1728000", "34560000"}, {licenceTerm, "31536000", "31536000"}},
	"UsherCoverageEnds7d":  {{coverageEnd, "432000", "34560000"}, {licenceTerm, "31536000", "31536000"}},
	"UsherCheckInDue": {{checkInDue, "12000", "90000"},
		{`usher_contact_period_seconds{call="check_in"}`, "86400", "86400"}},
	"UsherUpstreamSilent": {{`usher_contact_last_timestamp_seconds{call="heartbeat"}`, "0", "10800"},
		{`usher_contact_period_seconds{call="heartbeat"}`, "7200", "7200"}},
	"UsherSiteServerSilent": {{`usher_license_warning{code="SITE_SERVER_FAILING"}`, "1", "0"}},
	"UsherPoolFull":         {{`usher_slots_in_use{pool="p"}`, "8", "7"}, {`usher_slots_budget{pool="p"}`, "8", "8"}},
	"UsherPoolNearlyFull": {{`usher_slots_in_use{pool="p"}`, "95", "80"},
		{`usher_slots_budget{pool="p"}`, "100", "100"}},
	"UsherOverage":            {{`usher_slots_overage{pool="p"}`, "1", "0"}},
	"UsherClockBehind":        {{`usher_license_warning{code="CLOCK_BEHIND"}`, "1", "0"}},
	"UsherClockAhead":         {{"usher_clock_ahead_seconds", "90000", "0"}},
	"UsherHostMatchAtMinimum": {{"usher_host_match_spare", "0", "2"}, {"usher_host_match_score", "0.6", "1"}},
	"UsherReloadFailed":       {{"usher_config_last_reload_successful", "0", "1"}},
	"UsherPolling":            {{`usher_watch_mode{mode="polling"}`, "1", "0"}},
	"UsherDiskLow":            {{"usher_state_free_bytes", "50000000", "50000000000"}},
	"UsherTestLicence":        {{`usher_license_warning{code="TEST_LICENSE"}`, "1", "0"}},
	"UsherAgentAbsent":        {{`up{job="usher"}`, "0", "1"}},
	"UsherRevokedStillAlive":  {{"usher_revoked_still_alive", "2", "0"}},
	"UsherDocumentRefused":    {{`usher_license_documents{result="refused"}`, "1", "0"}},
	"UsherPluginDown":         {{`usher_plugin_up{plugin="x"}`, "0", "1"}},
	"UsherVitalFault":         {{`usher_vital_fault{part="socket"}`, "1", "0"}},
	"UsherStateTampered":      {{`usher_state_tampered{file="draws.json"}`, "1", "0"}},
	"UsherFleetFenced":        {{`usher_fleet_state{state="fenced"}`, "1", "0"}},
	"UsherFleetCutOff":        {{"usher_fleet_partitioned", "1", "0"}},
	"UsherFleetNotAdmitted":   {{`usher_fleet_state{state="evicted"}`, "1", "0"}},
	"UsherFleetQuarantine":    {{"usher_fleet_quarantine", "1", "0"}},
	"UsherFleetNoSpace":       {{`usher_fleet_errors_total{fault="no_space"}`, "0+1", "180+0"}},
	"UsherFleetSlow": {{`usher_fleet_transaction_duration_seconds_bucket{kind="change",le="1"}`, "0+1", "0+100"},
		{`usher_fleet_transaction_duration_seconds_bucket{kind="change",le="5"}`, "0+10", "0+100"},
		{`usher_fleet_transaction_duration_seconds_bucket{kind="change",le="+Inf"}`, "0+10", "0+100"}},
	"UsherFleetLimitLower": {{`usher_fleet_slots_limit{pool="p"}`, "5", "10"},
		{`usher_slots_limit{pool="p"}`, "10", "10"}},
}

const (
	coverageEnd = "usher_license_coverage_end_timestamp_seconds"
	licenceTerm = "usher_license_term_seconds"
	checkInDue  = "usher_check_in_due_timestamp_seconds"
)

// promTest runs promtool on the files of rules with tests of series.
func promTest(t *testing.T, groups []map[string]any) {
	t.Helper()
	promtool := debianTool(t, "promtool")
	dir := t.TempDir()
	for _, f := range []string{alertFile, recordingFile} {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), []byte(read(t, f)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := yaml.Marshal(map[string]any{"rule_files": []string{"usher.alerts.yml", "usher.rules.yml"},
		"evaluation_interval": "1m", "tests": groups})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "test.yml"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(promtool, "test", "rules", "test.yml")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// firing is a test that so many alerts fire at an instant; of one name, or of all for an empty one.
func firing(name, at string, n int) map[string]any {
	of := `alertstate="firing"`
	if name != "" {
		of += `,alertname="` + name + `"`
	}
	return map[string]any{"expr": "count(ALERTS{" + of + "}) or vector(0)", "eval_time": at,
		"exp_samples": []map[string]any{{"labels": "{}", "value": n}}}
}

// Each alert fires on its fault and clears after it, by promtool.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command(debianTool(t, "promtool"), "check", "rules", alertFile, recordingFile).
		CombinedOutput(); err != nil {
		t.Fatalf("promtool check rules: %v\n%s", err, out)
	}
	raw := rawAlerts(t)
	dir := t.TempDir()
	args := []string{"test", "rules"}
	for _, a := range alerts(t) {
		series := faulty[a.Alert]
		if series == nil {
			t.Errorf("%s has no fault to be tried with", a.Alert)
			continue
		}
		var input []map[string]string
		for _, s := range series {
			input = append(input, map[string]string{"series": s[0], "values": s[1] + "x180 " + s[2] + "x60"})
		}
		// Each has a file with its rule alone: for each fault promtool evaluates all that it is given, minute by
		// minute.
		for name, content := range map[string]any{
			a.Alert + ".rules": map[string]any{"groups": []any{map[string]any{"name": "one",
				"rules": []any{raw[a.Alert]}}}},
			a.Alert + ".test": map[string]any{"rule_files": []string{a.Alert + ".rules"}, "evaluation_interval": "1m",
				"tests": []any{map[string]any{"interval": "1m", "input_series": input,
					"promql_expr_test": []any{firing(a.Alert, "2h59m", 1), firing(a.Alert, "3h10m", 0)}}}},
		} {
			b, err := yaml.Marshal(content)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, a.Alert+".test")
	}
	cmd := exec.Command(debianTool(t, "promtool"), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, out)
	}
}

// rawAlerts are the rules of the alert file as they stand there, by name.
func rawAlerts(t *testing.T) map[string]any {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []map[string]any }
	}
	if err := yaml.Unmarshal([]byte(read(t, alertFile)), &file); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if strings.Contains(fmt.Sprint(r["expr"]), "usher:") {
				t.Fatalf("%s is of a recorded series, whose rule must be there, too", r["alert"])
			}
			out[fmt.Sprint(r["alert"])] = r
		}
	}
	return out
}

// everyKind starts a healthy agent of each kind of licence.
func everyKind(t *testing.T) map[string]*process {
	s := newScene(t)
	year := []string{"--limit", "streams=8", "--scope", "host", "--expires", "365d"}
	beating := s.sign("beating", append(year, "--heartbeat", "20s")...)
	checking := s.sign("checking", append(year, "--check-in", "30s")...)
	vendor := s.server("vendor", "--key", s.path("keys/k1.key"), "--license", s.dir)
	key := strings.TrimSpace(strings.Split(s.do("upstream", "site-key", "--data", s.path("site")), "\n")[0])
	shared := s.sign("shared", "--limit", "streams=50", "--expires", "365d", "--site-server", key)
	lender := s.server("site", "--serve-pools", "--trust", s.path("keys/k1.pub"), "--license", shared)
	upstream := "upstream: {url: 'http://" + vendor.listen + "'}\n"
	out := map[string]*process{
		"plain":      s.agent("plain", "", s.sign("plain", year...)),
		"heartbeats": s.agent("heartbeats", upstream, beating),
		"check-ins":  s.agent("check-ins", upstream, checking),
		"staged renewal": s.agent("staged", "", s.sign("old", "--limit", "streams=8", "--scope", "host", "--issued",
			"2026-01-01", "--expires", "5d"),
			s.sign("new", "--limit", "streams=8", "--scope", "host", "--not-before", "4d",
				"--expires", "400d")),
		"site pool": s.agent("pool", "upstream: {pools_url: 'http://"+lender.listen+"'}\n", shared),
	}
	for kind, p := range out {
		await(t, kind+" grants slots", func() bool {
			_, err := p.ask("acquire", "--pool", "streams", "--ttl", "1h", "--wait", "5s")
			return err == nil
		})
	}
	return out
}

// A healthy agent of each kind of licence fires no alert for an hour. Real agents are scraped 60 times; what they say
// of their contacts is stretched with the time between the scrapes to an hour, and promtool evaluates the rules on it.
func TestHealthyAgentsFireNoAlert(t *testing.T) {
	t.Parallel()
	debianTool(t, "promtool")
	const scrapes, apart, stretched = 60, 500 * time.Millisecond, time.Minute
	kinds := everyKind(t)
	at := make([]time.Time, scrapes)
	said := map[string][]map[string]float64{}
	tick := time.NewTicker(apart)
	defer tick.Stop()
	was, stalled := time.Now(), stalls{}
	for i := range scrapes {
		<-tick.C
		at[i] = time.Now()
		for kind, p := range kinds {
			said[kind] = append(said[kind], p.scrape())
		}
		// A host that does not run the agents for seconds is not what is tried here.
		if at[i].Sub(was) > 2*apart {
			stalled = append(stalled, [2]time.Time{was.Add(apart), at[i]})
		}
		was = at[i]
	}
	factor := float64(stretched) / float64(apart)
	// seconds are a time of the exposition on the stretched clock, on which the first scrape is at 0.
	moved := func(name string, v float64, i int) float64 {
		now := float64(i) * stretched.Seconds()
		switch {
		case math.IsInf(v, 0) || v == 0:
			return v
		case strings.HasPrefix(name, "usher_contact_period_seconds"):
			return v * factor
		case strings.HasPrefix(name, "usher_contact_"), strings.HasPrefix(name, "usher_check_in_due"),
			strings.HasPrefix(name, "usher_heartbeat_deadline"):
			return now + (v-float64(at[i].UnixMilli())/1000+stalled.between(v, at[i]))*factor
		case strings.Contains(name, "_timestamp_seconds"):
			return now + v - float64(at[i].UnixMilli())/1000
		}
		return v
	}
	var groups []map[string]any
	for kind, all := range said {
		values := map[string][]string{`up{job="usher"}`: nil}
		for i, one := range all {
			values[`up{job="usher"}`] = append(values[`up{job="usher"}`], "1")
			for name, v := range one {
				if !strings.HasPrefix(name, "usher_") {
					continue
				}
				for len(values[name]) < i {
					values[name] = append(values[name], "_")
				}
				values[name] = append(values[name], strings.Replace(
					strconv.FormatFloat(moved(name, v, i), 'f', -1, 64), "+Inf", "Inf", 1))
			}
		}
		var input []map[string]string
		for name, v := range values {
			input = append(input, map[string]string{"series": name, "values": strings.Join(v, " ")})
		}
		var tests []map[string]any
		for minute := 1; minute < 60; minute++ {
			tests = append(tests, firing("", fmt.Sprint(minute, "m"), 0))
		}
		groups = append(groups, map[string]any{"name": kind, "interval": stretched.String(), "input_series": input,
			"promql_expr_test": tests})
	}
	promTest(t, groups)
}

// stalls are spans in which the host did not run the test, and hardly the agents.
type stalls [][2]time.Time

// between returns how many seconds of them lie between a time in seconds and a later one.
func (all stalls) between(from float64, to time.Time) (n float64) {
	for _, s := range all {
		begin, end := float64(s[0].UnixMilli())/1000, float64(s[1].UnixMilli())/1000
		n += max(0, min(end, float64(to.UnixMilli())/1000)-max(begin, from))
	}
	return n
}

// shortened is the alert file with no alert waiting, and with windows of ten seconds, as a text.
func shortened(t *testing.T) string {
	text := regexp.MustCompile(`(?m)^( +for: ).*$`).ReplaceAllString(read(t, alertFile), "${1}0s")
	return regexp.MustCompile(`\[\d+m\]`).ReplaceAllString(text, "[10s]")
}
