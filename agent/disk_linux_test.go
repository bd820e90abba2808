package agent_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// A full disk denies what must be stored, in words, and takes everything back; when there is room again all goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	h := open(t, "", "USHER_STATE_DIR="+disk+"/state", "USHER_STATE_RUNTIME_DIR="+disk+"/run")
	h.drop("a.lic", h.sign("a", 100, func(c *usher.Claims) {
		c.Meters = map[string]usher.Meter{"renders": {Max: new(int64(1000)), Scope: "host"}}
	}))
	h.until("dropped", inForce("a"))
	held, ttl := h.acquire(1), wire.Lease{}
	if l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
		t.Fatal(err)
	} else {
		ttl = *l
	}
	draw := func() error {
		_, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "renders"})
		return err
	}
	if err := draw(); err != nil {
		t.Fatal(err)
	}
	filler := disk + "/filler"
	fill(t, filler)
	for what, ask := range map[string]func() error{
		"a draw": draw,
		"a held lease": func() error {
			_, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
			return err
		},
	} {
		// What room a page has left may take a few records.
		var err error
		for range 200 {
			if err = ask(); err != nil {
				break
			}
		}
		if !errors.Is(err, client.ErrStorage) || !strings.Contains(err.Error(), "could not be stored") {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	joinsInVain(h)
	before, err := h.Pool(t.Context(), "streams")
	if err != nil {
		t.Fatal(err)
	}
	h.release(held)
	h.release(&ttl)
	h.inUse(before.InUse - 2)
	if l, err := h.License(t.Context()); err != nil || l.State != "valid" {
		t.Errorf("the licence: %+v, %v", l, err)
	}
	drawn, err := h.Pool(t.Context(), "renders")
	if err != nil {
		t.Fatal(err)
	}
	h.readyBut(t, "journal")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	h.readyBut(t, "")
	if err := draw(); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	h.release(h.acquire(1))
	// What was acknowledged is found again.
	h.stop()
	h.start()
	h.until("again", inForce("a"))
	if p, err := h.Pool(t.Context(), "renders"); err != nil || p.InUse != drawn.InUse+1 {
		t.Errorf("the meter after a restart: %+v, want %d, %v", p, drawn.InUse+1, err)
	}
}

// joinsInVain has a process join another's lease when not even that fits on the disk: it is told so, for after a crash
// nobody would know of it.
func joinsInVain(h *house) {
	h.t.Helper()
	p, err := h.Pool(h.t.Context(), "streams")
	if err != nil {
		h.t.Fatal(err)
	}
	before := p.InUse
	holder := h.play(`
s = session(); got = last = ask(s, "lease.acquire", pool="streams")
while '"result"' in got: last = got; got = ask(s, "lease.acquire", pool="streams", labels={"a": "b"})
say(last); say(got); heard()
`)
	l := lease(h.t, holder.hear())
	if got := holder.hear(); !strings.Contains(got, `"storage"`) {
		h.t.Fatalf("a process lease on a full disk: %s", got)
	}
	joiner := h.play(`
s = session(); say(ask(s, "lease.join", id=heard()))
`)
	if got := joiner.ask(l.ID); !strings.Contains(got, `"storage"`) {
		h.t.Errorf("a join that cannot be stored: %s", got)
	}
	if err := holder.cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	h.inUse(before)
}

// readyBut waits until the agent says that it is not ready for the sake of one part, or that it is: then part is empty.
func (h *house) readyBut(t *testing.T, part string) {
	t.Helper()
	becomes(t, "ready but "+part, func() bool {
		is, err := h.Client.Health(t.Context())
		return err == nil && (part == "" && is.Status == "ok" ||
			slices.ContainsFunc(is.Unready, func(u wire.Unready) bool { return u.Part == part }))
	})
}

// smallDisk mounts a disk of 256 KiB, and returns its folder.
func smallDisk(t *testing.T) string {
	t.Helper()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		lacks(t, "a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// fill writes a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A full runtime folder, whether it has a journal already or not, does not stop the start: what must be kept there is
// denied until there is room, and everything else goes on.
func TestFullRuntimeFolder(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	h := open(t, "", "USHER_STATE_RUNTIME_DIR="+disk+"/run")
	h.drop("a.lic", h.sign("a", 100, nil))
	h.until("dropped", inForce("a"))
	before := h.acquire(1)
	for _, fresh := range []bool{false, true} {
		h.stop()
		if fresh {
			if err := os.RemoveAll(disk + "/run"); err != nil { // as a service manager does with a runtime folder
				t.Fatal(err)
			}
		}
		filler := disk + "/filler"
		fill(t, filler)
		h.start()
		h.until("on a full disk", inForce("a"))
		if _, err := h.Lease(t.Context(), before.ID); !fresh && err != nil {
			t.Errorf("the lease of before: %v", err)
		}
		if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"}); err != nil {
			t.Errorf("a held lease, which is kept elsewhere: %v", err)
		}
		var err error
		for range 200 { // what room a page has left may take a few records
			if _, err = h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
				break
			}
		}
		if fresh && !errors.Is(err, client.ErrStorage) {
			t.Errorf("a lease that cannot be kept: %v", err)
		}
		if errors.Is(err, client.ErrStorage) {
			h.readyBut(t, "journal")
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		h.readyBut(t, "") // though nobody asks for a lease
		l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
		if err != nil && !errors.Is(err, client.ErrNoSlots) {
			t.Fatalf("when there is room again: %v", err)
		}
		if l == nil {
			continue
		}
		h.stop()
		h.start()
		h.until("again", inForce("a"))
		if _, err := h.Lease(t.Context(), l.ID); err != nil {
			t.Errorf("a lease given when there was room, after a restart: %v", err)
		}
	}
}
