package agent_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// keptDenials returns what the event log, which must verify, says of denials.
func (h *house) keptDenials() (out []eventlog.Event) {
	h.t.Helper()
	dir, key, err := h.eventLog()
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := eventlog.Verify(dir, key, func(e eventlog.Event) {
		if e.Type == "lease.denied" {
			out = append(out, e)
		}
	}); err != nil {
		h.t.Error(err)
	}
	return out
}

// untilKept waits until the event log has so many lines of denials.
func (h *house) untilKept(n int) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); len(h.keptDenials()) < n; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("the event log has less than %d lines of denials", n)
		}
	}
}

// keepsFour looks that the event log has four lines of so many denials of each of two kinds.
func (h *house) keepsFour(users string, each int64) {
	h.t.Helper()
	kept := map[string]int64{}
	lines := h.keptDenials()
	for _, e := range lines {
		n, err := strconv.ParseInt(e.Fields["count"], 10, 64)
		if err != nil {
			h.t.Error(err)
		}
		kept[e.Code] += n
		if (e.Actor != "") != (users == "plain") || e.Code == "no_slots" && e.Subject != "streams" ||
			e.Detail == "" {
			h.t.Errorf("a line of the log is %+v", e)
		}
	}
	if kept["no_slots"] != each || kept["pool_unknown"] != each || len(lines) != 4 {
		h.t.Errorf("the log has %v in %d lines: %+v", kept, len(lines), lines)
	}
}

// A caller that is denied in a loop is told of, with the pool, the code, the reason and the number of times, to those
// who listen and in the event log, and floods neither.
func TestDenialsAreEvents(t *testing.T) {
	t.Parallel()
	const flood = 600
	for _, users := range []string{"omit", "plain"} {
		t.Run(users, func(t *testing.T) {
			h := open(t, "privacy: {users: "+users+"}\n")
			h.drop("a.lic", h.sign("a", 1, nil))
			h.until("dropped", inForce("a"))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			heard := make(chan wire.Event, flood)
			listens := make(chan struct{})
			once := sync.OnceFunc(func() { close(listens) })
			go func() {
				defer close(heard)
				for ev, err := range h.Events(ctx) {
					if err != nil {
						return
					}
					if ev.Type == "license.changed" { // also when it changes again
						once()
					}
					if ev.Type == "lease.denied" {
						heard <- ev
					}
				}
			}()
			<-listens
			if _, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams"}); err != nil {
				t.Fatal(err)
			}
			deny := func(pool string) {
				var p *client.Error
				if _, err := h.Acquire(ctx, wire.AcquireRequest{Pool: pool}); !errors.As(err, &p) {
					t.Fatalf("an acquire of pool %s: %v", pool, err)
				}
			}
			deny("streams")
			first := <-heard
			if first.Code != "no_slots" || first.Pool != "streams" || first.Count != 1 || first.Since != nil ||
				first.Reason == "" || first.Holder == nil || int(first.Holder.PID) != os.Getpid() {
				t.Errorf("the first denial is told as %+v, of %+v", first, first.Holder)
			}
			// Each kind's first line is in the log, so that the others of it come to one line more.
			h.untilKept(1)
			deny("no such pool")
			h.untilKept(2)
			for i := range flood { // a name that nobody knows is the caller's to choose
				deny(map[bool]string{false: "streams", true: "no such pool " + strconv.Itoa(i)}[i%2 == 1])
			}
			told := map[string]int64{"no_slots": 1}
			events := 1
			for told["no_slots"] < flood/2+1 || told["pool_unknown"] < flood/2+1 {
				ev, ok := <-heard
				if !ok {
					t.Fatalf("of the denials %v were told", told)
				}
				told[ev.Code] += ev.Count
				events++
			}
			if told["no_slots"]+told["pool_unknown"] != flood+2 || events > 40 {
				t.Errorf("%d denials are told as %v in %d events", flood+2, told, events)
			}
			h.stop() // what is gathered is written
			h.keepsFour(users, flood/2+1)
		})
	}
}

// A user hears of its own denials, and an admin of all.
func TestDenialsOfOthers(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	h := open(t, "")
	for name, mode := range map[string]os.FileMode{h.dir: 0o755, h.path("s"): 0o777} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	p := h.play(`
os.setresgid(4711, 4711, 4711); os.setresuid(4711, 4711, 4711)
s = session(); f = s.makefile(); send(s, "events.subscribe"); say(f.readline().strip())
while True:
    line = f.readline().strip()
    if "lease.denied" in line: say(line)
`)
	if got := p.hear(); !strings.Contains(got, `"result"`) {
		t.Fatal(got)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		lacks(t, "there is no curl")
	}
	for _, uid := range []uint32{0, somebody + 1, somebody} {
		if got := h.as(uid, "POST", "/v1/leases", `{"pool":"of `+strconv.Itoa(int(uid))+`"}`); !strings.HasPrefix(got,
			"404 ") {
			t.Fatal(got)
		}
	}
	if got := p.hear(); !strings.Contains(got, `"pool":"of 4711"`) || !strings.Contains(got, `"uid":4711`) {
		t.Errorf("somebody hears %s", got)
	}
}
