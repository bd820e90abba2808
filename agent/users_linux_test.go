package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

// somebody is a user that is neither root nor the agent's.
const somebody = 4711

// as calls the API as another user and returns the status and the answer.
func (h *house) as(uid uint32, method, path, body string) string {
	h.t.Helper()
	args := []string{"-sS", "-o", "-", "-w", "%{http_code}", "--unix-socket", h.Socket(), "-X", method,
		"http://usher" + path}
	if body != "" {
		args = append(args, "--json", body)
	}
	cmd := exec.Command("curl", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("curl as uid %d: %v\n%s", uid, err, out)
	}
	s := string(out)
	return s[len(s)-3:] + " " + s[:len(s)-3]
}

// The kernel says who calls: another user has leases of his own, no say over others', and no admin's rights.
func TestAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		lacks(t, "there is no curl")
	}
	h := open(t, "limits: {leases_per_uid: 3}\n")
	for name, mode := range map[string]os.FileMode{h.dir: 0o755, h.path("s"): 0o777} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	h.drop("a.lic", h.sign("a", 9, nil))
	h.until("dropped", inForce("a"))
	mine, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(got string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("got  %swant %s", got, w)
			}
		}
	}
	expect(h.as(somebody, "POST", "/v1/leases", `{"pool":"streams"}`), "201 ", fmt.Sprintf(`"uid":%d`, somebody),
		`curl"`)
	if got := h.as(somebody, "GET", "/v1/leases", ""); strings.Contains(got, mine.ID) ||
		!strings.Contains(got, `"uid":4711`) {
		t.Errorf("somebody sees %s", got)
	}
	expect(h.as(somebody, "GET", "/v1/leases/"+mine.ID, ""), "403 ", "not_holder")
	expect(h.as(somebody, "DELETE", "/v1/leases/"+mine.ID, ""), "403 ", "not_holder", "belongs to another user",
		"an admin may release it by force")
	expect(h.as(somebody, "DELETE", "/v1/leases/"+mine.ID+"?force=true", ""), "403 ", "forbidden",
		"releasing by force is for admins")
	expect(h.as(somebody, "PUT", "/v1/leases/"+mine.ID, "{}"), "403 ", "not_holder")
	for _, r := range []string{"GET /v1/config", "POST /v1/reload", "PUT /v1/pools/x", "PUT /v1/license",
		"POST /v1/license/rollback", "DELETE /v1/license/documents/a.lic"} {
		method, path, _ := strings.Cut(r, " ")
		expect(h.as(somebody, method, path, ""), "403 ", "forbidden", "is for admins, and uid 4711 is not one",
			"a rule under socket.admin")
	}
	expect(h.as(65534, "GET", "/v1/config", ""), "403 ", "forbidden")
	// One user's share of leases is bounded.
	for range 2 {
		expect(h.as(somebody, "POST", "/v1/leases", `{"pool":"streams"}`), "201 ")
	}
	expect(h.as(somebody, "POST", "/v1/leases", `{"pool":"streams"}`), "429 ",
		"uid 4711 holds 3 leases already, the most one user may")

	// With rules only those who match may call; probes stay open; rules are taken over by a reload.
	h.config = strings.Replace(h.config, "socket: {path: "+h.path("s")+"}",
		"socket: {path: "+h.path("s")+", allow: [{uid: 12}], admin: [{uid: 13}]}", 1)
	if _, err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(h.as(somebody, "GET", "/v1/license", ""), "403 ", "forbidden", "uid 4711 with ", "is not allowed to call",
		"add a rule under socket.allow")
	expect(h.as(somebody, "GET", "/v1/health", ""), "200 ")
	expect(h.as(12, "GET", "/v1/license", ""), "200 ")
	expect(h.as(12, "GET", "/v1/config", ""), "403 ")
	expect(h.as(13, "GET", "/v1/config", ""), "200 ")
	expect(h.as(13, "GET", "/v1/leases", ""), mine.ID)
}

// Users whom the agent's user namespace does not map all look the same to it: they see nothing of each other, and share
// nothing but what they tell each other, which is a lease's id.
func TestNobody(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		lacks(t, "there is no curl")
	}
	const nobody = 65534 // what the kernel says of each of them
	h := open(t, "")
	for _, name := range []string{h.dir, h.path("s")} {
		if err := os.Chmod(name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	h.drop("a.lic", h.sign("a", 9, nil))
	h.until("dropped", inForce("a"))
	acquired := h.as(nobody, "POST", "/v1/leases", `{"pool":"streams","lifetime":"held","client_token":"t"}`)
	other := h.as(nobody, "POST", "/v1/leases", `{"pool":"streams","lifetime":"held","client_token":"t"}`)
	var l, m wire.Lease
	for text, into := range map[string]*wire.Lease{acquired: &l, other: &m} {
		if !strings.HasPrefix(text, "201 ") {
			t.Fatal(text)
		}
		if err := json.Unmarshal([]byte(text[4:]), into); err != nil {
			t.Fatal(err)
		}
	}
	if l.ID == m.ID {
		t.Error("two processes of nobody have one lease by one client token")
	}
	if got := h.as(nobody, "GET", "/v1/leases", ""); strings.Contains(got, l.ID) || strings.Contains(got, m.ID) {
		t.Errorf("nobody sees nobody's leases: %s", got)
	}
	if got := h.as(somebody, "DELETE", "/v1/leases/"+l.ID, ""); !strings.HasPrefix(got, "403 ") {
		t.Errorf("somebody releases nobody's lease: %s", got)
	}
	if got := h.as(nobody, "GET", "/v1/leases/"+l.ID, ""); !strings.HasPrefix(got, "200 ") {
		t.Errorf("whoever knows the id sees the lease: %s", got)
	}
	if got := h.as(nobody, "DELETE", "/v1/leases/"+l.ID, ""); !strings.HasPrefix(got, "204 ") {
		t.Errorf("whoever knows the id acts on the lease: %s", got)
	}
}

// Two megabytes of headers, a web page's call and a first byte of another protocol are refused, and the agent goes on.
func TestRudeCallers(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	c := newChecked(t, h.Socket())
	c.call(true, "GET", "/v1/health", "", nil)
	for _, test := range []struct{ send, want string }{
		{`{"jsonrpc":"2.0","id":1,"method":"pools.list"}` + "\n", `{"jsonrpc":"2.0","id":1,"result":{"pools":[]}}`},
		{"\x16\x03\x01\x00", ""},
		{"GET /v1/pools HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n\r\n",
			"calls from web pages are refused"},
		{"GET /v1/pools HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
			"431 Request Header Fields Too Large"},
		{"nonsense\r\n\r\n", "400 Bad Request"},
	} {
		if got := speak(t, h.Socket(), test.send); !strings.Contains(got, test.want) {
			t.Errorf("%.20q: got %q, want %q", test.send, got, test.want)
		}
	}
	c.call(true, "GET", "/v1/health", "", nil)
}
