package issue_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// A vendor who revokes an id that was never issued, or not for that product, can be told.
func TestUnissued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "issued.jsonl")
	ids := []string{"acme-1", "acme-2"}
	if got := issue.Unissued(path, "acme", ids); len(got) > 0 {
		t.Errorf("without a ledger: %v", got)
	}
	if err := issue.Record(path, time.Unix(1, 0), "k1", &usher.Claims{ID: "acme-1", Product: "acme"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := issue.Unissued(path, "acme", ids); !slices.Equal(got, []string{"acme-2"}) {
		t.Errorf("got %v", got)
	}
	if got := issue.Unissued(path, "other", ids); !slices.Equal(got, ids) {
		t.Errorf("of another product: %v", got)
	}
}
