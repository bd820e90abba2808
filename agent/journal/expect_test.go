package journal_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/usher-agent/usher/agent/journal"
)

// The opener of a journal is told how many records come, before the first; a torn tail has none.
func TestExpect(t *testing.T) {
	b, _, _ := sample(t, false)
	for _, torn := range []string{"", "torn"} {
		c := journal.Config{Dir: t.TempDir(), Name: "j"}
		if err := os.WriteFile(filepath.Join(c.Dir, "j"), append(slices.Clone(b), torn...), 0o600); err != nil {
			t.Fatal(err)
		}
		replayed, told := 0, []int{}
		c.Expect = func(records int) { told = append(told, records, replayed) }
		j, r, err := journal.Open(c, func([]byte) error {
			replayed++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(told, []int{replayed, 0}) || r.Records != replayed || replayed == 0 {
			t.Errorf("told of %v, then %d records came", told, replayed)
		}
		j.Close()
	}
}
