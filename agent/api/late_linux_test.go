package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// lateDesk grants leases that are over at the n-th look at them; 0: at none.
type lateDesk struct {
	echo
	late func(request int) (look int)
	seen func() // at each look, before it says anything

	mu       *sync.Mutex
	requests *int
	looks    *[]int // at the answer of each request
}

func newLateDesk(late func(int) int) lateDesk {
	return lateDesk{late: late, mu: new(sync.Mutex), requests: new(int), looks: new([]int)}
}

func (d lateDesk) Session(*net.UnixConn, io.Closer, enforcer.Caller) Session { return d }

func (d lateDesk) fence(g Grant) Grant {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := *d.requests
	*d.requests++
	*d.looks = append(*d.looks, 0)
	if g.Lease != nil {
		g.ID = enforcer.LeaseID{byte(n + 1)}
	}
	g.Late = func(sent bool) *enforcer.Denial {
		if d.seen != nil {
			d.seen()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		(*d.looks)[n]++
		if sent != ((*d.looks)[n] > 1) {
			panic("the look before the answer is sent is taken for the one after it, or the other way round")
		}
		if (*d.looks)[n] != d.late(n) {
			return nil
		}
		return &enforcer.Denial{Code: enforcer.NotShared, Pool: "streams", Detail: "it was over before it answered"}
	}
	return g
}

func (d lateDesk) taken() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(*d.looks)
}

func (d lateDesk) Acquire(ctx context.Context, r *enforcer.Acquire) (Grant, *enforcer.Denial) {
	g, denial := d.echo.Acquire(ctx, r)
	return d.fence(g), denial
}

func (d lateDesk) Begin(r *enforcer.Acquire, _ func()) (Finish, bool) {
	return func(ctx context.Context) (Grant, *enforcer.Denial) { return d.Acquire(ctx, r) }, false
}

func (d lateDesk) Renew(r *enforcer.Renew) (Grant, *enforcer.Denial) {
	g, denial := d.echo.Renew(r)
	return d.fence(g), denial
}

func (d lateDesk) Join(id enforcer.LeaseID) (Grant, *enforcer.Denial) {
	g, denial := d.echo.Join(id)
	return d.fence(g), denial
}

func (lateDesk) Lease(enforcer.LeaseID) (*enforcer.Lease, bool) { return nil, false }

func (d lateDesk) Attach(id enforcer.LeaseID) (Grant, *enforcer.Denial) { return d.Join(id) }

// The session looks at a grant that may be over when it writes the answer, and not before. Of answers that are sent
// together, those that are over become denials, in their places, and the others stand. The session looks at each once
// more when it is sent.
func TestLateAnswersOfASession(t *testing.T) {
	id := enforcer.LeaseID{1}.String()
	requests := []string{
		`"lease.acquire","params":{"pool":"streams"}`,
		`"lease.acquire","params":{"pool":"streams","lifetime":"held"}`,
		`"lease.acquire","params":{"pool":"streams","client_token":"t"}`,
		`"lease.acquire","params":{"pool":"streams","wait_seconds":9}`,
		`"lease.join","params":{"id":"` + id + `"}`,
		`"lease.attach","params":{"id":"` + id + `"}`,
		`"lease.renew","params":{"id":"` + id + `"}`,
		`"lease.acquire","params":{"pool":"streams"}`,
	}
	var say strings.Builder
	for i, r := range requests {
		fmt.Fprintf(&say, `{"jsonrpc":"2.0","id":%d,"method":%s}`+"\n", i, r)
	}
	for name, late := range map[string]func(int) int{
		"none":        func(int) int { return 0 },
		"all":         func(int) int { return 1 },
		"every other": func(n int) int { return n % 2 },
		"the first":   func(n int) int { return max(0, 1-n) },
		"the last":    func(n int) int { return n / (len(requests) - 1) },
		"when sent":   func(int) int { return 2 },
	} {
		t.Run(name, func(t *testing.T) {
			d := newLateDesk(late)
			out := string(converse(t, New(configOf(d)), []byte(say.String())))
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if len(lines) != len(requests) {
				t.Fatalf("%d answers:\n%s", len(lines), out)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,`, i)) ||
					strings.Contains(line, `"code":"not_shared"`) != (late(i) == 1) ||
					strings.Contains(line, `"result"`) == (late(i) == 1) {
					t.Errorf("request %d: %s", i, line)
				}
			}
			for i, n := range d.taken() {
				if want := map[bool]int{true: 1, false: 2}[late(i) == 1]; n != want {
					t.Errorf("the answer of request %d was looked at %d times, want %d", i, n, want)
				}
			}
		})
	}
}

// waitingDesk grants what is over before it is answered, and says so, to the first acquires of a pool.
type waitingDesk struct {
	lateDesk
	waits chan time.Duration // how long each acquire would wait
}

func (d waitingDesk) Session(*net.UnixConn, io.Closer, enforcer.Caller) Session { return d }

func (d waitingDesk) Begin(r *enforcer.Acquire, ready func()) (Finish, bool) {
	d.waits <- r.Wait
	finish, waits := d.lateDesk.Begin(r, ready)
	return func(ctx context.Context) (Grant, *enforcer.Denial) {
		g, denial := finish(ctx)
		late := g.Late
		g.Late = func(sent bool) *enforcer.Denial {
			d := late(sent)
			if d != nil {
				d.Late = true
			}
			return d
		}
		return g, denial
	}, waits
}

// An acquire of a session that waits is not denied because what it was granted is over before it is answered: it waits
// on, for what is left of its time.
func TestLateGrantOfAWaiter(t *testing.T) {
	const first = 3 // that are over before they are answered
	d := waitingDesk{newLateDesk(func(n int) int { return max(0, min(1, first-n)) }), make(chan time.Duration, 9)}
	end, ended := sessionWith(t, New(configOf(d)))
	defer func() { <-ended }()
	defer end.Close()
	const ask = `{"jsonrpc":"2.0","id":"w","method":"lease.acquire",` +
		`"params":{"pool":"streams","wait_seconds":9}}` + "\n"
	if _, err := io.WriteString(end, ask); err != nil {
		t.Fatal(err)
	}
	if out, err := bufio.NewReader(end).ReadString('\n'); err != nil || !strings.Contains(out, `"id":"w","result"`) {
		t.Fatalf("the answer: %s %v", out, err)
	}
	most := 9*time.Second + 1
	for range first + 1 {
		switch wait := <-d.waits; {
		case wait >= most:
			t.Errorf("it waits for %v after one that was to wait for %v", wait, most)
		default:
			most = wait
		}
	}
	if n := len(d.taken()); n != first+1 {
		t.Errorf("%d acquires, want %d", n, first+1)
	}
}

// heldDesk has every lease.
type heldDesk struct{ lateDesk }

func (d heldDesk) Session(*net.UnixConn, io.Closer, enforcer.Caller) Session { return d }

func (heldDesk) Lease(id enforcer.LeaseID) (*enforcer.Lease, bool) {
	return &enforcer.Lease{ID: id, Items: []enforcer.Item{{Pool: "streams", N: 1}}, Holder: &enforcer.Holder{}}, true
}

// A caller that joined a lease which others hold on to learns that it is over for the caller, if it has subscribed to
// events.
func TestLateJoinIsTold(t *testing.T) {
	join := `{"jsonrpc":"2.0","id":2,"method":"lease.join","params":{"id":"` + enforcer.LeaseID{1}.String() + `"}}` +
		"\n"
	for _, listens := range []bool{true, false} {
		say := join
		if listens {
			say = `{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":{"mine":true}}` + "\n" + join
		}
		out := string(converse(t, New(configOf(heldDesk{newLateDesk(func(int) int { return 2 })})), []byte(say)))
		answer, told := strings.Index(out, `"id":2,"result"`), strings.Index(out, `"method":"lease.ended"`)
		if answer < 0 || (told > answer) != listens || !listens && told >= 0 {
			t.Errorf("listens %v:\n%s", listens, out)
		}
	}
}

// The same over HTTP.
func TestLateAnswersOverHTTP(t *testing.T) {
	for name, r := range map[string]struct{ method, path, body string }{
		"acquire": {"POST", "/v1/leases", `{"pool":"streams","lifetime":"held"}`},
		"token":   {"POST", "/v1/leases", `{"pool":"streams","lifetime":"held","client_token":"t"}`},
		"renew":   {"PUT", "/v1/leases/" + enforcer.LeaseID{1}.String(), `{}`},
	} {
		for look := range 3 {
			t.Run(fmt.Sprint(name, ", over at look ", look), func(t *testing.T) {
				d := newLateDesk(func(int) int { return look })
				c := connect(t, serveEcho(t, New(configOf(d))))
				fmt.Fprintf(c,
					"%s %s HTTP/1.1\r\nHost: u\r\nContent-Type: application/json\r\nConnection: "+
						"close\r\nContent-Length: %d\r\n\r\n%s",
					r.method, r.path, len(r.body), r.body)
				answer, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				b, err := io.ReadAll(answer.Body)
				if err != nil {
					t.Fatal(err)
				}
				denied := look == 1
				if (answer.StatusCode >= 300) != denied || strings.Contains(string(b), "not_shared") != denied ||
					denied && answer.Header.Get("Location") != "" {
					t.Errorf("%d %v %s", answer.StatusCode, answer.Header, b)
				}
				want := []int{2, 1, 2}[look]
				for until := time.Now().Add(within); !slices.Equal(d.taken(),
					[]int{want}); <-time.After(time.Millisecond) {
					if time.Now().After(until) {
						t.Fatalf("looked at %v times, want %d", d.taken(), want)
					}
				}
			})
		}
	}
}

// The last look comes when the session waits for nothing any more. Where it has to know that the other end has read an
// earlier answer, it looks after that.
func TestLookAfterWaiting(t *testing.T) {
	d := newLateDesk(func(int) int { return 0 })
	looked := make(chan struct{}, 9)
	d.seen = func() { looked <- struct{}{} }
	look := func() {
		t.Helper()
		select {
		case <-looked:
		case <-time.After(within):
			t.Fatal("an answer was not looked at")
		}
	}
	c := connect(t, serveEcho(t, New(configOf(d))))
	say := `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams","lifetime":"held"}}` + "\n"
	fmt.Fprint(c, say+say)
	look()
	look() // before and after the first was written
	select {
	case <-looked:
		t.Fatal("the second answer was looked at while the first is unread")
	default:
	}
	in := bufio.NewReader(c)
	for range 2 {
		if _, err := in.ReadBytes('\n'); err != nil {
			t.Fatal(err)
		}
	}
	look()
	look()
}

// The server looks at a dialect's answer when the dialect says that it is about to write it, and once more when it is
// written.
func TestLateAnswersOfADialect(t *testing.T) {
	for look := range 3 {
		d := newLateDesk(func(int) int { return look })
		call := &DialectCall{}
		call.Granted(d.fence(Grant{}).Late)
		if denial := call.Late(); (denial != nil) != (look == 1) {
			t.Errorf("over at look %d: %v", look, denial)
		}
		w := &flushed{}
		call.controller = http.NewResponseController(w)
		call.deliver(false)
		if n := d.taken()[0]; n != 2 || !w.flushed {
			t.Errorf("looked at %d times; flushed %v", n, w.flushed)
		}
	}
}

type flushed struct {
	http.ResponseWriter
	flushed bool
}

func (f *flushed) Flush() { f.flushed = true }
