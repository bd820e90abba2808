package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
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

// Credentials that callers over TCP show: with the second they may change licences.
const (
	credential = "elastic:a-password-of-a-test"
	installer  = "operator:another-password-of-a-test"
)

// place is an agent in a process of its own, whose dialect is spoken on a Unix socket and over TCP.
type place struct {
	t      *testing.T
	dir    string
	signer elastictest.Signer
	tcp    string // address
}

func settle(t *testing.T) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &place{t: t, dir: dir, signer: elastictest.Shared()}
	for name, text := range map[string]string{
		"keys":       credential + "\n" + installer + "\n",
		"elastic.pk": string(p.signer.DER()),
		"usher.yaml": fmt.Sprintf(`socket: {path: %[1]s/s}
state: {dir: %[1]s/state, runtime_dir: %[1]s/run}
license:
  path: %[1]s/l
  trust:
    - {system: elastic, kid: test, key_file: %[1]s/elastic.pk}
listeners:
  - {address: "unix:%[1]s/e", dialect: elastic}
  - {address: "127.0.0.1:0", dialect: elastic, credentials_file: %[1]s/keys, installers: [operator]}
`, dir),
	} {
		if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(p.path("l"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.start()
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// start starts the agent, which ends with the test, and returns when it is ready.
func (p *place) start() {
	p.t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(program, "agent", "--config", p.path("usher.yaml"))
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	c := client.New(p.path("s"))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		health, err := c.Health(ctx)
		if err == nil && health.Status == "ok" {
			p.tcp = health.Listeners[1].Address
			return
		}
		select {
		case err := <-ended:
			ended <- err
			p.t.Fatalf("the agent has ended: %v: %s", err, log.String())
		case <-ctx.Done():
			p.t.Fatalf("the agent is not ready after a minute: %s", log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// transport dials the dialect's Unix socket, whatever address is asked for.
func (p *place) transport() *http.Transport {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.path("e"))
	}}
	p.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
