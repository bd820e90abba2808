package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tty is a pseudo-terminal, and what was written to it.
type tty struct {
	*os.File
	mu   sync.Mutex // guards text
	text strings.Builder
}

// openTTY returns a terminal of a size, and its other end for a program.
func openTTY(t *testing.T, rows, cols uint16) (*tty, *os.File) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no pseudo-terminals here:", err)
	}
	t.Cleanup(func() { m.Close() })
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("a pseudo-terminal cannot be opened here:", err)
	}
	t.Cleanup(func() { s.Close() })
	y := &tty{File: m}
	y.size(t, rows, cols)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := m.Read(b)
			y.mu.Lock()
			y.text.Write(b[:n])
			y.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return y, s
}

func (y *tty) size(t *testing.T, rows, cols uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(y.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.Fatal(err)
	}
}

// screen is what a terminal shows: the last picture that was drawn from its beginning.
func (y *tty) screen() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	all := y.text.String()
	whole := strings.Split(all, screenHome)
	last := whole[len(whole)-1]
	if !strings.Contains(last, restOfAll) && len(whole) > 1 { // it is being drawn
		last = whole[len(whole)-2]
	}
	last, _, _ = strings.Cut(last, restOfAll)
	return strings.ReplaceAll(strings.ReplaceAll(last, restOfLine, ""), "\r\n", "\n")
}

func (y *tty) shows(t *testing.T, words ...string) {
	t.Helper()
	await(t, fmt.Sprintf("the screen shows %q", words), func() bool {
		text := y.screen()
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
}

// On a terminal top shows what changes, heeds keys and the terminal's size, goes on when the agent restarts, and leaves
// the terminal as it was.
func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := s.agent("a", "", s.sign("a1", "--limit", "streams=2", "--limit", "seats=9", "--scope", "host"))
	y, end := openTTY(t, 24, 80)
	before, err := unix.IoctlGetTermios(int(y.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(s.bin, "top", "--socket", s.path("a/s"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = end, end, end
	cmd.Env = append(os.Environ(), "TERM=vt100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	y.shows(t, "usher top: acme, licence valid (VALID)", "streams  [....", "0/2", "nobody holds a slot", "q quit")
	if _, err := a.ask("acquire", "--pool", "streams", "--n", "2", "--ttl", "1h"); err != nil {
		t.Fatal(err)
	}
	y.shows(t, "2/2", "streams=2")
	if out, err := a.ask("acquire", "--pool", "streams"); err == nil {
		t.Fatal(out)
	}
	y.shows(t, "DENIED\n", "2 of 2 slots are in use")

	key := func(k string) {
		t.Helper()
		if _, err := y.WriteString(k); err != nil {
			t.Fatal(err)
		}
	}
	key("p")
	y.shows(t, "p pool: seats", "nobody holds a slot")
	key("p")
	y.shows(t, "p pool: streams", "streams=2")
	key("ps")
	y.shows(t, "p pool: all", "s sort: newest")

	y.size(t, 12, 50)
	await(t, "the picture has the new size", func() bool {
		text := y.screen()
		return strings.Count(text, "\n") == 11 && strings.HasPrefix(text, "usher top")
	})
	y.size(t, 24, 100)
	a.stop()
	y.shows(t, "the agent does not answer, and is asked again", "streams=2")
	a.start()
	await(t, "top goes on", func() bool {
		text := y.screen()
		return strings.Contains(text, "streams=2") && !strings.Contains(text, "does not answer")
	})
	key("q")
	if err := <-done; err != nil {
		t.Errorf("top ended with %v", err)
	}
	after, err := unix.IoctlGetTermios(int(y.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v, and is %+v, %v", before, after, err)
	}
	await(t, "the screen is given back", func() bool {
		y.mu.Lock()
		defer y.mu.Unlock()
		return strings.HasSuffix(y.text.String(), screenEnd)
	})
}

// A signal ends top, and the terminal is as it was; where there is no terminal, top says what to do.
func TestTopWithoutATerminal(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	a := s.agent("a", "", s.sign("a1", "--limit", "streams=2", "--scope", "host"))
	out, err := a.ask("top")
	if err == nil || !strings.Contains(out, "usher top --once") {
		t.Errorf("without a terminal: %v, %s", err, out)
	}
	if out, err := a.ask("top", "--once"); err != nil || !strings.Contains(out, "streams  [") {
		t.Errorf("once: %v, %s", err, out)
	}
	if out, err := a.ask("top", "--once", "--pool", "none"); err == nil ||
		!strings.Contains(out, "there is no pool none") {
		t.Errorf("of a pool that is not there: %v, %s", err, out)
	}
	y, end := openTTY(t, 24, 80)
	before, err := unix.IoctlGetTermios(int(y.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(s.bin, "top", "--socket", s.path("a/s"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = end, end, end
	cmd.Env = append(os.Environ(), "TERM=vt100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	y.shows(t, "usher top: acme")
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+15 {
		t.Errorf("a signal ends top with %d", code)
	}
	after, err := unix.IoctlGetTermios(int(y.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v, and is %+v, %v", before, after, err)
	}
}
