package agent_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/plugin"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

const brainframePassword = "a-password-of-a-test"

// server is an agent that stands in a BrainFrame server's place, and a client that knows that API alone.
type brainframeServer struct {
	*toyProcess
	signer *issue.Signer // of licence keys
	issued int64         // the date of the last key
	in     io.WriteCloser
	out    *bufio.Scanner
}

// brainframeSaid is what a call of the client came to.
type brainframeSaid struct {
	Value json.RawMessage
	Kind  string // of an error
	Text  string
	Basic int // how often the password has been sent so far
}

const brainframeListener = `    - {system: brainframe, kid: bf, key_file: %[1]s/bf.pub}
listeners:
  - {address: "127.0.0.1:0", dialect: brainframe, credentials_file: %[1]s/users, installers: [admin]}
`

// brainframeHouse makes a house whose agent is a BrainFrame server without a licence.
func brainframeHouse(t *testing.T, more string) *brainframeServer {
	t.Helper()
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	private, _, err := issue.MakeKey(dir, "bf", "")
	if err != nil {
		t.Fatal(err)
	}
	users := "admin:" + brainframePassword + "\nviewer:another-" + brainframePassword + "\n"
	if err := os.WriteFile(dir+"/users", []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &brainframeServer{toyProcess: &toyProcess{house: open(t, fmt.Sprintf(brainframeListener, dir)+more)},
		issued: time.Now().Unix() - 1000}
	if s.signer, err = issue.LoadSigner(private, ""); err != nil {
		t.Fatal(err)
	}
	return s
}

// key signs a licence key for a number of streams, later than the last.
func (s *brainframeServer) key(streams int64, change func(*usher.Claims)) string {
	s.t.Helper()
	s.issued++
	c := &usher.Claims{ID: fmt.Sprint("bf-", s.issued), Product: "acme", Issued: s.issued,
		Pools: map[string]usher.Pool{"streams": {Max: &streams, Scope: "host"}}}
	if change != nil {
		change(c)
	}
	doc, err := s.signer.Sign(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(doc) + "\n"
}

func (s *brainframeServer) url() string { return "http://" + s.listening()[0].Address + "/" }

// client starts the client.
func (s *brainframeServer) client() {
	s.t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		lacks(s.t, "there is no python3")
	}
	cmd := exec.Command("python3", "../plugin/brainframe/testdata/client.py", s.url(), "admin", brainframePassword)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stderr = os.Stderr
	var err error
	if s.in, err = cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s.out = bufio.NewScanner(out)
}

// call makes a call of the client.
func (s *brainframeServer) call(name string, arguments ...any) (said brainframeSaid) {
	s.t.Helper()
	b, err := json.Marshal(append([]any{name}, arguments...))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.in.Write(append(b, '\n')); err != nil || !s.out.Scan() {
		s.t.Fatalf("%s: the client is gone: %v", name, err)
	}
	if err := json.Unmarshal(s.out.Bytes(), &said); err != nil {
		s.t.Fatal(err)
	}
	return said
}

// is makes a call that must come to a value, or to an error of a kind.
func (s *brainframeServer) is(want, name string, arguments ...any) brainframeSaid {
	s.t.Helper()
	said := s.call(name, arguments...)
	if got := string(said.Value); said.Kind != want && (said.Kind != "" || got != want) {
		s.t.Fatalf("%s %.40v: %s%s %s, and not %s", name, arguments, said.Kind, got, said.Text, want)
	}
	return said
}

// brainframeInfo is a licence as the client shows it. A day of 0 is none.
func brainframeInfo(streams int, day string, checkIn bool) string {
	date := "null"
	if day != "" {
		date = `"` + day + `"`
	}
	return fmt.Sprintf(`{"state": "valid", "terms": {"online_checkin": %t, "max_streams": %d, `+
		`"journal_max_allowed_age": 86400.0, "expiration_date": %s}}`, checkIn, streams, date)
}

// tell checks that the local API, `usher status` and the metrics tell the same of the streams.
func (s *brainframeServer) tell(state string, limit, inUse int64) {
	s.t.Helper()
	ctx := context.Background()
	l, err := s.License(ctx)
	if err != nil || l.State != state {
		s.t.Errorf("the licence is %+v, %v, and not %s", l, err, state)
	}
	p, err := s.Pool(ctx, "streams")
	if err != nil || p.Limit == nil || *p.Limit != limit || p.InUse != inUse {
		s.t.Errorf("the pool is %+v, %v, and not %d of %d", p, err, inUse, limit)
	}
	s.statusSays(state, l.Code, "streams", inUse, limit)
	m, err := s.Metrics(ctx)
	for _, line := range []string{fmt.Sprintf(`usher_slots_limit{pool="streams"} %d`, limit),
		fmt.Sprintf(`usher_slots_in_use{pool="streams"} %d`, inUse),
		fmt.Sprintf(`usher_license_state{state=%q} 1`, state)} {
		if err != nil || !strings.Contains(string(m), line+"\n") {
			s.t.Errorf("the metrics do not say %s (%v)", line, err)
		}
	}
}

func withJournal(c *usher.Claims) {
	var day usher.Feature
	if err := json.Unmarshal([]byte(`{"value": 24, "unit": "h"}`), &day); err != nil {
		panic(err)
	}
	c.Features = map[string]usher.Feature{"journal_max_allowed_age": day}
}

// A product moves to an agent with its client: it uploads its licence key, analyses streams to the limit and is refused
// in the API's own words, through kills of the agent, swaps of the key, and its end. Everybody tells the same.
func TestBrainFrameProductMoves(t *testing.T) {
	t.Parallel()
	s := brainframeHouse(t, "")
	s.client()
	s.is(`{"state": "missing", "terms": null}`, "get_license_info")
	s.is("LicenseRequiredError", "start_analyzing", 1)
	s.is(`"0.30.5"`, "version")
	s.is("null", "get_current_cloud_user")
	s.is("LicenseInvalidError", "set_license_key", "")
	s.is("LicenseInvalidError", "set_license_key",
		base64.StdEncoding.EncodeToString([]byte("of the vendor's own form")))
	four := brainframeInfo(4, "2099-01-31", false)
	s.is(four, "set_license_key", s.key(4, func(c *usher.Claims) {
		withJournal(c)
		c.Expires = time.Date(2099, 1, 31, 0, 0, 0, 0, time.UTC).Unix()
	}))
	s.stop() // from here on the agent is a process of its own
	if err := os.WriteFile(s.path("usher.yaml"), []byte(s.config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.is("ServerNotReadyError", "get_license_info")
	s.run()
	t.Cleanup(s.kill)
	s.is("null", "set_url", s.url())
	for i := range 4 {
		s.is("null", "start_analyzing", i)
		s.is("null", "start_analyzing", i)
	}
	s.is("AnalysisLimitExceededError", "start_analyzing", 4)
	s.tell("valid", 4, 4)
	for range 2 {
		s.kill()
		s.run()
		s.is("null", "set_url", s.url())
		s.is("true", "check_analyzing", 3)
		s.is("false", "check_analyzing", 4)
		s.is("AnalysisLimitExceededError", "start_analyzing", 4)
		if said := s.is(four, "get_license_info"); said.Basic != 1 {
			t.Errorf("the password was sent %d times, though a session lasts", said.Basic)
		}
	}
	s.is("false", "stop_analyzing", 3)
	s.is("false", "stop_analyzing", 3)
	s.is("null", "start_analyzing", 4)
	s.tell("valid", 4, 4)
	s.swap()
	s.end()
}

// swap uploads keys for more and for fewer streams, and bad ones in between.
func (s *brainframeServer) swap() {
	s.t.Helper()
	five := brainframeInfo(5, "", false)
	good := s.key(5, withJournal)
	s.is(five, "set_license_key", good)
	s.is("null", "start_analyzing", 5)
	for kind, key := range map[string]string{
		"LicenseInvalidError": good[:40] + "A" + good[41:],
		"LicenseExpiredError": s.key(9, func(c *usher.Claims) { c.Expires = c.Issued + 1 }),
		// nothing is configured that it could check in with
		"RemoteConnectionError": s.key(9, func(c *usher.Claims) { c.CheckIn = &usher.CheckIn{Every: 86400} }),
	} {
		s.is(kind, "set_license_key", key)
		s.is(five, "get_license_info")
	}
	s.is(brainframeInfo(1, "", false), "set_license_key", s.key(1, withJournal))
	s.tell("valid", 1, 5)
	s.is("AnalysisLimitExceededError", "start_analyzing", 6)
	for _, i := range []int{0, 1, 2, 4} {
		s.is("false", "stop_analyzing", i)
	}
	s.tell("valid", 1, 1)
}

// end uploads a key that ends, and looks on.
func (s *brainframeServer) end() {
	s.t.Helper()
	for life := int64(2); ; life *= 2 { // where the host is slow, it has ended before it is uploaded
		said := s.call("set_license_key", s.key(2, func(c *usher.Claims) { c.Expires = time.Now().Unix() + life }))
		if said.Kind == "" {
			break
		}
		if said.Kind != "LicenseExpiredError" || life > 60 {
			s.t.Fatalf("%s %s", said.Kind, said.Text)
		}
	}
	expired := `{"state": "expired", "terms": null}`
	for deadline := time.Now().Add(2 * time.Minute); string(s.call("get_license_info").Value) != expired; {
		if time.Now().After(deadline) {
			s.t.Fatal("the licence does not end")
		}
	}
	s.until("ended", code("EXPIRED"))
	s.is("LicenseRequiredError", "start_analyzing", 7)
	s.is("true", "check_analyzing", 5)
	s.is("false", "stop_analyzing", 5)
	m, err := s.Metrics(context.Background())
	if err != nil || !strings.Contains(string(m), `usher_license_state{state="expired"} 1`) {
		s.t.Errorf("the metrics do not say that it has ended: %v", err)
	}
	s.is(brainframeInfo(3, "", false), "set_license_key", s.key(3, withJournal))
	s.tell("valid", 3, 0)
}

// A licence key with a check-in duty is installed only when the server that it checks in with says yes. Later that
// server's "missing" ends it and its "valid" brings it back, and an outage changes nothing.
func TestBrainFrameCheckIn(t *testing.T) {
	t.Parallel()
	var answer atomic.Value
	answer.Store("away")
	var calls atomic.Int64
	remote := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		if a := answer.Load().(string); a != "away" {
			fmt.Fprint(w, a)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(remote.Close)
	s := brainframeHouse(t, "upstream: {brainframe: {url: "+remote.URL+"}}\n")
	s.client()
	one := brainframeInfo(1, "", false)
	s.is(one, "set_license_key", s.key(1, withJournal))
	demanding := s.key(2, func(c *usher.Claims) {
		withJournal(c)
		c.CheckIn = &usher.CheckIn{Every: 86400}
	})
	s.is("RemoteConnectionError", "set_license_key", demanding)
	s.is(one, "get_license_info")
	answer.Store(`{"state":"expired","terms":null}`)
	s.is("LicenseExpiredError", "set_license_key", demanding)
	s.is(one, "get_license_info")
	valid := `{"state":"valid","terms":{"online_checkin":true,"max_streams":2,"journal_max_allowed_age":1.0,` +
		`"expiration_date":null}}`
	answer.Store(valid)
	two := brainframeInfo(2, "", true)
	s.is(two, "set_license_key", demanding)
	at := func(say, want string) {
		t.Helper()
		answer.Store(say)
		before := calls.Load()
		if err := s.UpstreamCall(t.Context()); err != nil {
			t.Fatal(err)
		}
		deadline, rest := time.Now().Add(time.Minute), pause()
		for calls.Load() == before || string(s.call("get_license_info").Value) != want {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s", say, s.call("get_license_info").Value)
			}
			rest()
		}
	}
	at("away", two)
	at(`{"state":"invalid","terms":null}`, two)
	at(`{"state":"missing","terms":null}`, `{"state": "missing", "terms": null}`)
	at(valid, two)
}

// Streams of two users are the server's, and only users that the configuration names install keys. On a Unix socket the
// kernel names the user.
func TestBrainFrameUsers(t *testing.T) {
	t.Parallel()
	s := brainframeHouse(t, "")
	at := s.listening()[0].Address
	basic := func(user, password string) *caller {
		return callerOf(t, at, "Authorization",
			"Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	admin, viewer := basic("admin", brainframePassword), basic("viewer", "another-"+brainframePassword)
	ask := func(c *caller, status int, method, target, body, want string) {
		t.Helper()
		if res, b := c.send(method, target, []byte(body)); res.StatusCode != status ||
			!strings.Contains(string(b), want) {
			t.Errorf("%s %s: %s %s, and not %d %s", method, target, res.Status, b, status, want)
		}
	}
	key := s.key(1, withJournal)
	ask(viewer, 403, "PUT", "/api/license", key, "InsufficientRoleError")
	ask(viewer, 200, "GET", "/api/license", "", "missing")
	ask(admin, 200, "PUT", "//api/license", key, "valid")
	ask(viewer, 200, "PUT", "/api/streams/1/analyze", "true", "true")
	ask(admin, 200, "GET", "/api/streams/1/analyze", "", "true")
	ask(admin, 200, "PUT", "/api/streams/1/analyze", "true", "true")
	ask(admin, 409, "PUT", "/api/streams/2/analyze", "true", "AnalysisLimitExceededError")
	ask(admin, 200, "PUT", "/api/streams/1/analyze", "false", "false")
	ask(basic("viewer", brainframePassword), 401, "GET", "/api/license", "", "UnauthorizedError")
	page := basic("admin", brainframePassword)
	page.header.Set("Origin", "http://example.com")
	ask(page, 403, "GET", "/api/license", "", `"description":`)
}

func init() {
	askers["upstream.brainframe.password_file"] = asker{"brainframe: {url: '%[1]s', user: op, password_file: %[2]s}",
		func(*testing.T, *upstreams.Opener, *recorder) func(context.Context, plugin.Upstream) error {
			return checksIn(nil)
		}}
}
