package api

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// No caller has more than is left for all others, and what one gives back another can take.
func TestShares(t *testing.T) {
	s := newShares(100, 0)
	for _, test := range []struct{ uid, want int }{{1, 50}, {2, 25}, {3, 12}, {4, 6}} {
		n := 0
		for s.take(key{uid: uint32(test.uid)}, 1) {
			n++
		}
		if n != test.want {
			t.Errorf("uid %d has %d, want %d", test.uid, n, test.want)
		}
	}
	for range 50 {
		s.give(key{uid: 1}, 1)
	}
	if len(s.by) != 3 || !s.take(key{uid: 5}, 28) || s.take(key{uid: 6}, 15) {
		t.Errorf("after half was given back: %v, %d taken", s.by, s.taken)
	}
	// An operator's limit replaces the rule.
	s = newShares(100, 90)
	if !s.take(key{uid: 1}, 90) || s.take(key{uid: 1}, 1) || s.take(key{uid: 2}, 11) {
		t.Errorf("of one 90 at most: %v", s.by)
	}
}

// Each caller has one turn, and all together as many as there are. A caller that stops waiting leaves nothing behind.
func TestTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		turns := newTurns(2)
		var mu sync.Mutex
		now, most := map[uint32]int{}, map[uint32]int{}
		all, mostOfAll := 0, 0
		for i := range 60 {
			go func() {
				k := key{uid: uint32(i % 3)}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5+i%7)*time.Second)
				defer cancel()
				done, err := turns.take(ctx, k)
				if err != nil {
					return
				}
				defer done()
				mu.Lock()
				now[k.uid]++
				all++
				most[k.uid], mostOfAll = max(most[k.uid], now[k.uid]), max(mostOfAll, all)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				now[k.uid]--
				all--
				mu.Unlock()
			}()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if fmt.Sprint(most) != "map[0:1 1:1 2:1]" || mostOfAll != 2 || len(turns.of) != 0 || len(turns.all) != 0 {
			t.Errorf("at most %v of each and %d of all at once; left are %v, %d", most, mostOfAll, turns.of,
				len(turns.all))
		}
	})
}

// An executable is hashed once, however many callers ask, even if it matches no rule. Another file with its name, or
// the same file with other contents, is hashed again. A user that has many hashed keeps nobody else from it.
func TestExecutablesAreHashedOnce(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return name
	}
	sum := func(text string) string {
		h := sha256.Sum256([]byte(text))
		return hex.EncodeToString(h[:])
	}
	e := newExecutables(nil)
	one := write("one", "one")
	e.sum(key{uid: 1}, one)
	if len(e.known) != 0 {
		t.Error("what has only just changed is believed to stay")
	}
	// Nobody can set the clock of files: wait a little until the file has settled.
	for deadline := time.Now().Add(30 * time.Second); len(e.known) == 0; <-time.After(50 * time.Millisecond) {
		if e.sum(key{uid: 1}, one) != sum("one") || time.Now().After(deadline) {
			t.Fatal("it never settles")
		}
	}
	made := e.hashes
	var asked sync.WaitGroup
	for i := range 50 {
		asked.Go(func() {
			if got := e.sum(key{uid: uint32(i)}, one); got != sum("one") {
				t.Errorf("got %q", got)
			}
		})
	}
	asked.Wait()
	if e.hashes != made {
		t.Errorf("it was hashed %d times more", e.hashes-made)
	}
	write("one", "two")
	if got := e.sum(key{uid: 1}, one); got != sum("two") {
		t.Errorf("changed: %q", got)
	}
	if err := os.Rename(write("three", "three"), one); err != nil {
		t.Fatal(err)
	}
	if got := e.sum(key{uid: 1}, one); got != sum("three") {
		t.Errorf("replaced: %q", got)
	}
	if e.sum(key{uid: 1}, dir) != "" || e.sum(key{uid: 1}, filepath.Join(dir, "none")) != "" {
		t.Error("what is no file has a sum")
	}
	large := write("large", "")
	if err := os.Truncate(large, maxExecutable+1); err != nil {
		t.Fatal(err)
	}
	made = e.hashes
	if e.sum(key{uid: 1}, large) != "" || e.hashes != made {
		t.Error("what is too large is hashed")
	}

	// One caller has its turn, and another waits for none of its own.
	done, err := e.turns.take(t.Context(), key{uid: 7})
	if err != nil {
		t.Fatal(err)
	}
	four := write("four", "four")
	waits := make(chan string)
	go func() { waits <- e.sum(key{uid: 7}, four) }()
	if got := e.sum(key{uid: 8}, write("five", "five")); got != sum("five") {
		t.Errorf("beside another's: %q", got)
	}
	done()
	if got := <-waits; got != sum("four") {
		t.Errorf("after its own: %q", got)
	}
}

// A caller that another rule lets in waits for no hash.
func TestRulesThatNeedNoHashComeFirst(t *testing.T) {
	e := newExecutables(nil)
	done, err := e.turns.take(t.Context(), key{uid: 4711}) // and so none of its hashes can be made
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	uid := uint32(4711)
	p := &peer{uid: uid, pid: int32(os.Getpid()), exe: self, executables: e}
	if r := (Rules{Allow: []Rule{{ExeSHA256: strings.Repeat("0", 64)}, {UID: &uid}}}); !r.allowed(p) {
		t.Error("a caller who is allowed by its uid is not let in")
	}
}

// serveEcho runs a server on a socket until the test ends, and returns its path.
func serveEcho(t *testing.T, s *Server) string {
	t.Helper()
	path := filepath.Join(folder(t), "s")
	socket, err := Listen(SocketConfig{Path: path, GID: -1, Lock: lock})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx, socket) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		socket.Close()
	})
	return path
}

func connect(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// forever is a desk at which every waiting acquire waits for ever.
type forever struct{ echo }

func (forever) Session(*net.UnixConn, io.Closer, enforcer.Caller) Session { return forever{} }

func (forever) Begin(*enforcer.Acquire, func()) (Finish, bool) {
	return func(ctx context.Context) (Grant, *enforcer.Denial) {
		<-ctx.Done()
		return Grant{}, &enforcer.Denial{Code: enforcer.NoSlots, Detail: "nothing came free"}
	}, true
}

// A waiting request keeps what it needs, not the 64 KiB that were sent.
func TestWaitersKeepLittle(t *testing.T) {
	path := serveEcho(t, New(configOf(forever{})))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := heap()
	var all []net.Conn
	const sessions = 8
	for range sessions {
		c := connect(t, path)
		for id := range maxInFlight {
			fmt.Fprintf(c,
				`{"jsonrpc":"2.0","id":%d,"method":"lease.acquire","params":{"pool":"streams","wait_seconds":86400,`+
					`"nonce":"n"%s}}`+"\n", id, strings.Repeat(" ", 65_300))
		}
		// One more is refused at once: the session has read all others by then.
		fmt.Fprint(c, `{"jsonrpc":"2.0","id":99,"method":"lease.acquire","params":{"pool":"streams","wait_seconds":9}}`+
			"\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil ||
			!strings.Contains(line, "64 requests of this session wait already") {
			t.Fatalf("%q, %v", line, err)
		}
		all = append(all, c)
	}
	if each := (int64(heap()) - int64(before)) / (sessions * maxInFlight); each > 16<<10 {
		t.Errorf("a request of 64 KiB that waits keeps %d bytes", each)
	}
	runtime.KeepAlive(all)
}

// Half messages take from a share, and have some time to come to their end.
func TestHalfMessages(t *testing.T) {
	s := New(configOf(echo{}))
	s.kept = newShares(4*MaxLine, 0)
	s.readWithin = time.Second
	path := serveEcho(t, s)
	half := `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"` + strings.Repeat(" ", 8000)
	one, two, three := connect(t, path), connect(t, path), connect(t, path)
	for _, c := range []net.Conn{one, two} {
		if _, err := io.WriteString(c, half); err != nil {
			t.Fatal(err)
		}
	}
	me := key{uid: uint32(os.Getuid())}
	for deadline := time.Now().Add(30 * time.Second); s.kept.of(me) != 2*MaxLine; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are counted", s.kept.of(me))
		}
	}
	if _, err := io.WriteString(three, half); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(three).ReadString('\n'); err != nil || !strings.Contains(line, "rate_limited") {
		t.Errorf("one half message too many: %q, %v", line, err)
	}
	if _, err := io.WriteString(one, "}}\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(one).ReadString('\n'); err != nil || !strings.Contains(line, `"result":{"id"`) {
		t.Errorf("a long message that comes to its end: %q, %v", line, err)
	}
	if b, err := io.ReadAll(two); err != nil || len(b) > 0 {
		t.Errorf("one that never does: %q, %v", b, err)
	}
	for deadline := time.Now().Add(30 * time.Second); s.kept.of(me) != 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are counted in the end", s.kept.of(me))
		}
	}
	// A session that sent a long message may be silent for as long as it likes.
	<-time.After(2 * s.readWithin)
	if _, err := io.WriteString(one, `{"jsonrpc":"2.0","id":2,"method":"pools.list"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(one).ReadString('\n'); err != nil || !strings.Contains(line, "streams") {
		t.Errorf("after a silence: %q, %v", line, err)
	}
}

// Subscriptions take from a share.
func TestSubscriptionsAreShared(t *testing.T) {
	s := New(configOf(echo{}))
	s.subscribers = newShares(4, 0)
	path := serveEcho(t, s)
	ask := func(c net.Conn) string {
		t.Helper()
		if _, err := io.WriteString(c, `{"jsonrpc":"2.0","id":1,"method":"events.subscribe"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	one := connect(t, path)
	if a, again, b, third := ask(one), ask(one), ask(connect(t, path)),
		ask(connect(t, path)); strings.Contains(a+again+b, "error") || !strings.Contains(third, "rate_limited") {
		t.Errorf("%s%s%s%s", a, again, b, third)
	}
	one.Close()
	me := key{uid: uint32(os.Getuid())}
	for deadline := time.Now().Add(30 * time.Second); s.subscribers.of(me) != 1; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are counted", s.subscribers.of(me))
		}
	}
}
