package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A configuration that names etcd alone is enough to drain a host and to put one out: where all members of a fleet are
// site servers, there is no agent to ask, and etcd may know no users. A command that does not get there says why, in
// the words of its flags.
func TestFleetByConfiguration(t *testing.T) {
	w := newWard(t)
	etcd, stop := w.realEtcd()
	w.inFleet(etcd, "5s")
	w.untilFleet("member")
	operator := w.write("operator.yaml", "fleet: {endpoints: ['"+etcd+"']}\n")
	w.usher(0, "fleet", "drain", "host-1", "--config", operator)
	w.untilFleet("draining")
	w.usher(0, "fleet", "drain", "host-1", "--undo", "--config", operator)
	w.untilFleet("member")
	if got := w.usher(0, "fleet", "status", "--config", operator); !strings.Contains(got, "host-1") {
		t.Errorf("the fleet is %s", got)
	}
	says := func(want string, more ...string) {
		t.Helper()
		if code, _, said := w.asks(append([]string{"fleet", "status", "--config", operator}, more...)...); code == 0 ||
			!strings.Contains(said, want) {
			t.Errorf("exit %d: %s, want %q", code, said, want)
		}
	}
	says("--etcd-password-file: open "+w.path("none"), "--etcd-user", "op", "--etcd-password-file", w.path("none"))
	says("is empty", "--etcd-user", "op", "--etcd-password-file", w.write("empty", "\n"))
	stop()
	says("nobody listens there")
}

// The doctor that knows no configuration tells what the agent has found wrong with etcd, and with which mend.
func TestDoctorByTheAgentsWord(t *testing.T) {
	w := newWard(t)
	w.configure("", "fleet: {ttl: 5s, name: host-1, endpoints: ['http://"+ownAddress(t)+"']}\n")
	w.sign("a.lic", "--scope", "site", "--expires", "365d")
	w.run()
	for f := w.untilFleet("joining"); len(f.Store) == 0; f = w.untilFleet("joining") {
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
	got := strings.Join(w.doctorAs(func(cmd *exec.Cmd) {
		cmd.Args = append(slices.DeleteFunc(cmd.Args, func(s string) bool {
			return s == "--config" || s == w.path("u.yaml")
		}), "--socket", w.socket)
	}), "\n")
	for _, want := range []string{"FLEET_CONNECT", "nobody listens there", "start that member",
		"FLEET_FENCED", "joins by itself"} {
		if !strings.Contains(got, want) {
			t.Errorf("the doctor does not say %q: %s", want, got)
		}
	}
}
