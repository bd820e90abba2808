package main

import (
	"crypto/rand"
	"encoding/json"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fleetTrial is a fleet whose faults are made: an etcd, two agents, and one to which etcd is slow.
type fleetTrial struct {
	*scene
	address    string
	etcd       *exec.Cmd
	a, b, slow *process
	p          *prometheus
}

// licence signs a licence of the whole site.
func (x *fleetTrial) licence(id string, streams int, more ...string) string {
	return x.sign(id, over([]string{"--limit", "streams=" + strconv.Itoa(streams), "--scope", "site", "--expires",
		"365d"}, more...)...)
}

func newFleetTrial(t *testing.T) *fleetTrial {
	x := &fleetTrial{scene: newScene(t)}
	x.address, x.etcd = startEtcd(t, "--quota-backend-bytes", "4000000")
	document := x.licence("site", 10, "--issued", "2026-01-01")
	agent := func(name, at, ttl string) *process {
		return x.agent(name, "fleet: {ttl: "+ttl+", name: "+name+", endpoints: ['"+at+"']}\n", document)
	}
	x.a, x.b = agent("a", x.address, "5s"), agent("b", x.address, "5s")
	x.slow = agent("slow", slowly(t, x.address, 700*time.Millisecond), "1m")
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, args := range [][]string{{"alarm", "list"}, {"endpoint", "status", "-w", "table"},
			{"get", "--prefix", "/usher/"}} {
			out, err := x.etcdctl(args...)
			t.Logf("etcdctl %v: %v\n%s", args, err, out)
		}
	})
	return x
}

// must has an agent do something.
func (x *fleetTrial) must(of *process, args ...string) string {
	x.t.Helper()
	out, err := of.ask(args...)
	if err != nil {
		x.t.Fatalf("usher %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// etcdctl runs etcdctl.
func (x *fleetTrial) etcdctl(args ...string) (string, error) {
	cmd := exec.Command(debianTool(x.t, "etcdctl"), append([]string{"--endpoints", x.address}, args...)...)
	cmd.Env = append(cmd.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (x *fleetTrial) mustEtcdctl(args ...string) {
	x.t.Helper()
	if out, err := x.etcdctl(args...); err != nil {
		x.t.Fatalf("etcdctl %v: %v\n%s", args, err, out)
	}
}

// fill writes into etcd until its quota is used up, and has an agent need a write.
func (x *fleetTrial) fill() {
	await(x.t, "etcd is out of quota", func() bool {
		out, err := x.etcdctl("put", "/other/"+rand.Text(), strings.Repeat("x", 120_000))
		return err != nil && strings.Contains(out, "space exceeded")
	})
	_, _ = x.a.ask("acquire", "--pool", "streams", "--n", "9", "--ttl", "1h") // which its block does not have
}

// empty makes room again, as the runbook says: for good, so that nothing that the fleet writes later fills it.
func (x *fleetTrial) empty() {
	var is struct {
		Header struct{ Revision int64 }
	}
	x.mustEtcdctl("del", "--prefix", "/other/")
	out, err := x.etcdctl("get", "/other/", "-w", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &is)
	}
	if err != nil {
		x.t.Fatalf("%v: %s", err, out)
	}
	x.mustEtcdctl("compact", "--physical", strconv.FormatInt(is.Header.Revision, 10))
	await(x.t, "etcd has room again", func() bool { // a write that comes late raises the alarm again
		x.mustEtcdctl("defrag")
		x.mustEtcdctl("alarm", "disarm")
		alarms, err := x.etcdctl("alarm", "list")
		return err == nil && strings.TrimSpace(alarms) == ""
	})
}

func (x *fleetTrial) faults() []injected {
	signal := func(s syscall.Signal) func() {
		return func() {
			if err := x.etcd.Process.Signal(s); err != nil {
				x.t.Fatal(err)
			}
		}
	}
	nothing := func() {}
	return []injected{
		{"UsherFleetNotAdmitted", x.b, func() { _, _ = x.a.ask("fleet", "evict", "b", "--wait", "0s") },
			func() { x.must(x.a, "fleet", "evict", "--undo", "b") }},
		{"UsherFleetQuarantine", x.a, func() { x.mustEtcdctl("put", "/usher/q", `{"reason":"a trial"}`) },
			func() { x.mustEtcdctl("del", "/usher/q") }},
		{"UsherFleetLimitLower", x.a, func() {
			x.must(x.b, "license", "install", "--name", "lower.lic", x.licence("lower", 8))
			await(x.t, "b has a slot under it", func() bool { // an agent that is kept waiting denies it as late
				_, err := x.b.ask("acquire", "--pool", "streams", "--ttl", "5s", "--wait", "30s")
				return err == nil
			})
		}, func() { x.must(x.b, "license", "remove", "lower.lic") }},
		{"UsherFleetNoSpace", x.a, x.fill, x.empty},
		{"UsherFleetCutOff", x.a, signal(syscall.SIGSTOP), nothing},
		{"UsherFleetFenced", x.a, nothing, signal(syscall.SIGCONT)},
	}
}

// A real Prometheus scrapes real agents on a real etcd: each alert of the fleet fires on its fault and not without, and
// an etcd that does not answer is no slow one. Each query of the board's row finds something.
func TestFleetAlertsFireAndClear(t *testing.T) {
	t.Parallel()
	debianTool(t, "prometheus")
	x := newFleetTrial(t)
	for _, of := range []*process{x.a, x.b} {
		x.must(of, "acquire", "--pool", "streams", "--ttl", "1h", "--wait", "50s")
	}
	x.p = startPrometheus(t, x.a, x.b, x.slow)
	firing := func(more string) string {
		return `count(ALERTS{alertstate="firing",alertname=~"UsherFleet.*|UsherSiteServerSilent"` + more +
			`}) or vector(0)`
	}
	healthy := firing(`,instance=~"` + x.a.listen + "|" + x.b.listen + `"`)
	await(t, "no alert of a healthy fleet fires", func() bool {
		members, err := x.p.query(`sum(usher_fleet_state{state="member"}) >= 2`)
		out, errAlerts := x.p.query(healthy)
		return err == nil && errAlerts == nil && len(members) == 1 && len(out) == 1 && out[0] == "0"
	})
	for _, alert := range alerts(t) {
		made := alert.Alert == "UsherFleetSlow"
		for _, f := range x.faults() {
			made = made || f.alert == alert.Alert
		}
		if strings.HasPrefix(alert.Alert, "UsherFleet") && !made {
			t.Errorf("no fault is made of %s", alert.Alert)
		}
	}
	// The one to which etcd is slow writes: its block grows and shrinks.
	lease := ""
	await(t, "UsherFleetSlow of slow fires", func() bool {
		if lease == "" {
			lease, _ = x.slow.ask("acquire", "--pool", "streams", "--n", "3", "--ttl", "10s", "--wait", "30s")
		}
		out, err := x.p.query(`ALERTS{alertname="UsherFleetSlow",alertstate="firing",instance="` + x.slow.listen + `"}`)
		return err == nil && len(out) > 0
	})
	for _, f := range x.faults() {
		f.begin()
		x.p.fires(f.alert, f.of, true)
		if out, err := x.p.query(firing(`,alertname=~"UsherFleetSlow|UsherSiteServerSilent",instance="` +
			x.a.listen + `"`)); f.alert == "UsherFleetFenced" && (err != nil || out[0] != "0") {
			t.Errorf("while etcd does not answer, it is slow, or a site server is silent: %v, %v", out, err)
		}
		f.end()
		if f.alert != "UsherFleetCutOff" {
			x.p.fires(f.alert, f.of, false)
		}
	}
	x.p.fires("UsherFleetCutOff", x.a, false)
	// What dies with b is more than half of the pool, so that others need it.
	x.must(x.b, "acquire", "--pool", "streams", "--n", "5", "--ttl", "1h", "--wait", "50s")
	_ = x.b.cmd.Process.Kill()
	x.must(x.a, "acquire", "--pool", "streams", "--n", "5", "--ttl", "1h", "--wait", "50s")
	x.p.showsFleet(readBoard(t))
}

// showsFleet asks a Prometheus for every query of the board's row of the fleet: each finds something.
func (p *prometheus) showsFleet(b board) {
	p.t.Helper()
	fill := strings.NewReplacer("$job", "usher", "$instance", ".*")
	fleets, n := regexp.MustCompile(`usher_fleet_`), 0
	for _, x := range b.Panels {
		for _, q := range x.Targets {
			if !fleets.MatchString(q.Expr) {
				continue
			}
			n++
			await(p.t, "panel "+x.Title+" has data: "+q.Expr, func() bool {
				series, err := p.series(fill.Replace(q.Expr))
				return err == nil && len(series) > 0
			})
		}
	}
	if n < 6 {
		p.t.Errorf("the board has %d queries of a fleet", n)
	}
}
