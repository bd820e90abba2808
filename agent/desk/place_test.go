package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// The pod of a caller is looked up where a pool counts by pod, or is about to, and nowhere else; of a process that is
// not visible, and where it is known, nobody is asked.
func TestCallersArePlaced(t *testing.T) {
	asked := 0
	d := &Desk{podOf: func(pid int32, start uint64) string {
		if asked++; pid != 7 || start != 9 {
			t.Errorf("asked for process %d of %d", pid, start)
		}
		return "p"
	}}
	by := func(c, holders enforcer.CountBy) *enforcer.Verdict {
		return &enforcer.Verdict{Pools: map[string]enforcer.PoolGrant{"a": {CountBy: c, HoldersBy: holders}}}
	}
	for _, row := range []struct {
		name   string
		v      *enforcer.Verdict
		caller enforcer.Caller
		want   string
		asked  int
	}{
		{"by user", by(enforcer.CountUser, ""), enforcer.Caller{PID: 7, Start: 9}, "", 0},
		{"by pod", by(enforcer.CountPod, ""), enforcer.Caller{PID: 7, Start: 9}, "p", 1},
		{"co-holders by pod", by(enforcer.CountLease, enforcer.CountPod), enforcer.Caller{PID: 7, Start: 9}, "p", 1},
		{"by pod soon", &enforcer.Verdict{Until: time.Unix(9, 0), Next: []*enforcer.Verdict{by(enforcer.CountPod, "")}},
			enforcer.Caller{PID: 7, Start: 9}, "p", 1},
		{"a process that is not visible", by(enforcer.CountPod, ""), enforcer.Caller{Inode: 7}, "", 0},
		{"a pod that is known", by(enforcer.CountPod, ""), enforcer.Caller{PID: 7, Start: 9, Pod: "q"}, "q", 0},
	} {
		asked = 0
		d.byPod.Store(countsByPod(row.v))
		if d.Place(&row.caller); row.caller.Pod != row.want || asked != row.asked {
			t.Errorf("%s: in %q, asked %d times", row.name, row.caller.Pod, asked)
		}
	}
}
