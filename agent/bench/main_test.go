package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// What needs no process of the agent runs and writes well-formed rows. No figure is judged.
func TestRowsAreWellFormed(t *testing.T) {
	out := filepath.Join(t.TempDir(), "bench.json")
	if err := run(t.Context(), &suite{runs: 1, quick: true}, out); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		t.Fatal("no rows")
	}
	for _, r := range rows {
		for _, key := range []string{"name", "value", "unit", "limit", "ratio", "goal"} {
			if _, ok := r[key]; !ok {
				t.Errorf("%v has no %s", r["name"], key)
			}
		}
		if v, _ := r["value"].(float64); v <= 0 {
			t.Errorf("%v is %v", r["name"], r["value"])
		}
	}
}
