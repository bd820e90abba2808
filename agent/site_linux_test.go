package agent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// siteServer is a customer's site server, a process of its own that can be killed, and the vendor whose licence it
// serves.
type siteServer struct {
	t       *testing.T
	bin     string
	dir     string
	address string
	ttl     time.Duration
	public  string // the vendor's key
	signer  *issue.Signer
	licence []byte
	cmd     *exec.Cmd
	roots   *x509.CertPool
	plain   bool     // HTTP without TLS
	more    []string // further flags
	metrics string   // the address of its metrics; empty: it is not known
}

// openSiteServer starts a server of a licence of limit slots of the pool streams.
func openSiteServer(t *testing.T, limit int64, ttl time.Duration) *siteServer {
	t.Helper()
	return openSiteServerAs(t, limit, ttl, false)
}

// openSiteServerAs is openSiteServer with mutual TLS, or without TLS.
func openSiteServerAs(t *testing.T, limit int64, ttl time.Duration, plain bool, more ...string) *siteServer {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &siteServer{t: t, bin: bin, dir: dir, ttl: ttl, roots: x509.NewCertPool(), plain: plain,
		more: more}
	var private string
	if private, s.public, err = issue.MakeKey(dir, "k1", ""); err != nil {
		t.Fatal(err)
	}
	if s.signer, err = issue.LoadSigner(private, ""); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, "upstream", "site-key", "--data", s.path("data"), "--json").Output()
	var key struct{ JKT string }
	if err != nil || json.Unmarshal(out, &key) != nil {
		t.Fatalf("the site server's key: %s, %v", out, err)
	}
	s.licence, err = s.signer.Sign(&usher.Claims{ID: "L1", Product: "acme", Issued: time.Now().Unix() - 10,
		Pools: map[string]usher.Pool{"streams": {Max: &limit}}, SiteServer: &usher.Confirmation{Thumbprint: key.JKT}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("site.lic"), s.licence, 0o600); err != nil {
		t.Fatal(err)
	}
	s.address = freeAddress(t)
	s.certify()
	t.Cleanup(s.kill)
	s.run()
	return s
}

// freeAddress returns a TCP address of this host on which nobody listens. All of 127/8 is this host, and it is one of
// its own there: no connection and no other test is given its port before it is used.
func freeAddress(t interface{ Fatal(...any) }) string {
	host := fmt.Sprintf("127.%d.%d.%d", 1+mathrand.IntN(254), mathrand.IntN(256), 1+mathrand.IntN(254))
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *siteServer) path(name string) string { return filepath.Join(s.dir, name) }

// certify makes the server's certificate.
func (s *siteServer) certify() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	host, _, err := net.SplitHostPort(s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.roots.AppendCertsFromPEM(cert)
	if err := errors.Join(os.WriteFile(s.path("tls.crt"), cert, 0o600),
		os.WriteFile(s.path("tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
			0o600)); err != nil {
		s.t.Fatal(err)
	}
}

// run starts the server and returns when it answers.
func (s *siteServer) run() {
	s.t.Helper()
	args := []string{"upstream", "--serve-pools", "--data", s.path("data"), "--runtime-dir", s.path("run"), "--trust",
		s.public, "--license", s.path("site.lic"), "--listen", s.address,
		"--block-ttl", s.ttl.String(), "--log-level", "error"}
	if !s.plain {
		args = append(args, "--tls-cert", s.path("tls.crt"), "--tls-key", s.path("tls.key"), "--mutual-tls")
	}
	s.cmd = exec.Command(s.bin, append(args, s.more...)...)
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; {
		if c, err := net.Dial("tcp", s.address); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the site server does not listen after 30 s")
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (s *siteServer) kill() {
	if s.cmd != nil && s.cmd.ProcessState == nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

// blocks asks the server as its operator does.
func (s *siteServer) blocks() (out []registry.OutBlock, sum int64) {
	s.t.Helper()
	b, err := exec.Command(s.bin, "upstream", "list", "--blocks", "--json", "--data", s.path("data")).Output()
	if err != nil || json.Unmarshal(b, &out) != nil {
		s.t.Fatalf("list --blocks: %s, %v", b, err)
	}
	for _, x := range out {
		sum += x.Slots
	}
	return out, sum
}

// agents starts n agents that have slots from the server, each a process of its own.
func (s *siteServer) agents(n int) (out []*crashing) {
	s.t.Helper()
	address := "https://" + s.address
	if s.plain {
		address = "http://" + s.address
	}
	return s.agentsOf(n, fmt.Sprintf("pools_url: '%s'", address))
}

// agentsOf starts n agents that have slots from the servers that a key of their configuration names.
func (s *siteServer) agentsOf(n int, servers string) (out []*crashing) {
	s.t.Helper()
	for range n {
		dir, err := os.MkdirTemp(tempDir(), "u")
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { os.RemoveAll(dir) })
		h := &house{t: s.t, dir: dir, signer: s.signer}
		h.config = fmt.Sprintf(
			"product: acme\nsocket: {path: %s}\nstate: {dir: %s, runtime_dir: %s}\nupstream: {%s, "+
				"ca_file: %s}\nlicense:\n  path: %s\n  trust:\n    - kid: k1\n      key_file: %s\n",
			h.path("s"), h.path("state"), h.path("run"), servers, s.path("tls.crt"), s.path("site.lic"), s.public)
		if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
			s.t.Fatal(err)
		}
		h.Client = client.New(h.path("s"))
		c := &crashing{house: h, bin: s.bin}
		c.run()
		s.t.Cleanup(func() {
			c.kill()
			h.Close()
		})
		out = append(out, c)
	}
	return out
}

// share returns an agent's pool.
func (c *crashing) share() *wire.Pool {
	c.t.Helper()
	p, err := c.Pool(context.Background(), "streams")
	if err != nil || p.Budget == nil {
		c.t.Fatalf("pool streams: %+v, %v", p, err)
	}
	return p
}

// take acquires n slots and waits for them.
func (c *crashing) take(n int64) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if _, err := c.Acquire(ctx, wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 600, WaitSeconds: 50}); err !=
		nil {
		blocks, _ := exec.Command("cat", c.path("run/blocks.json")).Output()
		c.t.Fatalf("%d slots were waited for: %v; %s", n, err, blocks)
	}
}

// Three agents and a site server, each a process: the limit is handed out across them; a killed server forgets nothing,
// a killed agent goes on with its slots when it is back in time, and else another has them.
func TestSiteServerAgents(t *testing.T) {
	t.Parallel()
	const ttl = 10 * time.Second // longer than a busy machine needs for a start
	s := openSiteServer(t, 6, ttl)
	all := s.agents(3)
	a, b, c := all[0], all[1], all[2]
	for _, x := range all {
		x.take(2)
	}
	full := func(when string) {
		t.Helper()
		var sum, held int64
		for _, x := range all {
			p := x.share()
			sum, held = sum+*p.Budget, held+p.InUse
		}
		if sum != 6 || held != 6 {
			t.Errorf("%s: the agents may hand out %d, and %d are held", when, sum, held)
		}
		for i, x := range all {
			if _, err := x.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); !errors.Is(err,
				client.ErrNoSlots) || !strings.Contains(err.Error(), "share of the site's 6") {
				t.Errorf("%s: agent %d, a seventh slot: %v", when, i, err)
			}
		}
	}
	full("at first")
	s.kill()
	full("without the server")
	s.run()
	if _, sum := s.blocks(); sum != 6 {
		t.Errorf("after a kill the server says that %d are out", sum)
	}
	full("with the server again")
	// Killed, and back in time.
	b.kill()
	b.run()
	untilShare(t, b, "an agent that is back in time has its 2", func(p *wire.Pool) bool {
		return *p.Budget >= 2 && p.InUse == 2
	})
	// Killed, and not back: another has its slots.
	before, _ := s.blocks()
	a.kill()
	c.take(2)
	after, sum := s.blocks()
	if sum > 6 || *c.share().Budget != 4 {
		t.Errorf("%d are out, and the other agent has %d; blocks before and after: %+v, %+v", sum, *c.share().Budget,
			before, after)
	}
	// It is back when they are another's: it holds what it held, and hands nothing out.
	a.run()
	if p := a.share(); *p.Budget != 0 || p.InUse != 2 {
		t.Errorf("an agent that is back too late has %d, and %d held", *p.Budget, p.InUse)
	}
	if _, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("it hands out: %v", err)
	}
}

// A server is killed and started on a copy of its folder that was made before the last blocks were given, by a server
// at rest or at work. A new agent asks at once: it has nothing before what the others have is known, and they go on
// with all of it.
func TestSiteServerOnOldCopy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		plain bool
		busy  bool
	}{{"mutual TLS, quiet", false, false}, {"plain, busy", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const limit, ttl = 8, 10 * time.Second // an extension comes in time on a busy machine, too
			s := openSiteServerAs(t, limit, ttl, c.plain)
			all := s.agents(2)
			all[0].take(3)
			if !c.busy {
				s.kill()
			} else if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			} else {
				untilStopped(t, s.cmd.Process.Pid)
			}
			for _, name := range []string{"registry.db", "site.key", "site.pub"} {
				b, err := os.ReadFile(s.path("data/" + name))
				if err := errors.Join(err, os.MkdirAll(s.path("old"), 0o700),
					os.WriteFile(s.path("old/"+name), b, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if !c.busy {
				s.run()
			} else if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			all[1].take(5)
			s.kill()
			if err := errors.Join(os.RemoveAll(s.path("data")), os.Rename(s.path("old"), s.path("data"))); err != nil {
				t.Fatal(err)
			}
			s.run()
			all = append(all, s.agents(1)...)
			for began := time.Now(); time.Since(began) < 2*ttl; <-time.After(100 * time.Millisecond) {
				var sum int64
				for _, x := range all {
					sum += *x.share().Budget
				}
				if _, err := all[2].Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"}); err ==
					nil || sum > limit {
					t.Fatalf(
						"%v after the start on an old copy the agents may hand out %d of %d slots, and a new one has "+
							"a slot: %t", time.Since(began), sum, limit, err == nil)
				}
			}
			for i, n := range []int64{3, 5} {
				if p := all[i].share(); *p.Budget != n {
					t.Errorf("an agent that had %d slots may hand out %d", n, *p.Budget)
				}
			}
		})
	}
}
