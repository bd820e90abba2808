//go:build linux

package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// allOf is all that a server asks for.
type allOf interface {
	Slots
	Documents
	Operations
}

func configOf(a allOf) Config {
	return Config{Slots: a, Documents: a, Operations: a, Feeds: NewFeeds()}
}

// echo is a desk that grants every request which names a slot. Its answer follows from the request alone.
type echo struct{ allOf }

func (echo) License() wire.License {
	return wire.License{State: "valid", Code: "VALID"}
}
func (echo) Pools() []enforcer.PoolStatus {
	return []enforcer.PoolStatus{{Name: "streams"}}
}
func (echo) Liveness(*enforcer.Lease) string                           { return "connection" }
func (echo) Health() wire.Health                                       { return wire.Health{Status: "ok"} }
func (echo) Clock() wire.Clock                                         { return wire.Clock{} }
func (echo) Inode() uint64                                             { return 0 }
func (echo) Session(*net.UnixConn, io.Closer, enforcer.Caller) Session { return echo{} }
func (echo) Prove(nonce string) (string, error)                        { return "proof of " + nonce, nil }
func (echo) Close()                                                    {}

func (echo) LeaseToken(_ *enforcer.Lease, nonce string) (string, error) {
	return "token of " + nonce, nil
}

func (echo) Acquire(_ context.Context, r *enforcer.Acquire) (Grant, *enforcer.Denial) {
	l := &enforcer.Lease{ID: enforcer.LeaseID{1}, Lifetime: r.Lifetime, AcquiredAt: time.Unix(1e9, 0), Items: r.Items,
		Holder: &enforcer.Holder{Caller: r.Caller, Labels: r.Labels}}
	if r.Pool != "" {
		l.Items = append([]enforcer.Item{{Pool: r.Pool, N: r.N}}, l.Items...)
	}
	if len(l.Items) == 0 {
		return Grant{}, &enforcer.Denial{Code: enforcer.BadRequest, Field: "pool", Detail: "no pool is named"}
	}
	return Grant{Lease: l}, nil
}

func (echo) Begin(r *enforcer.Acquire, _ func()) (Finish, bool) {
	return func(ctx context.Context) (Grant, *enforcer.Denial) { return echo{}.Acquire(ctx, r) }, false
}

func (echo) Renew(r *enforcer.Renew) (Grant, *enforcer.Denial) {
	return echo{}.Attach(r.ID)
}

func (echo) Release(r *enforcer.Release) *enforcer.Denial {
	if r.ID == (enforcer.LeaseID{}) {
		return &enforcer.Denial{Code: enforcer.LeaseUnknown, Detail: "it is not held here"}
	}
	return nil
}

func (echo) Join(id enforcer.LeaseID) (Grant, *enforcer.Denial) { return echo{}.Attach(id) }

func (echo) Attach(id enforcer.LeaseID) (Grant, *enforcer.Denial) {
	return Grant{Lease: &enforcer.Lease{ID: id, Items: []enforcer.Item{{Pool: "streams", N: 1}},
		Holder: &enforcer.Holder{}}}, nil
}

// within is how long anything here may take before the test calls it hung.
const within = 30 * time.Second

// converse sends text on a session of its own and returns all answers.
func converse(t testing.TB, s *Server, text []byte) []byte {
	t.Helper()
	end, done := sessionWith(t, s)
	defer end.Close()
	go func() {
		end.Write(text) // the session may have ended
		end.CloseWrite()
	}()
	out, err := io.ReadAll(end)
	// the session does not read the rest of a message that is too long
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("after %.200q: %v", out, err)
	}
	<-done
	return out
}

// sessionWith returns the other end of a new session with a server, and what is closed when the session has ended.
func sessionWith(t testing.TB, s *Server) (end *net.UnixConn, ended <-chan struct{}) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "session")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer ends[0].Close()
		c := &conn{UnixConn: ends[0], peer: peer{uid: 7, exe: "/bin/\xffproduct"}}
		c.goDirect()
		s.serveSession(c)
	}()
	if err := ends[1].SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	return ends[1], done
}

// checkAnswers says what is wrong with a session's answers: each line is a JSON-RPC 2.0 answer.
func checkAnswers(t testing.TB, out []byte) (n int) {
	t.Helper()
	for line := range bytes.Lines(out) {
		var r struct {
			Version string         `json:"jsonrpc"`
			ID      jsontext.Value `json:"id"`
			Result  jsontext.Value `json:"result"`
			Error   *struct {
				Code    int            `json:"code"`
				Message string         `json:"message"`
				Data    jsontext.Value `json:"data"`
			} `json:"error"`
		}
		err := json.Unmarshal(line, &r, json.RejectUnknownMembers(true))
		if err != nil || line[len(line)-1] != '\n' || r.Version != "2.0" || len(r.ID) == 0 ||
			(r.Error == nil) == (len(r.Result) == 0) {
			t.Fatalf("answered %q: %v", line, err)
		}
		if r.Error != nil && (r.Error.Code > -32000 || r.Error.Message == "") {
			t.Fatalf("answered %q", line)
		}
		n++
	}
	return n
}

// slowly writes a plain request in a form that only the library reads, or returns nil.
func slowly(line []byte) []byte {
	line = bytes.TrimSpace(line)
	var r rpcRequest
	if !plainRequest(line, &r) {
		return nil
	}
	params := r.Params
	if params.Kind() == '{' {
		params = append([]byte("{ "), bytes.TrimSpace(params)[1:]...)
	}
	out := append([]byte(`{ "jsonrpc":"2.0","id":`), r.ID...)
	out = append(append(out, `,"method":"`+r.Method+`","params":`...), params...)
	return append(out, '}')
}

// waits reports whether a line asks to wait.
func waits(line []byte) bool {
	var r struct {
		Params wire.AcquireRequest `json:"params"`
	}
	return json.Unmarshal(line, &r) == nil && r.Params.WaitSeconds > 0
}

func FuzzSessionLine(f *testing.F) {
	const id = "01000000000000000000000000000000"
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"session.hello","params":{"versions":[1],"client":"x","labels":{"a":"b"}}}` +
			"\n" + `{"jsonrpc":"2.0","id":2,"method":"lease.acquire","params":{"pool":"streams"}}`,
		`{"jsonrpc":"2.0","id":"x","method":"license.get"}` + "\n\n" + `{"jsonrpc":"2.0","method":"pools.list"}`,
		`{"jsonrpc":"2.0","id":3,"method":"lease.acquire","params":{"items":[{"pool":"a","n":2},{"pool":"b","n":1}],` +
			`"nonce":"n","wait_seconds":3}}`,
		`{"jsonrpc":"2.0","id":4,"method":"lease.release","params":{"id":"` + id + `"}}` + "\r\n" +
			`{"jsonrpc":"2.0","id":5,"method":"lease.renew","params":{"id":"` + id + `","ttl_seconds":1e3}}`,
		`{"jsonrpc":"2.0","id":6,"method":"lease.join","params":{"id":"` + id + `"}}` + "\n" +
			`{"jsonrpc":"2.0","id":7,"method":"lease.attach","params":{"id":"no"}}`,
		`{"jsonrpc":"2.0","id":8,"method":"events.subscribe","params":{"mine":true}}` + "\n" +
			`{"jsonrpc":"2.0","id":9,"method":"session.prove","params":{"nonce":"n"}}`,
		`{"jsonrpc":"2.0","id":10,"method":"lease.acquire","params":{"pool":"a\u0062"}}`,
		`{"jsonrpc":"2.0","id":11,"method":"lease.acquire","params":{"pool":"streams","pool":"b"}}`,
		`{"jsonrpc":"2.0","id":1e400,"method":"features.get","params":{"name":"\ud800"}}`,
		`{"jsonrpc":"2.0","id":null,"method":"nope","params":[]}`, `[{"jsonrpc":"2.0","id":1,"method":"pools.list"}]`,
		`{"jsonrpc":"2.0","id":{},"method":"x"}`,
		"{\x00", "{\xff\xfe\n{", strings.Repeat("[", 5000), `{"jsonrpc":` + strings.Repeat(" ", 70<<10) + `"2.0"}`,
		strings.Repeat(`{"a":`, 11000),
	} {
		f.Add([]byte(s))
	}
	s := New(configOf(echo{}))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4*MaxLine {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out := converse(t, s, text)
		runtime.ReadMemStats(&after)
		// Every answer and every fault has a bounded size, and a line is read a bounded number of times.
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4<<20+256*len(text)); got > most {
			t.Fatalf("%d bytes take %d, more than %d", len(text), got, most)
		}
		if n, most := checkAnswers(t, out), bytes.Count(text, []byte("\n"))+1; n > most {
			t.Fatalf("%d lines are answered %d times", most, n)
		}
		// The short way and the library give the same answer.
		for line := range bytes.Lines(text) {
			if long := slowly(line); waits(line) {
				// The session may answer it, or give it up when the connection ends.
			} else if long != nil && len(line)+8 < MaxLine {
				fast, slow := converse(t, s, line), converse(t, s, long)
				if !bytes.Equal(fast, slow) {
					t.Fatalf("%q is answered\n%s, and read by the library\n%s", line, fast, slow)
				}
			}
		}
	})
}

func FuzzHTTPBody(f *testing.F) {
	for _, s := range []string{
		`{"pool":"streams"}`,
		`{"pool":"streams","n":2,"min_n":1,"ttl_seconds":1.5,"client_token":"t","labels":{"a":"b"},"nonce":"n"}`,
		`{"items":[{"pool":"a","n":2},{"pool":"b","n":-1}]}`, `{"pool":"a","lifetime":"process"}`,
		`{"pool":"a","wait_seconds":5}`, `{"Pool":"a"}`,
		`{"pool":"a","pool":"b"}`, `{"pool":"a"} {}`, `{"n":9223372036854775808,"pool":"a"}`, `{"pool":null}`,
		`{"pool":"\ud800"}`, "{\"pool\":\"\xff\"}", `[]`, ``, ` `,
		`{"until":"2030-01-01T00:00:00Z"}`, `{"ttl_seconds":1e400}`, strings.Repeat(`{"labels":`, 11000),
	} {
		f.Add([]byte(s), "application/json")
	}
	f.Add([]byte(`{"pool":"a"}`), "text/plain; charset=\"")
	s := New(configOf(echo{}))
	k := &conn{peer: peer{uid: 7}}
	post := func(body []byte, kind string, length int64) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/v1/leases", io.NopCloser(bytes.NewReader(body)))
		r.ContentLength = length
		r.Header = http.Header{"Content-Type": {kind}}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r.WithContext(withConn(r.Context(), k)))
		return w
	}
	f.Fuzz(func(t *testing.T, body []byte, kind string) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := post(body, kind, int64(len(body)))
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4<<20+256*min(len(body), MaxBody)); got > most {
			t.Fatalf("%d bytes take %d, more than %d", len(body), got, most)
		}
		chunked := post(body, kind, -1)
		if w.Code != chunked.Code || w.Body.String() != chunked.Body.String() {
			t.Fatalf("answered %d %s, and in chunks %d %s", w.Code, w.Body, chunked.Code, chunked.Body)
		}
		var in wire.AcquireRequest
		err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true))
		switch w.Code {
		case http.StatusCreated:
			var l wire.Lease
			if err != nil || len(body) > MaxBody {
				t.Fatalf("%q is granted: %v", body, err)
			}
			if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || in.Pool != "" && l.Pool != in.Pool ||
				in.N != nil && l.N != *in.N {
				t.Fatalf("%q is granted %s: %v", body, w.Body, err)
			}
		default:
			var p wire.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || p.Code == "" ||
				p.Detail == "" {
				t.Fatalf("%q is answered %d %s: %v", body, w.Code, w.Body, err)
			}
			if w.Code >= 500 && in.WaitSeconds == 0 {
				t.Fatalf("%q is answered %d %s", body, w.Code, w.Body)
			}
		}
	})
}
