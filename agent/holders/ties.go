package holders

import (
	"slices"

	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// ties are the leases that live by processes. Nearly every lease lives by one process, which takes no memory of its
// own.
type ties struct {
	leases enforcer.Table[tie]
	joint  map[enforcer.LeaseID][]*holding // the further processes of leases that live by several
	counts [paths]int                      // of leases, by how their first process is watched
	used   [paths]bool                     // there was such a lease
}

type tie struct {
	by   *holding // its first process
	path uint8    // how that one's death becomes known: an index of tiePaths
}

// paths is how many ways there are in which a process is watched.
const paths = 4

// tiePaths are these ways.
var tiePaths = [paths]liveness.Path{liveness.PathPeerPIDFD, liveness.PathSentPIDFD, liveness.PathPIDFD,
	liveness.PathConnection}

func newTies() ties {
	return ties{joint: map[enforcer.LeaseID][]*holding{}}
}

// of returns the processes that a lease lives by.
func (t *ties) of(id enforcer.LeaseID) []*holding {
	first, ok := t.leases.Get(id)
	if !ok {
		return nil
	}
	return append([]*holding{first.by}, t.joint[id]...)
}

// add has a lease live by a process, too.
func (t *ties) add(id enforcer.LeaseID, x *holding, path liveness.Path) {
	way := uint8(max(0, slices.Index(tiePaths[:], path)))
	if first, known := t.leases.Add(id, tie{x, way}); known {
		if first.by != x && !slices.Contains(t.joint[id], x) {
			t.joint[id] = append(t.joint[id], x)
		}
		return
	}
	t.counts[way]++
	t.used[way] = true
}

// addAll has leases live by a process, too.
func (t *ties) addAll(ids []enforcer.LeaseID, x *holding, path liveness.Path) {
	t.leases.Reserve(t.leases.Len() + len(ids))
	for _, id := range ids {
		t.add(id, x, path)
	}
}

// remove has a lease no longer live by a process.
func (t *ties) remove(id enforcer.LeaseID, x *holding) {
	rest := slices.DeleteFunc(t.of(id), func(o *holding) bool { return o == x })
	if len(rest) == 0 {
		t.end(id)
		return
	}
	t.leases.Find(id).by = rest[0]
	if t.joint[id] = rest[1:]; len(rest) == 1 {
		delete(t.joint, id)
	}
}

// end forgets a lease.
func (t *ties) end(id enforcer.LeaseID) {
	if first, ok := t.leases.Get(id); ok {
		t.counts[first.path]--
		t.leases.Delete(id)
		delete(t.joint, id)
	}
}

// path returns how the death of a lease's process becomes known; empty: it lives by none.
func (t *ties) path(id enforcer.LeaseID) string {
	if first, ok := t.leases.Get(id); ok {
		return string(tiePaths[first.path])
	}
	return ""
}

// byPath counts the leases by path.
func (t *ties) byPath() map[string]int {
	out := map[string]int{}
	for i, n := range t.counts {
		if t.used[i] {
			out[string(tiePaths[i])] = n
		}
	}
	return out
}
