package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A package whose tests play fewer histories with the race detector plays all of them without it in make test.
func TestAllHistoriesArePlayed(t *testing.T) {
	t.Parallel()
	plain := map[string]bool{}
	for line := range strings.Lines(read(t, "../../Makefile")) {
		if strings.Contains(line, "$(PLAIN) $(GO) test ") && !strings.Contains(line, "-count") {
			for _, word := range strings.Fields(line) {
				plain[word] = true
			}
		}
	}
	found := 0
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "fewer_race_test.go" {
			return err
		}
		found++
		if folder := "./" + filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), "../../")); !plain[folder] {
			t.Errorf("make test plays not all histories of %s; give it a line of others in the Makefile", folder)
		}
		return nil
	})
	if err != nil || found < 2 {
		t.Errorf("%d packages play fewer histories: %v", found, err)
	}
}
