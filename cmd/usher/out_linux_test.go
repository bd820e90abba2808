package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A file that cannot be written is named with the cause and the mend, whichever command was to write it, and a licence
// that has no place is not in the ledger.
func TestOutThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "k.key")
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	opts := filepath.Join(dir, "a.opt")
	if err := os.WriteFile(opts, []byte("MAX 1 f USER a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := "--socket=" + filepath.Join(dir, "none")
	commands := [][]string{
		{"vendor", "sign", "--key", key, "--product", "p", "--limit", "a=1", "--scope", "host", "--out"},
		{"vendor", "sign", "--key", key, "--product", "p", "--limit", "a=1", "--scope", "host", "--force", "--out"},
		{"vendor", "revoke", "--key", key, "--product", "p", "id", "--out"},
		{"fingerprint", nobody, "--product", "p", "--request"},
		{"host", "key", "--out"}, {"host", "key", "--force", "--out"},
		{"support-bundle", nobody, "--out"},
		{"license", "return", "id", nobody, "--out"},
		{"import-options", opts, "--out"}, {"import-options", opts, "--force", "--out"},
	}
	for _, c := range []struct{ path, says, hint string }{
		{filepath.Join(dir, "no/such/x"), "there is no folder " + filepath.Join(dir, "no/such"),
			"hint: make it with mkdir -p " + filepath.Join(dir, "no/such")},
		{filepath.Join(key, "x"), key + " is no folder", "hint: name another file with --"},
		{dir, dir, "--"},
	} {
		for _, args := range commands {
			code, _, errs := tool(t, append(args[:len(args):len(args)], c.path)...)
			if code != 1 || !strings.Contains(errs, c.says) || !strings.Contains(errs, c.hint) {
				t.Errorf("usher %s %s: %d\n%s", strings.Join(args[:2], " "), c.path, code, errs)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "issued.jsonl")); err == nil {
		t.Error("a licence that could not be written is in the ledger")
	}
	code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", filepath.Join(key, "x"))
	if code != 1 || !strings.Contains(errs, "hint: name another file with --out") {
		t.Errorf("the vendor's key: %d %s", code, errs)
	}
}

// What is no file stays what it is: a pipe, a device or standard output is written to.
func TestOutThatIsNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opts, pipe := filepath.Join(dir, "a.opt"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(opts, []byte("MAX 1 f USER a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, force := range []string{"--force=false", "--force=true"} {
		os.Remove(pipe)
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 1)
		go func() {
			b, _ := os.ReadFile(pipe)
			got <- string(b)
		}()
		if code, _, errs := tool(t, "import-options", opts, "--out", pipe, force); code != 0 {
			t.Fatal(errs)
		}
		fi, err := os.Lstat(pipe)
		if err != nil || fi.Mode().IsRegular() {
			t.Fatalf("with %s the pipe is gone: %v %v", force, fi, err)
		}
		if text := <-got; !strings.Contains(text, "policies:") {
			t.Errorf("with %s it has %q", force, text)
		}
	}
}
