package fleet

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// cluster is a few members of etcd, Debian's.
type cluster struct {
	t       *testing.T
	program string
	members []*etcdMember
	admin   *clientv3.Client
}

type etcdMember struct {
	name, dir, client, peer string
	cmd                     *exec.Cmd
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

// openCluster starts n members.
func openCluster(t *testing.T, n int, more ...string) *cluster {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no etcd: .ci/debian installs etcd-server")
		}
		t.Skip("there is no etcd (apt-get install etcd-server)")
	}
	c := &cluster{t: t, program: program}
	for i := range n {
		c.members = append(c.members, &etcdMember{name: fmt.Sprint("m", i), dir: filepath.Join(t.TempDir(), "data"),
			client: freeAddress(t), peer: freeAddress(t)})
	}
	for _, m := range c.members {
		c.start(m, append(more, "--initial-cluster-state", "new")...)
		t.Cleanup(m.kill)
	}
	return c
}

func (c *cluster) start(m *etcdMember, more ...string) {
	c.t.Helper()
	var all []string
	for _, o := range c.members {
		all = append(all, o.name+"=http://"+o.peer)
	}
	m.cmd = exec.Command(c.program, append([]string{"--name", m.name, "--data-dir", m.dir, "--listen-client-urls",
		"http://" + m.client, "--advertise-client-urls", "http://" + m.client, "--listen-peer-urls", "http://" + m.peer,
		"--initial-advertise-peer-urls", "http://" + m.peer, "--initial-cluster", strings.Join(all, ","),
		"--log-level", "fatal"}, more...)...)
	if err := m.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (m *etcdMember) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		m.cmd = nil
	}
}

func (c *cluster) endpoints() (all []string) {
	for _, m := range c.members {
		all = append(all, m.client)
	}
	return all
}

func (c *cluster) dial() *Etcd {
	e := Dial(c.endpoints(), "", "", nil)
	c.t.Cleanup(func() { e.Close() })
	return e
}

// within is for one call of a test.
func (c *cluster) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.t.Context(), 5*time.Second)
}

// until waits until something is so.
func (c *cluster) until(what string, ok func(context.Context) error) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		ctx, cancel := c.within()
		err := ok(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s: not so after a minute: %v", what, err)
		}
	}
}

// ready waits until the members answer.
func (c *cluster) ready() {
	c.t.Helper()
	admin, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints(), DialTimeout: 5 * time.Second})
	if err != nil {
		c.t.Fatal(err)
	}
	if c.admin != nil {
		c.admin.Close()
	} else {
		c.t.Cleanup(func() { c.admin.Close() })
	}
	c.admin = admin
	c.until("etcd answers", func(ctx context.Context) error {
		_, err := admin.Get(ctx, "/none")
		return err
	})
}

// leader returns the member that leads, and one that does not.
func (c *cluster) leader() (leads, other *etcdMember) {
	c.t.Helper()
	c.until("a member leads", func(ctx context.Context) error {
		for _, m := range c.members {
			s, err := c.admin.Status(ctx, m.client)
			switch {
			case err != nil:
				return err
			case s.Leader == s.Header.MemberId:
				leads = m
			default:
				other = m
			}
		}
		if leads == nil {
			return fmt.Errorf("none leads")
		}
		return nil
	})
	return leads, other
}
