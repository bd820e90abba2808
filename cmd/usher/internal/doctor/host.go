package doctor

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// kernel reports how the agent can learn here of a holder's death.
func (e *exam) kernel() {
	s := liveness.Supported()
	again := "by number and start time"
	if s.Handles {
		again = "by file handle"
	}
	switch {
	case s.PeerPIDFD:
		e.ok("liveness",
			"the kernel (%s) reports the death of any holder (peerpidfd); after a restart the agent finds holders %s",
			s.Kernel, again)
	case s.PIDFDOpen:
		e.ok("liveness",
			"the kernel (%s) reports the death of a holder that sends its own pidfd (sentpidfd), as our client does, "+
				"or whose process the agent can see (pidfd); after a restart the agent finds holders %s", s.Kernel,
			again)
	default:
		e.warn("KERNEL_OLD", "liveness", "keep the connection open for as long as slots are held, or take Linux 5.3 "+
			"or later", "the kernel (%s) does not report the death of other processes; a lease lives by its connection",
			dash(s.Kernel))
	}
}

// host says what identifies this host: as the running agent sees it, or as this command does.
func (e *exam) host() {
	f := e.fingerprint()
	present := 0
	for _, k := range f.Components {
		if len(k.Values) > 0 && k.Note == "" {
			present++
		}
		if k.Name == "machine-id" && len(k.Values) == 0 {
			e.warn("HOST_NO_ID", "host",
				"run systemd-machine-id-setup, or in a container mount the host's /etc and set HOST_ETC; a licence "+
					"can be bound to the agent's key instead", "the host has no machine-id: %s", k.Absent)
		}
	}
	virtual, container := cmp.Or(f.Virtual, "none"), cmp.Or(f.Container, "none")
	if present < 2 {
		e.warn("HOST_FEW", "host",
			"bind the licence to the agent's key, or mount the host's /sys and /etc",
			"%d of %d components can be read, too few for a licence that is bound to this host (virtual machine: %s, "+
				"container: %s)", present, len(f.Components), virtual, container)
		return
	}
	e.ok("host", "%d of %d components can be read; virtual machine: %s; container: %s", present,
		len(f.Components), virtual, container)
}

// fingerprint is this host's, for any product.
func (e *exam) fingerprint() *wire.Fingerprint {
	if e.up {
		ctx, cancel := e.within()
		defer cancel()
		if f, err := e.client.Fingerprint(ctx, ""); err == nil {
			return f
		}
	}
	var extra map[string]string
	if e.cfg != nil {
		extra = e.cfg.Host.Components
	}
	f := host.Measure(e.ctx, host.Config{Product: "doctor", Extra: extra}).Shape("")
	return &f
}

// bounds of the open files of an agent: it keeps 128 of them for itself
const (
	fewFiles    = 256
	modestFiles = 1024
)

// descriptors says how many files the agent may open.
func (e *exam) descriptors() {
	limit, used, whose := openFiles(e.pid)
	if e.pid == 0 && e.Unit != nil && e.Unit.NoFile != "" {
		soft, _, _ := strings.Cut(e.Unit.NoFile, ":")
		if n, err := strconv.ParseUint(soft, 10, 64); err == nil {
			limit, whose = n, e.Unit.Service
		}
	}
	mend := "raise LimitNOFILE of the unit, or `ulimit -n` before the agent's start, to 65536"
	switch {
	case limit == 0:
		return
	case used > 0 && used+used/16 >= limit:
		e.warn("DESCRIPTORS_USED", "descriptors", mend, "%s has %d of %d files open", whose, used, limit)
	case limit < fewFiles:
		e.bad("DESCRIPTORS_LOW", "descriptors", mend, "%s may open %d files, of which it keeps 128 for itself, so "+
			"that at most %d callers connect", whose, limit, max(int64(limit)-128, 64))
	case limit < modestFiles:
		e.warn("DESCRIPTORS_LOW", "descriptors", mend, "%s may open %d files, so that at most %d callers connect",
			whose, limit, limit-128)
	default:
		e.ok("descriptors", "%s may open %d files", whose, limit)
	}
}

// polls reports whether the running agent looks at the licence folder again and again.
func (e *exam) polls() bool {
	return e.said != nil && slices.ContainsFunc(e.said.Warnings, func(w wire.Warning) bool {
		return w.Code == string(enforcer.WarnPolling)
	})
}

// notifications tries whether the kernel tells the agent's user of changes in the licence folder.
func (e *exam) notifications() {
	if e.cfg == nil || e.up && !e.polls() { // an agent that watches has what it needs
		return
	}
	dir := e.cfg.License.Path
	var err error
	if failed := e.agent.do(func() { err = watchable(dir) }); failed != nil {
		e.notLooked("watching", failed)
		return
	}
	mend := "raise fs.inotify.max_user_watches and max_user_instances (sysctl); the agent polls meanwhile"
	switch {
	case errors.Is(err, syscall.EMFILE):
		e.warn("NOTIFY_EXHAUSTED", "watching", mend, "%s has no inotify instance left (fs.inotify."+
			"max_user_instances), so the licence folder is polled", e.agent)
	case errors.Is(err, syscall.ENOSPC):
		e.warn("NOTIFY_EXHAUSTED", "watching", mend, "%s has no inotify watch left (fs.inotify.max_user_watches), so "+
			"the licence folder is polled", e.agent)
	case err == nil:
		e.ok("watching", "the kernel tells of changes in %s", dir)
	}
}

// Bounds of a clock that can be right.
const (
	// before is the time before which no agent of this program can run.
	before = "2026-01-01T00:00:00Z"
	// untouched is for how long a host may go without any of its programs and settings being changed.
	untouched = 400 * 24 * time.Hour
)

// clock says whether the clock can be right, without an agent and without a network.
func (e *exam) clock() {
	now := e.Now()
	least, _ := time.Parse(time.RFC3339, before) // it is one
	if now.Before(least) {
		e.bad("CLOCK_PAST", "clock", "set the clock; does the host have a battery-backed clock, or a time server?",
			"the clock says %s, and this program is of %d", now.UTC().Format(time.RFC3339), least.Year())
		return
	}
	if isSynchronised() {
		return
	}
	files := []string{"/etc/os-release", "/etc/machine-id", "/etc/hostname", "/etc/resolv.conf", "/etc/passwd",
		"/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite", "/var/lib/rpm/Packages"}
	if exe, err := os.Executable(); err == nil {
		files = append(files, exe)
	}
	if e.cfg != nil {
		files = append(files, e.File, e.cfg.License.Path)
		for _, t := range e.cfg.License.Trust {
			files = append(files, t.KeyFile)
		}
	}
	if at, name := newest(e.ctx, files...); !at.IsZero() && now.Sub(at) > untouched {
		e.warn("CLOCK_AHEAD", "clock", "compare the clock with a good one, and set it; have a time server set it",
			"the clock says %s, no time server has set it, and the last change of this host that is known was %s (%s)",
			now.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339), name)
	}
}
