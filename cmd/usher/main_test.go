package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/cmd/usher/internal/instance"
)

// tidied are the tests; what they built goes with them.
type tidied struct{ *testing.M }

// builtIn are the folders of what the tests built.
var builtIn []string

func (m tidied) Run() int {
	// a shell does so for what it starts in the background; the agents would do so, too
	if signal.Ignored(os.Interrupt) {
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	for _, name := range []string{"USHER_SOCKET", instance.Variable} { // the tests mean agents of their own
		os.Unsetenv(name)
	}
	code := m.M.Run()
	for _, dir := range builtIn {
		os.RemoveAll(dir)
	}
	return code
}

// The test binary is the tool itself: testscript runs it as usher.
func TestMain(m *testing.M) {
	testscript.Main(tidied{m}, map[string]func(){"usher": main, "flip": flip, "hog": hog})
}

// flip FILE OFFSET changes one byte of a file's text, in place.
func flip() {
	b, err := os.ReadFile(os.Args[1])
	if err == nil {
		var i int
		if i, err = strconv.Atoi(os.Args[2]); err == nil {
			b[i] ^= 1
			err = os.WriteFile(os.Args[1], b, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// ownAddress returns a TCP address of this host on which nobody listens. Where all of 127/8 is this host, as on Linux,
// it is one of its own there: no connection and no other test is given its port before it is used.
func ownAddress(t interface{ Fatal(...any) }) string {
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestScripts runs stories of the command line. The agents in them have the race detector; the commands, which end at
// once and are hundreds, are the program as make builds it.
func TestScripts(t *testing.T) {
	t.Parallel()
	path := commandsPath(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// A socket's path must be short.
			dir, err := os.MkdirTemp("", "u")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Vars = append(e.Vars, "USHER_SOCKET="+filepath.Join(dir, "s"), "ADDRESS="+ownAddress(t))
			e.Setenv("PATH", path+string(filepath.ListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":  code,
			"until": until,
			"crlf":  crlf,
		},
	})
}

// lacks skips a test for which this machine lacks something, but not where releases are built.
func lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// built is the program as make builds it, once for all tests.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "usher")
	if err != nil {
		return "", err
	}
	builtIn = append(builtIn, dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it, too
		return "", err
	}
	flags := "-s -w"
	if runtime.GOARCH == "amd64" {
		flags += " -E github.com/usher-agent/usher/cmd/usher/internal/early.start"
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o",
		filepath.Join(dir, "usher"),
		".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "usher"), nil
})

// commandsPath makes a folder with a program usher: for an agent it is this test's binary, otherwise what make builds.
func commandsPath(t *testing.T) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	raced, err := exec.LookPath("usher")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := fmt.Sprintf("#!/bin/sh\nfor word; do\n\tcase $word in\n\tagent | demo) exec %s \"$@\" ;;\n\tesac\ndone\n"+
		"exec %s \"$@\"\n", raced, bin)
	if err := os.WriteFile(filepath.Join(dir, "usher"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// code N CMD … runs a command and wants its exit code to be N. stdout and stderr are as after exec.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N CMD …")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var e *exec.ExitError
	if err != nil {
		if e, _ = err.(*exec.ExitError); e == nil {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
		if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			got = 128 + int(s.Signal())
		}
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// pause returns what a test does between two looks at what it waits for: it waits a hundredth of a second at first, and
// then an eighth of what it has waited so far. A look may start programs, and shall leave the processor to others.
func pause() func() {
	began := time.Now()
	return func() { <-time.After(min(max(time.Since(began)/8, 10*time.Millisecond), 250*time.Millisecond)) }
}

// until TEXT CMD … repeats a command until its output has the text, for a minute.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT CMD …")
	}
	deadline, rest := time.Now().Add(60*time.Second), pause()
	for {
		ts.Exec(args[1], args[2:]...)
		if strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q was never said", args[0])
		}
		rest()
	}
}

// crlf FROM TO copies a text as Windows and a mail client would leave it: a byte order mark, CRLF, indented.
func crlf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: crlf FROM TO")
	}
	text := "\ufeff"
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		text += "  " + strings.TrimSuffix(line, "\n") + "\r\n"
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o644))
}

// Every command has its place among those that texts name.
func TestNamingKnowsTheCommands(t *testing.T) {
	root := (&cli{}).root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var have []string
	for _, cmd := range root.Commands() {
		have = append(have, cmd.Name())
	}
	if slices.Sort(have); !slices.Equal(have, naming.Commands) {
		t.Errorf("the commands are %v, and naming.Commands has %v", have, naming.Commands)
	}
}
