package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/seals"
)

// unmade are the alerts whose fault is not made here, and why. TestAlertRules fires them by series.
var unmade = map[string]string{
	"UsherHostMatchAtMinimum": "which components this host has, and so how many may be missing, differs from host " +
		"to host",
	"UsherFleetFenced":      ofEtcd,
	"UsherFleetCutOff":      ofEtcd,
	"UsherFleetNotAdmitted": ofEtcd,
	"UsherFleetQuarantine":  ofEtcd,
	"UsherFleetNoSpace":     ofEtcd,
	"UsherFleetSlow":        ofEtcd,
	"UsherFleetLimitLower":  ofEtcd,
	"UsherPluginDown":       "a plugin would have to be built; plugin/external tries one that dies",
}

// ofEtcd is why no fault of a fleet is made here.
const ofEtcd = "TestFleetAlertsFireAndClear runs an etcd, and makes it"

// must ends the test with an error.
func (x *trial) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// hostFaults are those of the host, of the agent's own files, and of what its callers do.
func (x *trial) hostFaults() []injected {
	listener, journal := x.path("online/k"), x.path("plain/state/"+seals.DurableJournal)
	filler := x.path("online/state/filler")
	var holder *exec.Cmd
	return []injected{
		{"UsherOverage", x.plain, func() {
			x.instead("over", "--limit", "streams=8", "--overage", "streams=2", "--expires", "365d")()
			x.take("9")()
		}, func() { x.release(); x.again() }},
		{"UsherRevokedStillAlive", x.plain, func() {
			x.instead("taken", "--limit", "streams=8", "--on-expiry", "revoke", "--expires", "365d")()
			holder = exec.Command("sleep", "1000")
			x.must(holder.Start())
			x.t.Cleanup(func() { holder.Process.Kill() })
			x.ask(x.plain, "acquire", "--pool", "streams", "--pid", strconv.Itoa(holder.Process.Pid))
			x.ask(x.plain, "license", "remove", "other.lic")
		}, func() {
			x.must(holder.Process.Kill())
			holder.Wait() // its end is what is wanted
			x.ask(x.plain, "license", "install", "--name", "long.lic", x.long)
		}},
		{"UsherVitalFault", x.online, func() {
			x.must(os.Remove(listener))
			x.must(os.Mkdir(listener, 0o700))
		}, func() { x.must(os.Remove(listener)) }},
		{"UsherStateTampered", x.plain, func() {
			x.plain.stop()
			x.must(os.Remove(journal))
			x.plain.start()
		}, func() {
			x.plain.stop()
			x.do("doctor", "--repair", "--config", x.path("plain.yaml"))
			x.plain.start()
		}},
		{"UsherDiskLow", x.online, func() {
			f, err := os.Create(filler)
			x.must(err)
			defer f.Close()
			x.must(syscall.Fallocate(int(f.Fd()), 0, 0, 20<<20))
		}, func() { x.must(os.Remove(filler)) }},
		{"UsherCheckInDue", x.checking, x.vendor.stop, x.vendor.start},
		{"UsherPolling", x.plain, func() {
			x.plain.stop()
			x.plain.within = []string{"unshare", "--user", "--map-root-user", "sh", "-c",
				`echo 0 > /proc/sys/user/max_inotify_instances && exec "$0" "$@"`}
			x.plain.start()
		}, func() {
			x.plain.stop()
			x.plain.within = nil
			x.plain.start()
		}},
		{"UsherClockAhead", x.timed, func() { x.ahead.Store(int64(48 * time.Hour)) }, func() { x.ahead.Store(0) }},
	}
}

// smallDisk puts an agent's state folder on a file system of its own, which has a little more room than the alert asks.
func (x *trial) smallDisk(name string) {
	at := x.path(name + "/state")
	x.must(os.MkdirAll(at, 0o700))
	x.must(syscall.Mount("tmpfs", at, "tmpfs", 0, "size=110m,mode=700"))
	x.t.Cleanup(func() { syscall.Unmount(at, syscall.MNT_DETACH) })
}

// inTime runs an agent within the test, whose clock is ahead by as much as x.ahead says.
func (x *trial) inTime(name, document string) *process {
	p := &process{scene: x.scene, name: name, listen: ownAddress(x.t)}
	x.ahead = new(atomic.Int64)
	x.must(os.MkdirAll(x.path(name+"/license.d"), 0o700))
	x.must(os.WriteFile(x.path(name+"/license.d/"+filepath.Base(document)), []byte(read(x.t, document)), 0o600))
	p.configure("")
	cfg, err := config.Load(config.Source{File: x.path(name + ".yaml")})
	x.must(err)
	a, err := agent.New(agent.Options{Config: cfg, Version: version,
		Now: func() time.Time { return time.Now().Add(time.Duration(x.ahead.Load())) }})
	x.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	x.t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-a.Ready():
	case <-time.After(time.Minute):
		x.t.Fatal("the agent is not ready")
	}
	return p
}
