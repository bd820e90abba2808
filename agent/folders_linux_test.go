package agent_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// harm is what the container beside the agent's tries, as a user of its own, in the folder that both have: it exits 1
// if it got anywhere.
const harm = `cd "$1" || exit 0
ls "$2" 2>/dev/null && { echo "it lists $2"; exit 1; }
for f in "$2"/*.journal "$2"/agent.key "$3"/*.journal "$3"/*.lock; do
	mv "$f" "$f.gone" 2>/dev/null && { echo "it moved $f"; exit 1; }
	(: >> "$f") 2>/dev/null && { echo "it wrote to $f"; exit 1; }
done
mv "$2" "$2.gone" 2>/dev/null && { echo "it moved $2"; exit 1; }
mv "$3" "$3.gone" 2>/dev/null && { echo "it moved $3"; exit 1; }
ln -s "$2/agent.key" s.lock && ln -s "$2/agent.key" .uABCDEFGH && echo junk > .usher-AAAAAAAAAAAAAAAAAAAAAAAAAA
exit 0
`

// Two containers have the socket's folder, which is everybody's: what another user does there costs the agent nothing,
// over a kill and a restart, and the folder holds nothing of the agent's but the socket.
func TestTwoContainers(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can act as another user")
	}
	h := open(t, "")
	shared := h.path("shared")
	if err := errors.Join(os.Chmod(h.dir, 0o755), os.Mkdir(shared, 0o700), os.Chmod(shared, 0o777)); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h.config = strings.Replace(h.config, "socket: {path: "+h.path("s")+"}",
		fmt.Sprintf("socket: {path: %s/s, mode: \"0666\"}", shared), 1)
	h.Client = client.New(shared + "/s")
	h.start()
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	var ids []string
	for range 2 {
		l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 3600})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.ID)
	}
	entries, err := os.ReadDir(shared)
	if err != nil || len(entries) != 1 {
		t.Errorf("the socket's folder holds %v (%v)", entries, err)
	}
	key, err := os.ReadFile(h.path("state/agent.key"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", harm, "sh", shared, h.path("state"), h.path("run"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("another user: %v: %s", err, out)
	}
	h.stop()
	h.start()
	h.until("again", inForce("a"))
	for _, id := range ids {
		if l, err := h.Lease(t.Context(), id); err != nil || l.State == "ended" {
			t.Errorf("lease %s after a restart: %+v, %v", id, l, err)
		}
	}
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err == nil {
		t.Error("a third of two slots was given")
	}
	if after, err := os.ReadFile(h.path("state/agent.key")); err != nil || string(after) != string(key) {
		t.Errorf("the agent's key was changed (%v)", err)
	}
}

// What earlier versions left is taken over where the agent can mend it, and refused with the mend where it cannot.
func TestFormerLayout(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
	if err := errors.Join(os.Chmod(h.path("state"), 0o755), os.Chmod(h.path("run"), 0o777),
		os.WriteFile(h.path("s.lock"), []byte("1234\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	h.start()
	if got, err := h.Lease(t.Context(), l.ID); err != nil || got.ID != l.ID {
		t.Errorf("the lease after the upgrade: %+v, %v", got, err)
	}
	for path, want := range map[string]os.FileMode{"state": 0o700, "run": 0o755} {
		if fi, err := os.Stat(h.path(path)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %v", path, fi.Mode().Perm(), err, want)
		}
	}
	if _, err := os.Lstat(h.path("s.lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock beside the socket is left: %v", err)
	}
	h.stop()

	refused := func(what, want string) {
		t.Helper()
		cfg, err := h.load()
		if err != nil {
			t.Fatal(err)
		}
		if _, err = agent.New(agent.Options{Config: cfg}); err == nil {
			t.Fatalf("%s: the agent starts", what)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	if err := errors.Join(os.Rename(h.path("state/agent.key"), h.path("state/k")),
		os.Symlink("k", h.path("state/agent.key"))); err != nil {
		t.Fatal(err)
	}
	refused("a link among the state",
		"agent.key is a link, and the agent follows none among its own files; move it away")
	if err := os.Rename(h.path("state/k"), h.path("state/agent.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("a folder on the way that is everybody's",
		"others can write to the folder "+h.dir+" on the way (mode 0777)")
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		public := filepath.Join(h.dir, "k1.pub")
		if err := os.Chown(public, somebody, somebody); err != nil {
			t.Fatal(err)
		}
		refused("an anchor of another user's",
			"k1.pub belongs to uid 4711, who could change it; chown it to root, or to the agent's user")
		if err := os.Chown(public, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(h.path("run"), somebody, somebody); err != nil {
			t.Fatal(err)
		}
		refused("a runtime folder of another user's", "it belongs to uid 4711")
		if err := os.Chown(h.path("run"), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
}
