package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// An agent with a password comes back by itself when a backup of etcd was restored: the token that it has names an
// index of a log that is no more, and a member that was restored lets each call with that token hang.
func TestRestoredWithUsers(t *testing.T) {
	t.Parallel()
	c := openCluster(t, 1)
	c.ready()
	m := c.members[0]
	for i := range 100 { // the backup's log begins at 1
		c.until("a write", func(ctx context.Context) error {
			_, err := c.admin.Put(ctx, "/other", fmt.Sprint(i))
			return err
		})
	}
	etcdctl(t, m.client, "", "sh", "../../configs/etcd/roles.sh", "/usher/")
	for _, args := range [][]string{{"user", "add", "root:r"}, {"user", "grant-role", "root", "root"},
		{"user", "add", "agent:a"}, {"user", "grant-role", "agent", "fleet-agent"}, {"auth", "enable"}} {
		etcdctl(t, m.client, "", append([]string{"etcdctl"}, args...)...)
	}
	store := Dial([]string{"http://" + m.client}, "agent", "a", nil)
	t.Cleanup(func() { store.Close() })
	b := joined(t, store)
	takes := func(token string) {
		t.Helper()
		c.until("it gets a slot", func(ctx context.Context) error {
			got, err := b.CheckOut(ctx, &plugin.CheckOut{Pool: "streams", Slots: 1, AtLeast: 1, Token: token})
			if err == nil {
				err = b.Return(ctx, &plugin.Return{Block: got.ID})
			}
			return err
		})
	}
	takes("before")
	backup := filepath.Join(t.TempDir(), "backup")
	etcdctl(t, m.client, "root:r", "etcdctl", "snapshot", "save", backup)
	m.kill()
	if err := os.RemoveAll(m.dir); err != nil {
		t.Fatal(err)
	}
	etcdctl(t, m.client, "", "etcdctl", "snapshot", "restore", backup, "--name", m.name, "--data-dir", m.dir,
		"--initial-cluster", m.name+"=http://"+m.peer, "--initial-advertise-peer-urls", "http://"+m.peer,
		"--initial-cluster-token", "another")
	c.start(m)
	began := time.Now()
	takes("after")
	t.Logf("it gets a slot %v after etcd was started", time.Since(began))
}

// Why no member answers is the fault of one without a leader, or else of the first; where one can be asked, none.
func TestExplaining(t *testing.T) {
	refused, lost := MemberFault{Endpoint: "a", Fault: FaultRefused}, MemberFault{Endpoint: "b", Fault: FaultNoLeader}
	for _, c := range []struct {
		faults  []MemberFault
		members int
		want    string
	}{{nil, 0, ""}, {nil, 3, ""}, {[]MemberFault{refused}, 3, ""}, {[]MemberFault{refused}, 1, "a"},
		{[]MemberFault{refused, refused, lost}, 3, "b"}} {
		got := explaining(c.faults, c.members)
		if c.want == "" && got != nil || c.want != "" && (got == nil || got.Endpoint != c.want) {
			t.Errorf("%+v of %d members: %+v, want %q", c.faults, c.members, got, c.want)
		}
	}
}
