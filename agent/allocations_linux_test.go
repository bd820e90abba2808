package agent_test

import (
	"bufio"
	"bytes"
	"net"
	"testing"
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
		if got > mostAllocations {
			t.Errorf("an acquire of %s and its release make %v allocations, want at most %d", params, got,
				mostAllocations)
		}
	}
}
