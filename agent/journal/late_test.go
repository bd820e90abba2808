package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/usher-agent/usher/agent/journal"
)

// A full disk kept a journal from being made. It is announced before it has its name, so that a crash in the next
// moment leaves none that nobody knows of. Where it cannot be announced, there is none.
func TestLateJournalIsAnnounced(t *testing.T) {
	full := true
	d := &disk{fails: func(string) (float64, error) {
		if full {
			return 0, syscall.ENOSPC
		}
		return 0, nil
	}}
	path := filepath.Join(t.TempDir(), "leases.journal")
	var announced []journal.Extent
	unsaid := errors.New("the manifest cannot be written")
	said := unsaid
	j, _, err := journal.Open(journal.Config{Dir: filepath.Dir(path), Name: filepath.Base(path), Late: true,
		File: d.open,
		Replacing: func(x journal.Extent) error {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it has its name before it is announced: %v", err)
			}
			announced = append(announced, x)
			return said
		}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte("a")); !errors.Is(err, journal.ErrFull) || len(announced) != 0 {
		t.Errorf("on a full disk: %v, announced %d times", err, len(announced))
	}
	full = false
	if _, err := j.Append([]byte("a")); !errors.Is(err, unsaid) {
		t.Errorf("what cannot be announced: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there all the same: %v", err)
	}
	said = nil
	if _, err := j.Append([]byte("a")); err != nil {
		t.Fatal(err)
	}
	at, err := j.Extent()
	if err != nil || len(announced) != 2 || announced[1].Size == 0 || announced[1].Size >= at.Size {
		t.Errorf("announced %+v, and it has %+v, %v", announced, at, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
