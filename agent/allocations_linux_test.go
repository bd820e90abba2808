package agent_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/plugin/usher"
)

// mostAllocations is how many an acquire and its release in a session may make, on average, in the whole agent: the
// lease, its place, and now and then a page of a list.
const mostAllocations = 4

// The commonest calls of a session make next to no garbage.
func TestAllocationsOfAPair(t *testing.T) {
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1000, nil))
	h.until("valid", inForce("a"))
	c, err := net.Dial("unix", h.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReaderSize(c, 16<<10)
	ask := func(line []byte) []byte {
		if _, err := c.Write(line); err != nil {
			t.Fatal(err)
		}
		answer, err := in.ReadSlice('\n')
		if err != nil || !bytes.Contains(answer, []byte(`"result":{`)) {
			t.Fatalf("%s, %v", answer, err)
		}
		return answer
	}
	begin := []byte(`"id":"`)
	for _, params := range []string{`{"pool":"streams"}`, `{"pool":"streams","n":2}`} {
		acquire := []byte(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":` + params + "}\n")
		release := []byte(`{"jsonrpc":"2.0","id":2,"method":"lease.release","params":{"id":"` +
			"00000000000000000000000000000000" + "\"}}\n")
		at := bytes.Index(release, begin) + len(begin)
		ask(acquire) // this one stands all the while
		got := testing.AllocsPerRun(500, func() {
			answer := ask(acquire)
			id := bytes.Index(answer, begin) + len(begin)
			copy(release[at:at+32], answer[id:id+32])
			ask(release)
		})
		most := float64(mostAllocations)
		if raceDetector() {
			most *= 4 // a sync.Pool forgets things at random
		}
		if got > most {
			t.Errorf("an acquire of %s and its release make %v allocations, want at most %v", params, got, most)
		}
	}
}

// raceDetector reports whether this test is one with the race detector, which needs memory of its own.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// collected returns what is in use once garbage was collected twice: a stack is halved once a collection, and what a
// pool of memory keeps is gone after two.
func collected() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// mostOfASession is how many bytes a session that is idle and holds a lease may take in the whole agent once garbage
// was collected: 4 KiB of stack, some 3 KiB of heap, and room for a little more.
const mostOfASession = 8 << 10

// A session that is idle takes little memory. What it needs for a message, others need in turn.
func TestMemoryOfASession(t *testing.T) {
	if raceDetector() {
		t.Skip("the race detector makes stacks larger")
	}
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1000, nil))
	h.until("valid", inForce("a"))
	used := func() int64 {
		m := collected()
		return int64(m.HeapAlloc + m.StackInuse)
	}
	const sessions = 300
	const acquire = `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}` + "\n"
	var answer [4096]byte
	before := used()
	for range sessions {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // without memory of Go's
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: h.Socket()}); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte(acquire)); err != nil {
			t.Fatal(err)
		}
		n, err := unix.Read(fd, answer[:])
		if err != nil || !bytes.Contains(answer[:n], []byte(`"result":{`)) {
			t.Fatalf("%s, %v", answer[:n], err)
		}
	}
	each := (used() - before) / sessions
	if t.Logf("a session takes %d bytes", each); each > mostOfASession {
		t.Errorf("a session takes %d bytes, want at most %d", each, mostOfASession)
	}
}

// mostOfAPool is how many bytes a pool that nobody uses may take in the whole agent once garbage was collected.
const mostOfAPool = 1100

// A licence of thousands of pools, most of which nobody uses, takes little memory, and is shown whole.
func TestMemoryOfAPool(t *testing.T) {
	if raceDetector() {
		t.Skip("the race detector has pieces of memory of its own")
	}
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1000, nil))
	h.until("valid", inForce("a"))
	used := func() int64 { return int64(collected().HeapAlloc) }
	const pools = 3500
	before := used()
	h.drop("a.lic", h.sign("a2", 1000, func(c *usher.Claims) {
		for i := range pools {
			c.Pools[fmt.Sprint("p", i)] = usher.Pool{Max: new(int64(i)), Scope: "host"}
		}
	}))
	h.until("valid", inForce("a2"))
	each := (used() - before) / pools
	if t.Logf("a pool takes %d bytes", each); each > mostOfAPool {
		t.Errorf("a pool takes %d bytes, want at most %d", each, mostOfAPool)
	}
	l := h.until("still valid", inForce("a2"))
	if all, is := l.Licenses[0].Terms["pools"].(map[string]any); !is || len(all) != pools+1 {
		t.Errorf("the terms show %d pools, want %d", len(all), pools+1)
	}
}
