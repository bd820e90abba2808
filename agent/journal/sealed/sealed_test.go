package sealed

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/journal"
)

// A journal that is as it was sealed is opened without a fault. One that lost sealed records, or that the seal does not
// know, is found, and replayed all the same.
func TestOpen(t *testing.T) {
	t.Parallel()
	key, err := files.NewKey(make([]byte, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		seal bool
		harm func(t *testing.T, path string)
		want files.Fault
		n    int // records that are replayed
	}{
		"as it was":    {true, func(*testing.T, string) {}, "", 2},
		"not sealed":   {false, func(*testing.T, string) {}, files.FaultUnlisted, 2},
		"taken away":   {true, func(t *testing.T, path string) { must(t, os.Remove(path)) }, files.FaultMissing, 0},
		"cut to a bit": {true, func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, files.FaultEmpty, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			vault, err := files.OpenVault(files.VaultConfig{Dir: dir, Manifest: "seal", Key: key, Now: time.Now},
				files.Earlier{})
			must(t, err)
			open := func() (*journal.Journal, int, files.Fault) {
				n := 0
				j, r, fault, err := Open(journal.Config{Dir: dir, Name: "a.journal", Sync: true}, vault,
					func([]byte) error { n++; return nil })
				must(t, err)
				if n != r.Records {
					t.Errorf("%d records are replayed, and the report says %d", n, r.Records)
				}
				return j, n, fault
			}
			j, _, fault := open()
			if fault != "" {
				t.Fatalf("a new journal: %s", fault)
			}
			commit, err := j.Append([]byte("one"), []byte("two"))
			must(t, err)
			must(t, commit.Wait(t.Context()))
			if test.seal {
				must(t, Seal(j, vault, "a.journal", nil))
			}
			must(t, j.Close())
			test.harm(t, filepath.Join(dir, "a.journal"))
			j, n, fault := open()
			if fault != test.want || n != test.n {
				t.Errorf("%q, %d records; want %q, %d", fault, n, test.want, test.n)
			}
			must(t, j.Close())
			if Seal(j, vault, "a.journal", nil) == nil {
				t.Error("a closed journal can be sealed")
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A journal that cannot be sealed for long is told of once, and once more when it is sealed again.
func TestTroubleIsToldOnce(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, nil))
	var trouble Trouble
	full := errors.New("no space left on device")
	for _, err := range []error{nil, full, full, full, nil, nil, full} {
		trouble.Tell(log, "a.journal", "so it is", err)
		trouble.Tell(log, "b.journal", "so it is", nil)
	}
	if not, again := strings.Count(b.String(), "was not sealed"), strings.Count(b.String(), "sealed again"); not != 2 ||
		again != 1 {
		t.Errorf("the log says %s", b.String())
	}
}
