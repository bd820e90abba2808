package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// hangUps are moments of a start: what the agent's process does when SIGHUP comes, as strace injects it, and whether
// the agent's own code runs by then, which reads the configuration again.
var hangUps = map[string]bool{
	"rt_sigaction:signal=HUP:when=2":      false, // the second system call: the entry notes what is ignored
	"sched_getaffinity:signal=HUP:when=1": false, // Go's runtime begins
	"rt_sigaction:signal=HUP:when=90":     false, // it installs its handlers
	"clone:signal=HUP:when=1":             false, // it has its first thread
	"mkdirat:signal=HUP:when=1":           true,  // the agent makes its folders
	"listen:signal=HUP:when=1":            true,  // it opens its socket
}

// A SIGHUP that comes while the agent starts never ends it, from its first system call on. Once it runs, it reads its
// configuration again for one.
func TestHangUpAtTheStart(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("only the entry of linux/amd64 has SIGHUP ignored: docs/liveness.md says so")
	}
	tracer := straceOf(t)
	for at, reads := range hangUps {
		w := newWhole(t)
		call, _, _ := strings.Cut(at, ":")
		log, err := os.Create(filepath.Join(w.dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		traced := filepath.Join(w.dir, "traced")
		w.start(log, tracer, "-D", "-f", "-o", traced, "-e", "trace="+call, "-e", "inject="+at)
		w.ready()
		if !strings.Contains(read(t, traced), "SIGHUP") {
			t.Errorf("%s: there was no SIGHUP", at)
		}
		if reads {
			within(t, at+": the configuration is not read again", func() bool {
				return strings.Contains(read(t, log.Name()), "the configuration was reloaded")
			})
		}
	}
}
