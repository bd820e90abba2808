package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
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
		"--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer,
		"--log-level", "error", "--unsafe-no-fsync")
	cmd.Args = cmd.Args[:len(cmd.Args)-1] // Debian's etcd 3.4 has no such flag
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
func etcdStore(t *testing.T, address string) Store {
	t.Helper()
	e := Dial([]string{address}, "", "", nil)
	t.Cleanup(func() { e.Close() })
	for until := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := e.Txn(ctx, &Txn{Then: []Op{{Get: "/none"}}})
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
	t.Run("simulated", func(t *testing.T) { conform(t, &way{sim: newSim()}) })
	t.Run("etcd", func(t *testing.T) { conform(t, etcdStore(t, startEtcd(t))) })
}

// conform is what a Store does.
func conform(t *testing.T, s Store) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	do := func(x *Txn) *Result {
		t.Helper()
		res, err := s.Txn(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	empty := do(&Txn{Then: []Op{{Get: "/c/a"}, {List: "/c/"}}})
	if _, ok := empty.one(0); ok || !empty.Done || len(empty.Got) != 2 || len(empty.Got[1]) != 0 {
		t.Fatalf("an empty store: %+v", empty)
	}
	changes := s.Watch(ctx, "/c/w/", empty.Rev)
	one := do(&Txn{If: []Is{absent("/c/b")}, Then: []Op{{Put: "/c/b", Value: "1"}, {Put: "/c/w/x", Value: "y"}}})
	two := do(&Txn{If: []Is{has("/c/b", "1"), still("/c/b", one.Rev), absent("/c/a")},
		Then: []Op{{Put: "/c/a", Value: "2"}}})
	if !one.Done || !two.Done || two.Rev != one.Rev+1 || two.Cluster == 0 || two.Cluster != empty.Cluster {
		t.Fatalf("%+v, %+v", one, two)
	}
	got := do(&Txn{If: []Is{absent("/c/b")}, Then: []Op{{Put: "/c/b", Value: "no"}},
		Else: []Op{{List: "/c/"}, {List: "/c/", Most: 1}, {Get: "/c/a"}}})
	if got.Done || fmt.Sprint(got.Got) !=
		fmt.Sprintf("[[{/c/b 1 %d %[1]d 0} {/c/w/x y %[1]d %[1]d 0} {/c/a 2 %d %[2]d 0}] "+
			"[{/c/b 1 %[1]d %[1]d 0}] [{/c/a 2 %[2]d %[2]d 0}]]", one.Rev, two.Rev) {
		t.Fatalf("a refused transaction reads %v", got.Got)
	}
	for _, c := range []struct {
		is   Is
		done bool
	}{{has("/c/b", "2"), false}, {has("/c/none", ""), false}, {still("/c/b", one.Rev+1), false},
		{absent("/c/b"), false},
		{still("/c/none", 0), true}, {Is{Prefix: "/c/", Unchanged: two.Rev}, true},
		{Is{Prefix: "/c/", Unchanged: one.Rev}, false}, {Is{Prefix: "/d/", Unchanged: 1}, true}} {
		if res := do(&Txn{If: []Is{c.is}}); res.Done != c.done {
			t.Errorf("%+v: %v", c.is, res.Done)
		}
	}
	do(&Txn{Then: []Op{{Put: "/c/b", Value: "3"}, {Delete: "/c/none"}}})
	if kv, _ := do(&Txn{Then: []Op{{Get: "/c/b"}}}).one(0); kv.Create != one.Rev || kv.Mod != two.Rev+1 {
		t.Errorf("a key that was changed: %+v", kv)
	}
	then := do(&Txn{Then: []Op{{Delete: "/c/a"}}})
	old := do(&Txn{Then: []Op{{Get: "/c/b", Rev: two.Rev}, {Get: "/c/a", Rev: one.Rev}, {Get: "/c/a", Rev: two.Rev},
		{Get: "/c/a"}}})
	if fmt.Sprint(old.Got) != fmt.Sprintf("[[{/c/b 1 %d %[1]d 0}] [] [{/c/a 2 %d %[2]d 0}] []]", one.Rev, two.Rev) {
		t.Errorf("earlier revisions have %v", old.Got)
	}
	if _, err := s.Txn(ctx, &Txn{Then: []Op{{Get: "/c/a", Rev: then.Rev + 9}}}); err == nil {
		t.Error("a revision that is to come is read")
	}
	conformLeases(t, ctx, s, do, changes)
}

// conformLeases is what a Store does with leases, and tells of in a watch.
func conformLeases(t *testing.T, ctx context.Context, s Store, do func(*Txn) *Result, changes <-chan Change) {
	lease, ttl, err := s.Grant(ctx, 2*time.Second)
	if err != nil || ttl < 2*time.Second {
		t.Fatal(ttl, err)
	}
	do(&Txn{Then: []Op{{Put: "/c/w/leased", Value: "z", Lease: lease}}})
	if ttl, err := s.Renew(ctx, lease); err != nil || ttl < 2*time.Second {
		t.Fatal(ttl, err)
	}
	if _, err := s.Txn(ctx, &Txn{Then: []Op{{Put: "/c/x", Value: "z", Lease: 12345}}}); err == nil {
		t.Error("a lease that is not there is taken")
	}
	for _, want := range []string{"/c/w/x false", "/c/w/leased false", "/c/w/leased true"} { // the lease ends by itself
		for {
			if len(want) > 12 && want[len(want)-4:] == "true" {
				do(&Txn{Then: []Op{{Get: "/c/w/leased"}}}) // the simulated store ends leases when it is asked
			}
			select {
			case c := <-changes:
				if got := fmt.Sprint(c.Key, " ", c.Deleted); got != want {
					t.Fatalf("the watch tells %s, want %s", got, want)
				}
			case <-time.After(50 * time.Millisecond):
				if ctx.Err() != nil {
					t.Fatal("the watch does not tell " + want)
				}
				continue
			}
			break
		}
	}
	if _, err := s.Renew(ctx, lease); !errors.Is(err, ErrLeaseGone) {
		t.Errorf("a lease that is over: %v", err)
	}
}
