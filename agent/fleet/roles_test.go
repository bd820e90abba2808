package fleet

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// etcdctl runs etcdctl, or the script that does.
func etcdctl(t *testing.T, address, user string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("etcdctl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no etcdctl: .ci/debian installs etcd-client")
		}
		t.Skip("there is no etcdctl (apt-get install etcd-client)")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "ETCDCTL_ENDPOINTS="+address)
	if user != "" {
		cmd.Env = append(cmd.Env, "ETCDCTL_USER="+user)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// With the roles of configs/etcd/roles.sh and etcd's authentication on, an agent joins, takes slots and gives them
// back, and neither drains nor evicts another; an operator's user does. A password that is changed, and a token that
// etcd has forgotten, cost no place.
func TestRoles(t *testing.T) {
	t.Parallel()
	c := openCluster(t, 1)
	c.ready()
	address := c.members[0].client
	for range 2 { // again does no harm
		etcdctl(t, address, "", "sh", "../../configs/etcd/roles.sh", "/usher/")
	}
	for _, args := range [][]string{{"user", "add", "root:r"}, {"user", "grant-role", "root", "root"},
		{"user", "add", "agent:a"}, {"user", "grant-role", "agent", "fleet-agent"},
		{"user", "add", "operator:o"}, {"user", "grant-role", "operator", "fleet-operator"}, {"auth", "enable"}} {
		etcdctl(t, address, "", append([]string{"etcdctl"}, args...)...)
	}
	store := Dial([]string{"http://" + address}, "agent", "a", nil)
	t.Cleanup(func() { store.Close() })
	b := joined(t, store)
	checkOut := func(token string) *plugin.Block {
		t.Helper()
		for until := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
			got, err := b.CheckOut(t.Context(), &plugin.CheckOut{Pool: "streams", Slots: 2, Token: token})
			if err == nil {
				return got
			}
			if time.Now().After(until) {
				t.Fatal(err)
			}
		}
	}
	if err := b.Return(t.Context(), &plugin.Return{Block: checkOut("one").ID}); err != nil {
		t.Error(err)
	}
	agent := &Operator{Store: store, Prefix: "/usher/", Now: since(), Time: time.Now}
	if f, err := agent.Look(t.Context(), false); err != nil || len(f.Agents) != 1 ||
		f.Agents[0].FenceSeconds == nil || len(f.Sizes) != 1 || f.Sizes[0].Bytes == 0 || f.Sizes[0].NoSpace {
		t.Errorf("an agent sees %+v, %v", f, err)
	}
	if _, err := agent.Evict(t.Context(), "me", 0); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("an agent evicts: %v", err)
	}
	if _, err := agent.Drain(t.Context(), "me", false); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("an agent drains: %v", err)
	}
	takesOverAs(t, store)
	wrong := Dial([]string{"http://" + address}, "agent", "x", nil)
	t.Cleanup(func() { wrong.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got := wrong.Diagnose(ctx, "/usher/c"); len(got) != 1 || got[0].Fault != FaultAuth {
		t.Errorf("a wrong password is %+v", got)
	}
	// Each change of users has etcd refuse the tokens that it gave before.
	etcdctl(t, address, "root:r", "etcdctl", "user", "add", "another:x")
	checkOut("two")
	etcdctl(t, address, "root:r", "sh", "-c", "echo b | etcdctl user passwd agent --interactive=false")
	store.Use("b", nil)
	checkOut("three")
	theirs := Dial([]string{"http://" + address}, "operator", "o", nil)
	t.Cleanup(func() { theirs.Close() })
	operator := &Operator{Store: theirs, Prefix: "/usher/", Now: since(), Time: time.Now}
	if _, err := agent.SetRules(t.Context(), berlin(1, 0)); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("an agent sets rules: %v", err)
	}
	if got, err := operator.SetRules(t.Context(), enforcer.SiteRules{{Name: "few", Max: 5}}); err != nil ||
		len(got.Uses) != 1 || got.Uses[0].Slots != 4 {
		t.Errorf("an operator sets rules: %+v, %v", got, err)
	}
	if got, err := b.CheckOut(t.Context(), &plugin.CheckOut{Pool: "streams", Slots: 2, AtLeast: 1,
		Token: "four"}); err != nil || got.Slots != 1 {
		t.Errorf("of 5 that a rule leaves, 4 are out: %+v, %v", got, err)
	} else if err := b.Return(t.Context(), &plugin.Return{Block: got.ID}); err != nil {
		t.Error(err)
	}
	if done, err := operator.Drain(t.Context(), "me", false); err != nil || !done.Done {
		t.Errorf("an operator drains: %+v, %v", done, err)
	}
	had := lastHeld(t, theirs, "/usher/p/", "/g/agent-key")
	if done, err := operator.Evict(t.Context(), "me", time.Minute); err != nil || !done.Done || done.Slots != had() {
		t.Errorf("an operator evicts: %+v, %v; the last blocks had %d slots", done, err, had())
	}
}

// lastHeld returns what says how many slots the blocks of a key had when it was deleted, which it waits for: on a busy
// machine the agent gives a block back that nobody extends.
func lastHeld(t *testing.T, store Store, prefix, suffix string) func() int64 {
	t.Helper()
	res, err := store.Txn(t.Context(), &Txn{Then: []Op{{List: prefix}}})
	if err != nil {
		t.Fatal(err)
	}
	var last held
	for _, kv := range res.Got[0] {
		if strings.HasSuffix(kv.Key, suffix) {
			last, _ = read[held](kv, true)
		}
	}
	changes := store.Watch(t.Context(), prefix, res.Rev)
	return sync.OnceValue(func() int64 {
		over := time.After(time.Minute)
		for {
			select {
			case c := <-changes:
				if !strings.HasSuffix(c.Key, suffix) {
					continue
				}
				if c.Deleted {
					return last.sum()
				}
				last, _ = read[held](c.KV, true)
			case <-over:
				return -1
			}
		}
	})
}

// takesOverAs changes what another agent had, as a site server does that takes the blocks of a dead one over.
func takesOverAs(t *testing.T, store Store) {
	t.Helper()
	k := keys{"/usher/"}
	if res, err := store.Txn(t.Context(), &Txn{If: []Is{absent(k.agent("gone"))},
		Then: []Op{{Put: k.block("p", "gone"), Value: "{}"}}}); err != nil || !res.Done {
		t.Errorf("an agent writes what a dead one had: %+v, %v", res, err)
	}
	if _, err := store.Txn(t.Context(), &Txn{Then: []Op{{Delete: k.block("p", "gone")}}}); err != nil {
		t.Error(err)
	}
}

// since returns the time since it was called.
func since() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) + time.Hour }
}

// joined runs a member named "me" of a fleet on a store, and returns what gives it the slots of a licence of ten.
func joined(t *testing.T, store Store) plugin.Budgeter {
	t.Helper()
	var kept []byte
	f, err := New(Config{Store: store, Agent: "agent-key", Prefix: "/usher/", TTL: 5 * time.Second,
		Member: Member{Name: "me"}, Now: since(), Epoch: "boot", Time: time.Now, Log: slog.Default(),
		Load: func() ([]byte, error) { return kept, nil }, Save: func(b []byte) error { kept = b; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return f.For(&enforcer.License{ID: "L1", System: "usher", Product: "acme",
		Pools: map[string]enforcer.PoolTerm{"streams": {Max: 10}}}, []byte("document"), nil, func(string) bool {
		return true
	})
}
