package acceptance

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	sdk "github.com/keygen-sh/keygen-go/v3"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// program is the path of cmd/usher, built for these tests.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "usher")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/usher")
	build.Dir, build.Env = "../../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
		return 1
	}
	return m.Run()
}

const (
	licenceKey = "C1B6DE-39A6E3-DE1529-8559A0-4AF593-V3"
	product    = "6e34d8ef-8dff-4507-8294-c063fbece9b7"
)

// place is an agent in its own process, with a licence, whose dialect listens on a Unix socket and over TCP.
type place struct {
	t   *testing.T
	dir string
	key string // of the dialect's answers, as the SDK has it
	tcp string // address
	// entitled is how many entitlements the licence has, RENDER being the first.
	entitled int
	cmd      *exec.Cmd
	log      bytes.Buffer
	end      chan error // receives once, when the agent has ended
}

// settle starts an agent with the documents.
func settle(t *testing.T, trust string, documents map[string][]byte) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &place{t: t, dir: dir}
	if err := os.Mkdir(p.path("l"), 0o755); err != nil {
		t.Fatal(err)
	}
	documents["keys"] = []byte(licenceKey + "\n")
	documents["usher.yaml"] = fmt.Appendf(nil, `product: %[1]s
socket: {path: %[2]s/s}
state: {dir: %[2]s/state, runtime_dir: %[2]s/run}
license:
  path: %[2]s/l
  trust:
    - %[3]s
listeners:
  - {address: "unix:%[2]s/k", dialect: keygen}
  - {address: "127.0.0.1:0", dialect: keygen, credentials_file: %[2]s/keys}
`, product, dir, trust)
	for name, b := range documents {
		if err := os.WriteFile(p.path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// start starts the agent and returns when its licence is good.
func (p *place) start() {
	p.t.Helper()
	p.log.Reset()
	p.cmd = exec.Command(program, "agent", "--config", p.path("usher.yaml"))
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	end := make(chan error, 1)
	p.end = end
	go func() { end <- p.cmd.Wait() }()
	c := client.New(p.path("s"))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if l, err := c.License(ctx); err == nil && l.State == "valid" {
			break
		}
		select {
		case err := <-end:
			p.cmd = nil
			p.t.Fatalf("the agent has ended: %v: %s", err, p.log.String())
		case <-ctx.Done():
			p.kill()
			p.t.Fatalf("the agent is not ready after a minute: %s", p.log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	health, err := c.Health(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	p.tcp = health.Listeners[1].Address
	keys, err := c.Keys(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, k := range keys.Keys {
		if k.Dialect == "keygen" {
			b, err := base64.RawURLEncoding.DecodeString(k.X)
			if err != nil {
				p.t.Fatal(err)
			}
			p.key = hex.EncodeToString(b)
		}
	}
}

func (p *place) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		<-p.end
		p.cmd = nil
	}
}

// native is a place with a licence in the native format. pools are its pools.
func native(t *testing.T, machines, processes, uses int64) *place {
	t.Helper()
	vendor := t.TempDir()
	private, public, err := issue.MakeKey(vendor, "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := signer.Sign(&usher.Claims{ID: "9d2c5a51-1111-4a4e-8c5d-000000000001", Product: product,
		Licensee: "Acme", Issued: time.Now().Unix() - 10,
		Pools: map[string]usher.Pool{"machines": {Max: &machines, Scope: "host"},
			"processes": {Max: &processes, Scope: "host"}},
		Meters:   map[string]usher.Meter{"uses": {Max: &uses, Scope: "host", Adjustable: true}},
		Features: map[string]usher.Feature{"RENDER": {Value: enforcer.Value{Kind: enforcer.KindBool, Bool: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	p := settle(t, fmt.Sprintf("{kid: k1, key_file: %s}", public), map[string][]byte{"l/a.lic": doc})
	p.entitled = 1
	return p
}

// nodeLocked is a place with a licence file of a Keygen account.
func nodeLocked(t *testing.T) *place {
	t.Helper()
	cloud := keygentest.New(time.Now)
	name := "Acme"
	created := time.Now().Add(-time.Hour)
	cloud.Put(keygentest.License{ID: "9d2c5a51-2222-4a4e-8c5d-000000000002", Key: licenceKey, Product: product,
		Attributes: keygen.Attributes{Name: &name, Status: "ACTIVE", MaxMachines: new(int64(1)),
			MaxProcesses: new(int64(2)), Created: &created, Strict: true}})
	return settle(t, "{system: keygen, kid: acme, key_file: "+
		filepath.Join(writeKey(t, cloud.PublicKey()), "account.pub")+"}",
		map[string][]byte{"l/a.lic": cloud.LicenseFile("9d2c5a51-2222-4a4e-8c5d-000000000002", "base64+ed25519",
			24*time.Hour)})
}

func writeKey(t *testing.T, key string) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "account.pub"), []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// use points the SDK's package variables at an agent. key is the key that it pins; empty: none.
func use(t *testing.T, p *place, unix bool, key string) {
	t.Helper()
	sdk.Account, sdk.Product, sdk.LicenseKey, sdk.PublicKey = "1fddcec8-8dd3-4d8d-9b16-215cac0f9b52", product,
		licenceKey, key
	tr := &http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	sdk.APIURL = "http://" + p.tcp
	if unix {
		sdk.APIURL = "http://localhost"
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", p.path("k"))
		}
	}
	sdk.HTTPClient = &http.Client{Transport: tr, Timeout: 30 * time.Second}
	sdk.Logger = quiet{t}
	t.Cleanup(func() { tr.CloseIdleConnections(); sdk.PublicKey = "" })
}

// quiet keeps the SDK's errors out of the log; the tests check them.
type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Debugf(string, ...any) {}
