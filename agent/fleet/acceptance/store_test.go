package acceptance

import (
	"net/url"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/fleet/fleettest"
)

// openEtcd runs one member of etcd and connects to it.
func openEtcd(t *testing.T) *fleet.Etcd {
	t.Helper()
	cfg := embed.NewConfig()
	any := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.Dir, cfg.LogLevel, cfg.UnsafeNoFsync = t.TempDir(), "fatal", true
	cfg.ListenClientUrls, cfg.ListenPeerUrls = any, any
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		t.Fatal("etcd is not ready after a minute")
	}
	store := fleet.Dial([]string{e.Clients[0].Addr().String()}, "", "", nil)
	t.Cleanup(func() { store.Close() })
	return store
}

// A current etcd does what the fleet needs of a store, as the simulated one and Debian's do.
func TestCurrentEtcd(t *testing.T) { fleettest.Store(t, openEtcd(t)) }
