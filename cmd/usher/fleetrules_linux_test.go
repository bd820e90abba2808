package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// asks runs the tool against the ward's agent, and returns its code, what it answers, and what it says besides.
func (w *ward) asks(args ...string) (code int, answer, said string) {
	w.Helper()
	var out, errs strings.Builder
	code = run(append(args, "--socket", w.socket), strings.NewReader(""), &out, &errs)
	return code, strings.TrimSpace(out.String()), errs.String()
}

// denied waits until an acquire of one slot is denied in such words.
func (w *ward) denied(ok func(said string) bool) {
	w.Helper()
	for end := time.Now().Add(2 * time.Minute); ; <-time.After(100 * time.Millisecond) {
		code, _, said := w.asks("acquire", "--pool", "streams")
		if code == exitNoSlot && ok(said) {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("exit %d: %s", code, said)
		}
	}
}

// A rule for hosts, set by the command line in a real etcd, holds for the agents of the fleet that it is about: more
// than it lets them have is denied by its name, the others get the rest, and both have all again when it is gone.
func TestFleetRules(t *testing.T) {
	berlin, paris := newWard(t), newWard(t)
	etcd, _ := berlin.realEtcd()
	berlin.sign("a.lic", "--scope", "site", "--expires", "365d")
	for _, name := range []string{"l/a.lic", "keys/k1.pub"} { // one licence, of one vendor
		b, err := os.ReadFile(berlin.path(name))
		berlin.must(err)
		paris.must(os.WriteFile(paris.path(name), b, 0o644))
	}
	for site, w := range map[string]*ward{"berlin": berlin, "paris": paris} {
		w.configure("", fmt.Sprintf("fleet: {ttl: 5s, name: %s-1, labels: {site: %[1]s}, endpoints: ['%s']}\n", site,
			etcd))
	}
	rules := func(want int, text string) string {
		t.Helper()
		return berlin.usher(want, "fleet", "rules", "set", berlin.write("rules.yaml", text), "--config",
			berlin.path("u.yaml"))
	}
	rules(exitConfig, "rules: [{name: empty, match: {label: {site: berlin}}}]\n")
	rules(0, "rules: [{name: few-for-berlin, match: {label: {site: berlin}}, pools: [str*], max: 1}]\n")
	berlin.run()
	paris.run()
	take := func(w *ward, n string) string {
		t.Helper()
		code, id, said := w.asks("acquire", "--pool", "streams", "--n", n, "--ttl", "1h", "--wait", "2m")
		if code != 0 {
			t.Fatalf("exit %d: %s", code, said)
		}
		return id
	}
	held := take(berlin, "1")
	named := func(said string) bool { return strings.Contains(said, "few-for-berlin") }
	berlin.denied(named)
	if got := berlin.usher(0, "fleet", "rules", "--config", berlin.path("u.yaml")); !strings.Contains(got,
		"few-for-berlin") || !strings.Contains(got, "streams=1") {
		t.Errorf("the rules are %s", got)
	}
	take(paris, "1")
	if code, _, said := berlin.asks("release", held); code != 0 {
		t.Fatal(said)
	}
	rules(0, "rules: []\n")
	take(berlin, "1")
	berlin.denied(func(said string) bool { return !named(said) })
}
