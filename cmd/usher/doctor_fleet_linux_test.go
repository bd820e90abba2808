package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// fleet configures a fleet, runs an agent with a good licence, and has the doctor visit.
func (w *ward) fleet(section string) []string {
	w.Helper()
	w.configure("", "fleet: {ttl: 5s, "+section+"}\n")
	w.sign("a.lic", "--bind", w.request(), "--strategy", "any", "--expires", "365d")
	w.run()
	w.until("valid", func(l *wire.License) bool { return l.State == "valid" })
	return w.doctor()
}

// sickEtcd answers as a member of etcd with a fault.
type sickEtcd struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	status pb.StatusResponse
	err    error // of all transactions
}

func (s *sickEtcd) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &s.status, nil
}

func (s *sickEtcd) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	return &pb.TxnResponse{Header: &pb.ResponseHeader{}}, s.err
}

// sick serves a member of etcd with a fault.
func (w *ward) sick(s *sickEtcd) (endpoints string) {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	server := grpc.NewServer()
	pb.RegisterKVServer(server, s)
	pb.RegisterMaintenanceServer(server, s)
	go server.Serve(l)
	w.Cleanup(server.Stop)
	return "endpoints: ['http://" + l.Addr().String() + "']"
}

// realEtcd runs Debian's etcd, and returns its address and what ends it.
func (w *ward) realEtcd() (address string, stop func()) {
	w.Helper()
	address, cmd := startEtcd(w.T)
	return address, sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
}

// startEtcd runs Debian's etcd until the test ends.
func startEtcd(t *testing.T, more ...string) (address string, cmd *exec.Cmd) {
	t.Helper()
	address, peer := "http://"+ownAddress(t), "http://"+ownAddress(t)
	cmd = exec.Command(debianTool(t, "etcd"), append([]string{"--data-dir", t.TempDir(),
		"--listen-client-urls", address, "--advertise-client-urls", address, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default=" + peer, "--log-level", "fatal"}, more...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return address, cmd
}

// inFleet runs an agent in a fleet on an etcd, and waits until it has joined.
func (w *ward) inFleet(address, ttl string) *wire.Fleet {
	w.Helper()
	w.configure("", "fleet: {ttl: "+ttl+", name: host-1, endpoints: ['"+address+"']}\n")
	w.sign("a.lic", "--scope", "site", "--expires", "365d")
	w.run()
	return w.untilFleet("member", "quarantine")
}

// untilFleet waits until the agent stands in one of these ways.
func (w *ward) untilFleet(states ...string) (f *wire.Fleet) {
	w.Helper()
	c := client.New(w.socket)
	defer c.Close()
	for until := time.Now().Add(time.Minute); time.Now().Before(until); <-time.After(50 * time.Millisecond) {
		var err error
		if f, err = c.Fleet(w.Context()); err == nil {
			for _, s := range states {
				if f.State == s {
					return f
				}
			}
		}
	}
	w.Fatalf("the agent never was %v: %+v", states, f)
	return nil
}

// put writes a key of etcd.
func (w *ward) put(address, key, value string) {
	w.Helper()
	cmd := exec.Command(debianTool(w.T, "etcdctl"), "--endpoints", address, "put", key, value)
	cmd.Env = append(cmd.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%v: %s", err, out)
	}
}

// slowly returns an address from where all goes to another, each piece after a delay.
func (w *ward) slowly(to string, delay time.Duration) string {
	w.Helper()
	return slowly(w.T, to, delay)
}

func slowly(t *testing.T, to string, delay time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pass := func(to, from net.Conn) {
		defer to.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			<-time.After(delay)
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(to, "http://"))
			if err != nil {
				in.Close()
				continue
			}
			go pass(out, in)
			go pass(in, out)
		}
	}()
	return "http://" + l.Addr().String()
}

// wayFaults are those on the way to etcd.
var wayFaults = []fault{
	{"etcd's name is unknown", func(w *ward) []string {
		return w.fleet("endpoints: ['https://etcd.invalid:2379']")
	}, []string{"bad", "FLEET_DNS", "etcd.invalid", "fleet.endpoints", "u.yaml:"}},
	{"etcd does not run", func(w *ward) []string {
		return w.fleet("endpoints: ['http://" + w.nobody() + "']")
	}, []string{"bad", "FLEET_CONNECT", "connection refused", "start that member"}},
	{"etcd does not answer", func(w *ward) []string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		w.must(err)
		w.Cleanup(func() { l.Close() })
		w.args = []string{"--timeout", "15s"}
		return w.fleet("endpoints: ['http://" + l.Addr().String() + "']")
	}, []string{"bad", "FLEET_SILENT", "does not answer", "fleet.endpoints"}},
	{"etcd's CA is unknown", func(w *ward) []string {
		return w.fleet("endpoints: ['" + w.serve(w.newAuthority(), "127.0.0.1", soon(), status(404)) + "']")
	}, []string{"bad", "FLEET_CA", "unknown authority", "fleet.ca_file"}},
	{"etcd's certificate has expired", func(w *ward) []string {
		ca := w.newAuthority()
		return w.fleet("ca_file: " + ca.pem + ", endpoints: ['" +
			w.serve(ca, "127.0.0.1", time.Now().Add(-time.Hour), status(404)) + "']")
	}, []string{"bad", "FLEET_CERT_EXPIRED", "out of its time", "renew the certificate"}},
	{"etcd's certificate is for another name", func(w *ward) []string {
		ca := w.newAuthority()
		return w.fleet("ca_file: " + ca.pem + ", endpoints: ['" + w.serve(ca, "etcd.example.com", soon(), status(404)) +
			"']")
	}, []string{"bad", "FLEET_CERT_NAME", "127.0.0.1", "fleet.endpoints"}},
	{"etcd speaks no TLS", func(w *ward) []string {
		s := httptest.NewServer(status(404))
		w.Cleanup(s.Close)
		return w.fleet("endpoints: ['" + strings.Replace(s.URL, "http:", "https:", 1) + "']")
	}, []string{"bad", "FLEET_TLS", "does not speak TLS", "http://"}},
	{"etcd speaks TLS, and the address has http", func(w *ward) []string {
		at := w.serve(w.newAuthority(), "127.0.0.1", soon(), status(404))
		return w.fleet("endpoints: ['" + strings.Replace(at, "https:", "http:", 1) + "']")
	}, []string{"bad", "FLEET_TLS", "it speaks TLS there", "begins with http://"}},
	{"etcd wants another certificate of the agent", func(w *ward) []string {
		s := httptest.NewUnstartedServer(status(404))
		s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool()}
		s.EnableHTTP2 = true
		s.StartTLS()
		w.Cleanup(s.Close)
		ca := w.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
		return w.fleet("ca_file: " + ca + ", endpoints: ['" + s.URL + "']")
	}, []string{"bad", "FLEET_CLIENT_CERT", "certificate", "fleet.cert_file"}},
	{"etcd does not know the user", func(w *ward) []string {
		return w.fleet(w.sick(&sickEtcd{status: pb.StatusResponse{Leader: 1}, err: rpctypes.ErrGRPCInvalidAuthToken}))
	}, []string{"bad", "FLEET_AUTH", "does not accept the user", "fleet.user"}},
	{"etcd's user has no role", func(w *ward) []string {
		return w.fleet(w.sick(&sickEtcd{status: pb.StatusResponse{Leader: 1}, err: rpctypes.ErrGRPCPermissionDenied}))
	}, []string{"bad", "FLEET_DENIED", "permission denied", "docs/fleet.md"}},
	{"etcd has no leader", func(w *ward) []string {
		return w.fleet(w.sick(&sickEtcd{err: rpctypes.ErrGRPCNoLeader}))
	}, []string{"bad", "FLEET_NO_LEADER", "more than half", "etcdctl endpoint status"}},
	{"etcd is out of quota", func(w *ward) []string {
		return w.fleet(w.sick(&sickEtcd{status: pb.StatusResponse{Leader: 1, Errors: []string{"alarm:NOSPACE"}}}))
	}, []string{"bad", "FLEET_NO_SPACE", "takes no writes", "etcdctl alarm disarm"}},
	{"etcd fails", func(w *ward) []string {
		return w.fleet(w.sick(&sickEtcd{status: pb.StatusResponse{Leader: 1}, err: errors.New("on fire")}))
	}, []string{"bad", "FLEET_FAILING", "on fire", "the log of etcd"}},
}

// fleetFaults are those of an agent's place in a fleet.
var fleetFaults = []fault{
	{"the host's key is in the fleet already", func(w *ward) []string {
		etcd, _ := w.realEtcd()
		w.put(etcd, "/usher/a/"+w.inFleet(etcd, "5s").Agent, `{"incarnation":"x"}`)
		w.untilFleet("waiting")
		return w.doctor()
	}, []string{"bad", "FLEET_CLONE", "another host", "agent.key_file"}},
	{"the host was put out", func(w *ward) []string {
		etcd, _ := w.realEtcd()
		w.inFleet(etcd, "5s")
		w.usher(1, "fleet", "evict", "host-1", "--wait", "0s", "--socket", w.socket)
		w.untilFleet("evicted")
		return w.doctor()
	}, []string{"bad", "FLEET_EVICTED", "put this agent out", "usher fleet evict --undo"}},
	{"the host drains", func(w *ward) []string {
		etcd, _ := w.realEtcd()
		w.inFleet(etcd, "5s")
		w.untilFleet("member")
		w.usher(0, "fleet", "drain", "host-1", "--socket", w.socket)
		w.untilFleet("draining")
		return w.doctor()
	}, []string{"warning", "FLEET_DRAINED", "idle slots", "usher fleet drain --undo host-1"}},
	{"the host drains, and the doctor is given its socket alone", func(w *ward) []string {
		etcd, _ := w.realEtcd()
		w.inFleet(etcd, "5s")
		w.untilFleet("member")
		w.usher(0, "fleet", "drain", "host-1", "--socket", w.socket)
		w.untilFleet("draining")
		return w.doctorAs(func(cmd *exec.Cmd) {
			cmd.Args = append(slices.DeleteFunc(cmd.Args, func(s string) bool {
				return s == "--config" || s == w.path("u.yaml")
			}), "--socket", w.socket)
		})
	}, []string{"warning", "FLEET_DRAINED", "idle slots", "usher fleet drain --undo host-1"}},
	{"a backup of etcd was restored", func(w *ward) []string {
		etcd, _ := w.realEtcd()
		w.inFleet(etcd, "5s")
		w.put(etcd, "/usher/q", `{"reason":"the store was restored from a backup"}`)
		w.untilFleet("quarantine")
		return w.doctor()
	}, []string{"warning", "FLEET_QUARANTINE", "restored from a backup", "ends by itself"}},
	{"the fence has passed", func(w *ward) []string {
		etcd, stop := w.realEtcd()
		w.inFleet(etcd, "5s")
		stop()
		w.untilFleet("fenced")
		other, _ := w.realEtcd() // which is well, but not where the agent looks
		w.configure("", "fleet: {ttl: 5s, name: host-1, endpoints: ['"+other+"']}\n")
		return w.doctor()
	}, []string{"bad", "FLEET_FENCED", "grants no slots", "mend the way"}},
	{"etcd's disk is slow", func(w *ward) []string {
		etcd, _ := w.realEtcd()
		w.inFleet(w.slowly(etcd, 150*time.Millisecond), "20s")
		w.untilFleet("member")
		return w.doctor()
	}, []string{"warning", "FLEET_SLOW", "its writes take", "disk of its own"}},
	{"another host has a smaller licence", func(w *ward) []string {
		etcd, _ := w.realEtcd()
		w.inFleet(etcd, "5s")
		w.untilFleet("member")
		c := client.New(w.socket)
		defer c.Close()
		_, err := c.Acquire(w.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 600, WaitSeconds: 30})
		w.must(err)
		key := w.untilFleet("member").Pools[0].Key
		w.put(etcd, "/usher/p/"+key+"/g/other",
			`{"incarnation":"x","blocks":{"b":1},"ttl":600,"limit":1,"document":"d"}`)
		w.put(etcd, "/usher/p/"+key+"/t", `{"limit":1,"document":"d"}`)
		return w.doctor()
	}, []string{"warning", "FLEET_TERMS", "has 1, which holds for all", "the same licence document"}},
}
