package agent_test

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// systemPython is one that every user may run.
const systemPython = "/usr/bin/python3"

// openToAll opens a house whose socket anybody can reach, and skips where nobody else can be.
func openToAll(t *testing.T) *house {
	t.Helper()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	for _, program := range []string{"/usr/bin/curl", systemPython} {
		if _, err := os.Stat(program); err != nil {
			t.Skip(err)
		}
	}
	h := open(t, "")
	for name, mode := range map[string]os.FileMode{h.dir: 0o755, h.path("s"): 0o777} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// sessionAs says a line on a session as another user, and returns the lines that come, as many as are wanted.
func (h *house) sessionAs(uid uint32, line string, lines string) string {
	h.t.Helper()
	cmd := exec.Command(systemPython, "-c", `import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\n"); f = s.makefile()
for _ in range(int(sys.argv[3])): sys.stdout.write(f.readline())`, h.Socket(), line, lines)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("a session as uid %d: %v\n%s", uid, err, out)
	}
	return string(out)
}

// telling fills a licence with what only admins may see: every secret has S3CRET in it, every address and number the
// marks below.
func telling(c *usher.Claims) {
	c.Licensee, c.Issuer = "Bob <bob@customer.example>", "carol@vendor.example"
	c.Features = map[string]usher.Feature{}
	if err := json.Unmarshal([]byte(`{"support-mail":"dave@vendor.example","apiToken":"S3CRET-f","hd":true}`),
		&c.Features); err != nil {
		panic(err)
	}
	c.Extra = map[string]jsontext.Value{
		"x_api_keys":                     jsontext.Value(`["S3CRET-list"]`),
		"x_contact_frank@vendor.example": jsontext.Value(`true`),
		"x_crm": jsontext.Value(
			`{"apiKey":"S3CRET-camel","key":{"value":"S3CRET-object"},"secret":12345678,"note":"ask ` +
				`gina@customer.example","pairs":[{"name":"password","value":"S3CRET-pair"}],"max_keys":77}`),
	}
}

var told = regexp.MustCompile(`S3CRET[a-z0-9-]*|12345678|[a-z]+@[a-z]+\.example`)

// Every route and method that is open to callers who are not admins has its row in the table of docs/privacy.md, and
// tells them neither secrets nor addresses; admins it does.
func TestWhatWhoMaySee(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/privacy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## What who may see")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := map[string]bool{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				rows[m[1]] = true
			}
		}
	}
	h := openToAll(t)
	h.drop("a.lic", h.sign("a", 3, telling))
	h.until("dropped", inForce("a"))
	rest := maps.Clone(rows)
	for _, r := range api.Routes() {
		if r.Admin || r.Method != "GET" {
			continue
		}
		name := r.Method + " " + r.Path
		if delete(rest, name); !rows[name] {
			t.Errorf("docs/privacy.md has no row for %s", name)
		}
		// the first does not end; of the second there is nothing
		if r.Path == "/v1/events" || r.Path == "/v1/leases/{id}" {
			continue
		}
		for _, feature := range []string{"apiToken", "support-mail"} {
			path := strings.ReplaceAll(r.Path, "{name}", feature)
			if got := told.FindAllString(strings.ReplaceAll(h.as(somebody, r.Method, path, ""), feature, ""),
				-1); len(got) > 0 {
				t.Errorf("%s tells a caller who is no admin %q", path, got)
			}
		}
	}
	for method, want := range map[string]string{"license.get": `"max_keys":77`, "features.get": `"hd"`,
		"pools.list": `"streams"`, "events.subscribe": `{}`} {
		if delete(rest, method); !rows[method] {
			t.Errorf("docs/privacy.md has no row for %s", method)
		}
		out := h.sessionAs(somebody, `{"jsonrpc":"2.0","id":1,"method":"`+method+`"}`, "1")
		if got := told.FindAllString(out, -1); len(got) > 0 || !strings.Contains(out, want) {
			t.Errorf("%s tells a caller who is no admin %q: %s", method, got, out)
		}
	}
	if len(rest) > 0 {
		t.Errorf("docs/privacy.md has rows of what there is not: %v", slices.Sorted(maps.Keys(rest)))
	}
	// An admin is told all.
	l, err := h.License(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, _ := json.Marshal(l)
	got := told.FindAllString(string(all), -1)
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != 11 {
		t.Errorf("an admin is told of %d: %q", len(got), got)
	}
	// A problem says no more than an answer.
	h.drop("a.lic", h.sign("hal@customer.example", 3, func(c *usher.Claims) {
		c.Issued, c.Expires = time.Now().Unix()-5, time.Now().Unix()-1
	}))
	h.until("dropped", func(l *wire.License) bool { return l.State == "expired" })
	for what, out := range map[string]string{"a problem": h.as(somebody, "POST", "/v1/leases", `{"pool":"streams"}`),
		"an error": h.sessionAs(somebody,
			`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`, "1")} {
		if told.MatchString(out) || !strings.Contains(out, "license_expired") || !strings.Contains(out, "(hidden)") {
			t.Errorf("%s tells %s", what, out)
		}
	}
}

// Events tell nobody why an operator began an emergency, nor what a reason quotes of a licence; admins are told at
// /v1/emergency.
func TestEventsHide(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	now := time.Now().Unix()
	h.drop("a.lic", h.sign("bob@customer.example", 3, func(c *usher.Claims) {
		c.Issued, c.Expires, c.Emergency = now-60, now-30, &usher.Emergency{Length: 3600, PerYear: 1}
	}))
	h.until("dropped", func(l *wire.License) bool { return l.Code == "EXPIRED" })
	seen := ""
	for ev, err := range h.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(ev)
		if seen += string(b); strings.Count(seen, "license.changed") == 1 &&
			!strings.Contains(seen, "emergency.started") {
			if _, err := h.BeginEmergency(t.Context(), "gina asked, call 555-0100"); err != nil {
				t.Fatal(err)
			}
		}
		if ev.Type == "emergency.started" {
			break
		}
	}
	if strings.Contains(seen, "555") || told.MatchString(seen) || !strings.Contains(seen, "(hidden)") {
		t.Errorf("the events tell %s", seen)
	}
	all, err := h.Emergencies(t.Context())
	if err != nil || len(all.Emergencies) != 1 || !strings.Contains(all.Emergencies[0].Reason, "555-0100") {
		t.Errorf("an admin is told %+v, %v", all, err)
	}
}

// proveAt opens a session that an agent must prove itself to.
func proveAt(t *testing.T, socket string) {
	t.Helper()
	key, err := client.ParseKey([]byte(os.Getenv("PROVE_BY")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.Open(t.Context(), client.WithSocket(socket),
		client.WithVendor(client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k1": key}}))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// A product proves the agent without seeing the licence: a document is shown to all where nothing in it is hidden, and
// by its voucher where
// something is. One that was signed without a voucher is withheld, and the product is told so.
func TestProofWithoutTheLicence(t *testing.T) {
	t.Parallel()
	if socket := os.Getenv("PROVE_AT"); socket != "" { // as another user: see below
		proveAt(t, socket)
		return
	}
	h := openToAll(t)
	f, err := h.Fingerprint(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	bind := func(c *usher.Claims) { c.Confirmation = &usher.Confirmation{Thumbprint: f.AgentKey} }
	chain := func() (k wire.Keys) {
		t.Helper()
		out := h.as(somebody, "GET", "/v1/keys", "")
		if err := json.Unmarshal([]byte(out[4:]), &k); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return k
	}
	der, err := x509.MarshalPKIXPublicKey(h.signer.Anchor.Key)
	if err != nil {
		t.Fatal(err)
	}
	proves := func(want bool, says string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestProofWithoutTheLicence$")
		cmd.Dir = "/"
		cmd.Env = []string{"PROVE_AT=" + h.Socket(), "PROVE_BY=" +
			string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "TMPDIR=" + os.TempDir()}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
		out, err := cmd.CombinedOutput()
		if (err == nil) != want || !strings.Contains(string(out), says) {
			t.Errorf("a product of another user proves the agent: %v\n%s", err, out)
		}
	}
	plain := h.sign("a", 3, bind)
	h.drop("a.lic", usher.Armour(plain))
	h.until("dropped", inForce("a"))
	if k := chain(); len(k.Chain) != 1 || k.Chain[0] != string(plain) || len(k.Withheld) > 0 {
		t.Errorf("a licence that hides nothing: %+v", k)
	}
	proves(true, "PASS")
	secret := h.sign("a", 4, func(c *usher.Claims) { bind(c); telling(c) })
	h.drop("a.lic", secret)
	h.until("dropped", func(l *wire.License) bool { return inForce("a")(l) && *l.Limits["streams"] == 4 })
	k := chain()
	if len(k.Chain) != 1 || len(k.Withheld) > 0 {
		t.Fatalf("a licence with secrets: %+v", k)
	}
	b, err := usher.Body([]byte(k.Chain[0]))
	if err != nil || told.Match(b) || !strings.Contains(string(b), f.AgentKey) {
		t.Errorf("its voucher says %s, %v", b, err)
	}
	if c, err := h.signer.Claims([]byte(k.Chain[0])); err == nil {
		t.Errorf("its voucher is taken for a licence: %+v", c)
	}
	proves(true, "PASS")
	claims, err := h.signer.Claims(secret)
	if err != nil {
		t.Fatal(err)
	}
	delete(claims.Extra, usher.VoucherClaim)
	claims.Issued++
	claims.Pools["streams"] = usher.Pool{Max: new(int64(5)), Scope: "host"}
	old, err := usher.Sign(claims, "k1", h.signer.Anchor.Algorithm, func(b []byte) ([]byte, error) {
		return issue.RawSign(h.signer, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.drop("a.lic", old)
	h.until("dropped", func(l *wire.License) bool { return inForce("a")(l) && *l.Limits["streams"] == 5 })
	if k := chain(); len(k.Chain) > 0 || len(k.Withheld) != 1 || !strings.Contains(k.Withheld[0], "usher vendor bind") {
		t.Errorf("a licence that was signed without a voucher: %+v", k)
	}
	proves(false, "usher vendor bind")
}
