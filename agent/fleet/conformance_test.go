package fleet_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/fleet/fleettest"
)

// startEtcd starts one member of etcd, Debian's, and returns its address.
func startEtcd(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no etcd: .ci/debian installs etcd-server")
		}
		t.Skip("there is no etcd (apt-get install etcd-server)")
	}
	client, peer := freeAddress(t), freeAddress(t)
	cmd := exec.Command(program, "--data-dir", t.TempDir(), "--listen-client-urls", "http://"+client,
		"--advertise-client-urls", "http://"+client, "--listen-peer-urls", "http://"+peer,
		"--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer, "--log-level",
		"error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return client
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// etcdStore connects to etcd.
func etcdStore(t *testing.T, address string) *fleet.Etcd {
	t.Helper()
	e := fleet.Dial([]string{address}, "", "", nil)
	t.Cleanup(func() { e.Close() })
	for until := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := e.Txn(ctx, &fleet.Txn{Then: []fleet.Op{{Get: "/none"}}})
		cancel()
		if err == nil {
			return e
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// The simulated store and etcd do the same.
func TestStores(t *testing.T) {
	t.Run("simulated", func(t *testing.T) { fleettest.Store(t, fleet.NewSim()) })
	t.Run("etcd", func(t *testing.T) { fleettest.Store(t, etcdStore(t, startEtcd(t))) })
}
