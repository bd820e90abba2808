package liveness

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// found is Find's state alone.
func found(p Process) State {
	h, s := Find(p)
	if h != nil {
		_ = h.Close()
	}
	return s
}

func TestFind(t *testing.T) {
	c := spawn(t, "wait")
	alive := c.handle(t).Process()
	gone := spawn(t, "wait")
	dead := gone.handle(t).Process()
	gone.end()
	zombie := spawn(t, "wait")
	unreaped := zombie.handle(t).Process()
	zombie.killed(t)
	with := func(p Process, change func(*Process)) Process { change(&p); return p }
	byNumber := func(p Process) Process { p.Handle, p.Inode = nil, 0; return p }
	for _, c := range []struct {
		name string
		p    Process
		want State
	}{
		{"alive", alive, Alive},
		{"alive, by its number", byNumber(alive), Alive},
		{"dead", dead, Dead},
		{"dead, by its number", byNumber(dead), Dead},
		{"dead and not reaped", unreaped, Dead},
		{"dead and not reaped, by its number", byNumber(unreaped), Dead},
		{"another boot", with(alive, func(p *Process) { p.BootID = "a" }), Dead},
		{"no boot", with(alive, func(p *Process) { p.BootID = "" }), Unknown},
		{"nothing", Process{}, Unknown},
		{"its number is another's", with(byNumber(alive), func(p *Process) { p.Start-- }), Dead},
		{"its number is another's, of the same tick", with(alive, func(p *Process) {
			p.Inode++
			p.Handle = nil
		}), Dead},
		{"another PID namespace, dead", with(dead, func(p *Process) { p.PIDNS++ }), Unknown},
		{"another PID namespace, by its number", with(byNumber(alive), func(p *Process) { p.PIDNS++ }), Unknown},
		{"never visible, dead", with(dead, func(p *Process) { p.PID, p.Start = 0, 0 }), Unknown},
		{"another time namespace of the same inode, by its number", with(byNumber(alive), func(p *Process) {
			p.TimeOffset++
			p.Start++
		}), Unknown},
		{"another time namespace, by its number", with(byNumber(alive), func(p *Process) {
			p.TimeNS++
			p.Start++
		}), Unknown},
		{"no start time", with(byNumber(alive), func(p *Process) { p.Start = 0 }), Unknown},
		{"a handle of nonsense", with(alive, func(p *Process) {
			p.Handle = []byte("nonsense that is long enough")
		}), Alive},
		{"a handle too long", with(alive, func(p *Process) { p.Handle = make([]byte, 1<<16) }), Alive},
		{"a handle too short", with(alive, func(p *Process) { p.Handle = []byte{1} }), Alive},
	} {
		if c.p.Inode != alive.Inode && alive.Inode == 0 {
			continue // without pidfs there are no inodes
		}
		before := descriptors()
		if got := found(c.p); got != c.want {
			t.Errorf("%s: %v, want %v (%+v)", c.name, got, c.want, c.p)
		}
		if after := descriptors(); after != before {
			t.Errorf("%s: %d descriptors, %d before", c.name, after, before)
		}
	}
}

// A handle finds a process even from another PID namespace than the one in which it was taken, if the process is
// visible.
func TestFindByHandleAlone(t *testing.T) {
	if !Supported().Handles {
		t.Skip("no file handles of pidfds on this kernel")
	}
	c := spawn(t, "wait")
	p := c.handle(t).Process()
	p.PID, p.Start, p.PIDNS = 0, 0, 1
	h, s := Find(p)
	if s != Alive {
		t.Fatalf("%v, want alive", s)
	}
	defer h.Close()
	if h.Process().PID != c.pid() {
		t.Errorf("found %d, want %d", h.Process().PID, c.pid())
	}
	w := running(t)
	_, told := watch(t, w, h)
	c.end()
	within(t, told)
}

// With no descriptor left, Find takes no process for dead, and does not say that the kernel cannot tell.
func TestNoDescriptorsLeft(t *testing.T) {
	l, path := listen(t)
	c := spawn(t, "connect", path)
	conn := accept(t, l)
	p := c.handle(t).Process()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, connErr := FromConn(conn, nil)
	_, pidErr := FromPID(p.PID, p.Start)
	_, s := Find(p)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if connErr == nil || errors.Is(connErr, ErrDead) || errors.Is(connErr, ErrUnsupported) {
		t.Errorf("FromConn: %v", connErr)
	}
	if pidErr == nil || errors.Is(pidErr, ErrDead) || errors.Is(pidErr, ErrUnsupported) {
		t.Errorf("FromPID: %v", pidErr)
	}
	if s != Unknown {
		t.Errorf("Find: %v", s)
	}
}

func BenchmarkKillToDead(b *testing.B) {
	report := func(b *testing.B, all time.Duration) {
		b.ReportMetric(float64(all.Nanoseconds())/float64(b.N), "ns/death")
	}
	b.Run("watcher", func(b *testing.B) {
		w := running(b)
		var all time.Duration
		for range b.N {
			b.StopTimer()
			c := spawn(b, "wait")
			_, told := watch(b, w, c.handle(b))
			b.StartTimer()
			killed := time.Now()
			c.Process.Kill()
			all += within(b, told).Sub(killed)
			b.StopTimer()
			c.end()
			b.StartTimer()
		}
		report(b, all)
	})
	b.Run("poll", func(b *testing.B) { // the kernel alone
		var all time.Duration
		for range b.N {
			b.StopTimer()
			c := spawn(b, "wait")
			fd, err := unix.PidfdOpen(c.Process.Pid, 0)
			if err != nil {
				b.Skip(err)
			}
			b.StartTimer()
			killed := time.Now()
			c.Process.Kill()
			for {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
				if n == 1 {
					break
				}
				if err != nil && !errors.Is(err, unix.EINTR) || err == nil {
					b.Fatal("poll: ", os.NewSyscallError("poll", err))
				}
			}
			all += time.Since(killed)
			b.StopTimer()
			unix.Close(fd)
			c.end()
			b.StartTimer()
		}
		report(b, all)
	})
}
