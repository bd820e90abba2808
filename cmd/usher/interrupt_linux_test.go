package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A signal ends a command that waits for the bytes of a file, as of a named pipe that nobody writes to.
func TestASignalEndsAReader(t *testing.T) {
	t.Parallel()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"import-options PIPE", "license install PIPE",
		"license inspect PIPE --trust usher=K.pub",
		"vendor sign --key PIPE --product a --limit a=1", "vendor sign --key K.key --claims PIPE", "report merge PIPE",
		"agent --check --config PIPE", "doctor --config PIPE"} {
		s, want := os.Interrupt, 130
		if strings.HasPrefix(args, "vendor") {
			s, want = syscall.SIGTERM, 143
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		args = strings.NewReplacer("PIPE", pipe, "K.", dir+"/k.").Replace(args)
		cmd := exec.CommandContext(ctx, bin, strings.Fields(args)...)
		cmd.Env = append(os.Environ(), "USHER_SOCKET="+filepath.Join(dir, "s"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		opened, err := os.OpenFile(pipe, os.O_WRONLY, 0) // it waits for a reader
		if err == nil {
			err = cmd.Process.Signal(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != want {
			t.Errorf("%s: %v, want the code %d", args, err, want)
		}
		opened.Close()
		cancel()
	}
}
