package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/plugin"
)

// guest is an agent's fleet on a real etcd, with a licence of ten slots.
type guest struct {
	*Bound
	c     *cluster
	fleet *Fleet
	disk  []byte
}

func (c *cluster) guest(id string, disk []byte) *guest { return c.guestFor(id, disk, MinTTL) }

// guestFor is guest with another lease.
func (c *cluster) guestFor(id string, disk []byte, ttl time.Duration) *guest {
	c.t.Helper()
	g := &guest{c: c, disk: disk}
	f, err := New(Config{Store: c.dial(), Agent: id, Prefix: "/u/", TTL: ttl, Epoch: "boot", Time: time.Now,
		Now: clock.Fence, Load: func() ([]byte, error) { return g.disk, nil },
		Save: func(b []byte) error { g.disk = b; return nil }})
	if err != nil {
		c.t.Fatal(err)
	}
	g.fleet = f
	g.Bound = f.For(site(10), []byte("ten"), nil, func(string) bool { return true }).(*Bound)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	c.t.Cleanup(func() { cancel(); running.Wait() })
	return g
}

func (g *guest) takes(ctx context.Context, token string, n int64) (*plugin.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return g.CheckOut(ctx, &plugin.CheckOut{Pool: "streams", Slots: n, AtLeast: n, For: time.Hour, Token: token})
}

// extends extends a block; 0 slots: as it is.
func (g *guest) extends(ctx context.Context, block string, n int64) (*plugin.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return g.Extend(ctx, &plugin.Extend{Block: block, Slots: n, For: time.Hour})
}

// untilTakes waits until an agent has slots.
func (g *guest) untilTakes(token string, n int64) (block *plugin.Block) {
	g.c.t.Helper()
	g.c.until(fmt.Sprint("an agent has ", n), func(ctx context.Context) (err error) {
		block, err = g.takes(ctx, token, n)
		return err
	})
	return block
}

func (g *guest) untilExtends(block string) *plugin.Block {
	g.c.t.Helper()
	var got *plugin.Block
	g.c.until("a block is extended", func(ctx context.Context) (err error) {
		got, err = g.extends(ctx, block, 0)
		return err
	})
	return got
}

// gives gives a block back.
func (g *guest) gives(block string) {
	g.c.t.Helper()
	g.c.until("a block is given back", func(ctx context.Context) error {
		return g.Return(ctx, &plugin.Return{Block: block})
	})
}

// Three members of etcd: the leader is stopped for longer than the leases that it knows, the quorum is lost, a watch is
// compacted, and a member is replaced. What an agent holds stays its own for as long as it was told, and all goes on by
// itself.
func TestFailuresOfEtcd(t *testing.T) {
	t.Parallel()
	c := openCluster(t, 3)
	c.ready()
	a, b := c.guest("a", nil), c.guest("b", nil)
	mine := a.untilTakes("1", 10)
	t.Run("leader", func(t *testing.T) { c.leaderGoesOn(t, a, b, mine.ID) })
	t.Run("quorum", func(t *testing.T) {
		block := a.untilExtends(mine.ID)
		began := clock.Fence()
		leads, other := c.leader()
		for _, m := range []*etcdMember{leads, other} {
			m.cmd.Process.Signal(syscall.SIGSTOP)
		}
		for {
			got, err := a.extends(t.Context(), mine.ID, 0)
			now := clock.Fence()
			if err == nil && now > began+block.For && got.For > 0 && now-began > 2*MinTTL {
				t.Fatal("a block is extended without a quorum")
			}
			if err != nil && now > began+MinTTL {
				break
			}
			<-time.After(50 * time.Millisecond)
		}
		for _, m := range []*etcdMember{leads, other} {
			m.cmd.Process.Signal(syscall.SIGCONT)
		}
		a.untilTakes("1", 10) // the same block, or one of the same id where it was over meanwhile
	})
	t.Run("watch", func(t *testing.T) { c.watchCompacted(t, a, b, mine.ID) })
	t.Run("member", func(t *testing.T) { c.memberReplaced(t, a, b, mine.ID) })
}

// leaderGoesOn stops the leader until the leases that it knows are over, and has it go on.
func (c *cluster) leaderGoesOn(t *testing.T, a, b *guest, block string) {
	leads, _ := c.leader()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var until time.Duration // when the block is over, as a was last told
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			began := clock.Fence()
			if got, err := a.extends(ctx, block, 0); err == nil {
				mu.Lock()
				until = max(until, began+got.For)
				mu.Unlock()
			}
			<-time.After(20 * time.Millisecond)
		}
	})
	leads.cmd.Process.Signal(syscall.SIGSTOP)
	for began, stopped := time.Now(), true; time.Since(began) <
		2*MinTTL+4*time.Second; <-time.After(20 * time.Millisecond) {
		if stopped && time.Since(began) > 2*MinTTL {
			stopped = false
			leads.cmd.Process.Signal(syscall.SIGCONT)
		}
		got, err := b.takes(ctx, "2", 5)
		now := clock.Fence()
		mu.Lock()
		if err == nil && now < until {
			t.Errorf("an agent got %d of 10 slots that another has for %s more", got.Slots, until-now)
		}
		mu.Unlock()
		if err == nil {
			break
		}
	}
	leads.cmd.Process.Signal(syscall.SIGCONT)
	cancel()
	asking.Wait()
	b.gives(blockID("2"))
	a.untilTakes("1", 10) // the same token: the same block
}

// watchCompacted compacts what a watch has not seen; the agent hears of what comes all the same.
func (c *cluster) watchCompacted(t *testing.T, a, b *guest, block string) {
	ctx, cancel := c.within()
	defer cancel()
	if _, err := b.takes(ctx, "3", 4); !isFull(err) {
		t.Fatal(err)
	}
	res, err := c.admin.Put(ctx, "/x", "y")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.Compact(ctx, res.Header.Revision); err != nil {
		t.Fatal(err)
	}
	select {
	case _, more := <-c.dial().Watch(ctx, "/", 1):
		if more {
			t.Error("a watch of what is compacted away tells of something")
		}
	case <-ctx.Done():
		t.Error("a watch of what is compacted away does not end")
	}
	if _, err := a.extends(ctx, block, 6); err != nil {
		t.Fatal(err)
	}
	news, err := b.Watch(ctx, &plugin.Watch{For: 4 * time.Second})
	if err != nil || news.Pools["streams"].Free == 0 {
		t.Errorf("who waits hears %+v, %v", news, err)
	}
	b.untilTakes("3", 4)
	b.gives(blockID("3"))
}

// memberReplaced takes a member out and puts an empty one in its place.
func (c *cluster) memberReplaced(t *testing.T, a, b *guest, block string) {
	leads, _ := c.leader()
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { // a block that nobody asks for is given back
		for ; ctx.Err() == nil; <-time.After(100 * time.Millisecond) {
			a.extends(ctx, block, 0)
		}
	})
	defer asking.Wait()
	defer cancel()
	var id uint64
	c.until("the leader is taken out", func(ctx context.Context) error {
		all, err := c.admin.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, m := range all.Members {
			if m.Name == leads.name {
				id = m.ID
			}
		}
		if _, err = c.admin.MemberRemove(ctx, id); errors.Is(err, rpctypes.ErrMemberNotFound) {
			return nil // the answer to an earlier call was lost
		}
		return err
	})
	leads.kill()
	if err := os.RemoveAll(leads.dir); err != nil {
		t.Fatal(err)
	}
	c.until("a member is added", func(ctx context.Context) error {
		_, err := c.admin.MemberAdd(ctx, []string{"http://" + leads.peer})
		if errors.Is(err, rpctypes.ErrPeerURLExist) {
			return nil
		}
		return err
	})
	a.untilExtends(block)
	c.start(leads, "--initial-cluster-state", "existing")
	b.untilTakes("4", 4)
	if got := a.untilExtends(block); got.Slots != 6 {
		t.Errorf("a block of 6 has %d", got.Slots)
	}
}

// One member: it runs out of quota, and a backup of it is restored. A host is copied with all that its agent keeps.
func TestFailuresOfOneEtcd(t *testing.T) {
	t.Parallel()
	c := openCluster(t, 1, "--quota-backend-bytes", "4194304")
	c.ready()
	a := c.guest("a", nil)
	mine := a.untilTakes("1", 3)
	t.Run("quota", func(t *testing.T) { c.outOfQuota(t, a, mine.ID) })
	t.Run("backup", func(t *testing.T) { c.backupRestored(t, a, mine.ID) })
	t.Run("copy", func(t *testing.T) {
		old := append([]byte(nil), a.disk...)
		twin := c.guest("a", old)
		twin.untilTakes("9", 1)
		for range 20 { // whichever of them is in the fleet, all blocks of both are one agent's
			a.takes(t.Context(), "8", 1)
			twin.takes(t.Context(), "7", 1)
		}
		c.adds()
	})
}

func (c *cluster) outOfQuota(t *testing.T, a *guest, block string) {
	c.until("the quota is used up", func(ctx context.Context) error {
		_, err := c.admin.Put(ctx, "/big", strings.Repeat("x", 1<<20))
		if err == nil {
			return errors.New("it is not")
		}
		if f, _ := FaultOf(err); f != FaultNoSpace {
			return err
		}
		return nil
	})
	_, err := a.extends(t.Context(), block, 9)
	var e *plugin.Error
	if !errors.As(err, &e) || !strings.Contains(e.Reason, "quota") || !strings.Contains(e.Hint, "alarm disarm") {
		t.Errorf("a block grows where etcd takes no writes: %v", err)
	}
	if got := a.untilExtends(block); got.Slots != 3 {
		t.Errorf("what the agent has is %+v", got)
	}
	c.until("the store has room again", c.makeRoom)
	c.untilGrows(a, block, 4)
}

// makeRoom does as an operator does whose etcd is out of quota. What a compaction leaves may come free a moment later,
// and a write that came late, or that etcd refused before, may fill it and raise the alarm again: so all is done until
// there is room.
func (c *cluster) makeRoom(ctx context.Context) error {
	is, err := c.admin.Get(ctx, "/big", clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	if _, err := c.admin.Compact(ctx, is.Header.Revision, clientv3.WithCompactPhysical()); err != nil &&
		!errors.Is(err, rpctypes.ErrCompacted) {
		return err
	}
	_, errs0 := c.admin.Defragment(ctx, c.members[0].client)
	_, errs1 := c.admin.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	now, errs2 := c.admin.Status(ctx, c.members[0].client)
	if err := errors.Join(errs0, errs1, errs2); err != nil {
		return err
	}
	if now.DbSize > 3<<20 {
		return fmt.Errorf("it has %d bytes", now.DbSize)
	}
	return nil
}

// untilGrows has an agent's block grow.
func (c *cluster) untilGrows(a *guest, block string, n int64) {
	c.until("a block grows", func(ctx context.Context) error {
		_, err := a.extends(ctx, block, n)
		if err != nil {
			err = errors.Join(err, c.makeRoom(ctx))
		}
		return err
	})
}

func (c *cluster) backupRestored(t *testing.T, a *guest, block string) {
	ctl, err := exec.LookPath("etcdctl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no etcdctl: .ci/debian installs etcd-client")
		}
		t.Skip("there is no etcdctl (apt-get install etcd-client)")
	}
	m, file := c.members[0], filepath.Join(t.TempDir(), "backup")
	etcdctl := func(args ...string) {
		t.Helper()
		cmd := exec.Command(ctl, args...)
		cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("etcdctl %v: %v: %s", args, err, out)
		}
	}
	etcdctl("--endpoints", m.client, "snapshot", "save", file)
	c.untilGrows(a, block, 8)
	m.kill()
	m.dir = filepath.Join(t.TempDir(), "restored")
	// With another token it is another cluster. Without one, and with the members' addresses, only its revision tells
	// it.
	etcdctl("snapshot", "restore", file, "--name", m.name, "--data-dir", m.dir, "--initial-cluster",
		m.name+"=http://"+m.peer, "--initial-advertise-peer-urls", "http://"+m.peer,
		"--initial-cluster-token", "restored")
	c.start(m)
	c.ready()
	b := c.guest("b", nil)
	settled := false
	c.until("what is free is another's", func(ctx context.Context) error {
		a.extends(ctx, block, 0)
		_, err := b.takes(ctx, "2", 2)
		settled = settled || code(err) == plugin.SystemSettling
		return err
	})
	if !settled {
		t.Error("nobody waited until all had stated what they have")
	}
	if _, err := b.takes(t.Context(), "3", 1); err == nil {
		t.Error("an eleventh of ten slots")
	}
	if got := a.untilExtends(block); got.Slots != 8 {
		t.Errorf("a block of 8 has %d after the backup of 4 was restored", got.Slots)
	}
	c.adds()
}

// adds looks that the total is the sum of the blocks, and no more than ten.
func (c *cluster) adds() {
	c.t.Helper()
	ctx, cancel := c.within()
	defer cancel()
	res, err := c.dial().Txn(ctx, &Txn{Then: []Op{{List: "/u/p/"}}})
	if err != nil {
		c.t.Fatal(err)
	}
	var out, blocks int64
	for _, kv := range res.Got[0] {
		h, _ := read[held](kv, strings.Contains(kv.Key, "/g/"))
		s, _ := read[total](kv, strings.HasSuffix(kv.Key, "/s"))
		blocks, out = blocks+h.sum(), out+s.Out
	}
	if out != blocks || out > 10 {
		c.t.Errorf("the total is %d, and the blocks have %d", out, blocks)
	}
}
