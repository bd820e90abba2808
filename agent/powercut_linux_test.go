package agent_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// starts has the agent see start n of the host: another boot id, as in a mount namespace of its own.
func (c *crashing) starts(n int) {
	c.t.Helper()
	id := c.path("boot_id")
	if err := os.WriteFile(id, fmt.Appendf(nil, "%08x-0000-4000-8000-000000000000\n", n), 0o644); err != nil {
		c.t.Fatal(err)
	}
	const mounts = `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`
	c.through = []string{"unshare", "--mount", "sh", "-c", mounts, id}
	if out, err := exec.Command(c.through[0], append(c.through[1:], "true")...).CombinedOutput(); err != nil {
		lacks(c.t, "no other boot id can be shown to the agent here: %v: %s", err, out)
	}
}

// powerCut is what a power cut leaves of the runtime folder.
type powerCut struct {
	name string
	harm func()
}

func powerCuts(c *crashing) []powerCut {
	journal, seal := c.path("run/leases.journal"), c.path("run/runtime.seal")
	cut := func(path string, change func(b []byte) []byte) {
		c.t.Helper()
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, change(b), 0o600)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	garbage := func(b []byte) { rand.Read(b) }
	return []powerCut{
		{"nothing is lost", func() {}},
		{"the end is cut off", func() { cut(journal, func(b []byte) []byte { return b[:len(b)*2/3] }) }},
		{"but half of the header is cut off", func() { cut(journal, func(b []byte) []byte { return b[:12] }) }},
		{"the file is empty", func() { cut(journal, func(b []byte) []byte { return nil }) }},
		{"the end is zeros", func() { cut(journal, func(b []byte) []byte { clear(b[len(b)/2:]); return b }) }},
		{"all is zeros", func() { cut(journal, func(b []byte) []byte { clear(b); return b }) }},
		{"the end is garbage", func() { cut(journal, func(b []byte) []byte { garbage(b[len(b)/2:]); return b }) }},
		{"the middle is garbage", func() {
			cut(journal, func(b []byte) []byte { garbage(b[len(b)/3 : len(b)/2]); return b })
		}},
		{"all is garbage", func() { cut(journal, func(b []byte) []byte { garbage(b); return b }) }},
		{"the seal is empty", func() { cut(seal, func(b []byte) []byte { return nil }) }},
		{"both are garbage", func() {
			for _, path := range []string{journal, seal} {
				cut(path, func(b []byte) []byte { garbage(b); return b })
			}
		}},
	}
}

// A power cut while the runtime folder lies on a disk, which nobody has synced, leaves anything of its files. The next
// start of the host goes on: what was held by processes is over, what outlives the host stands, no slot is given twice,
// and nothing is taken for tampering. In the same start of the host such damage is refused.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 4, nil)
	c.kill()
	journal := c.path("run/leases.journal")
	harms := powerCuts(c)
	c.starts(0)
	c.run()
	held, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	take := func(token string) error {
		_, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "ttl", ClientToken: token})
		return err
	}
	for i, h := range harms {
		for n := range 3 {
			if err := take(fmt.Sprint(i, ".", n)); err != nil {
				t.Fatalf("before %q: %v", h.name, err)
			}
		}
		if err := take(""); !errors.Is(err, client.ErrNoSlots) {
			t.Fatalf("before %q: a slot too many: %v", h.name, err)
		}
		c.kill()
		h.harm()
		c.starts(i + 1)
		c.run() // which says so where the state counts as changed
		all, err := c.Leases(t.Context(), "")
		if err != nil || len(all) != 1 || all[0].ID != held.ID {
			t.Fatalf("after %q these are held: %+v, %v", h.name, all, err)
		}
	}
	aside, err := filepath.Glob(journal + ".damaged-*")
	if err != nil || len(aside) == 0 {
		t.Errorf("damaged journals are kept as %v, %v", aside, err)
	}

	if err := take("last"); err != nil {
		t.Fatal(err)
	}
	c.kill()
	f, err := os.OpenFile(journal, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 100))
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(c.through[0], append(c.through[1:], c.bin, "agent", "--config", c.path("usher.yaml"))...).
		CombinedOutput()
	if err == nil || !strings.Contains(string(out), "usher doctor --repair") {
		t.Errorf("damage of this start of the host: %v: %s", err, out)
	}
}
