package agent

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

var day0 = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustOpen(t *testing.T, path string, key ed25519.PrivateKey, now time.Time) (*history, string) {
	t.Helper()
	h, fresh, err := openHistory(path, key, now)
	if err != nil {
		t.Fatal(err)
	}
	return h, fresh
}

func TestHistory(t *testing.T) {
	t.Parallel()
	path, key := filepath.Join(t.TempDir(), "history.json"), newKey(t)
	h, fresh := mustOpen(t, path, key, day0)
	if fresh == "" {
		t.Error("nothing is said of a new record")
	}
	trial := &enforcer.License{ID: "a", Trial: time.Hour, Issued: day0}
	f := &enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: trial}}}
	if err := h.see(f, map[string]time.Time{"a": day0}, day0); err != nil {
		t.Fatal(err)
	}
	if err := h.begin("a", emergency{day0.Add(time.Hour), day0.Add(2 * time.Hour), "fire"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.giveBack("b", "acme", "ab", day0.Add(time.Minute), false); err != nil {
		t.Fatal(err)
	}
	if p, err := h.giveBack("b", "acme", "cd", day0.Add(time.Hour), false); err != nil || p.Document != "ab" || !p.Returned.Equal(day0.Add(time.Minute)) {
		t.Errorf("returned twice: %+v, %v", p, err)
	}
	// Another start knows all of it.
	h, fresh = mustOpen(t, path, key, day0.Add(1000*time.Hour))
	h.fill(f, day0.Add(1000*time.Hour))
	if fresh != "" || !h.began().Equal(day0) || !f.Seen["a"].Equal(day0) || len(f.Emergencies["a"]) != 1 || !f.Returned["b"].Equal(day0.Add(time.Minute)) {
		t.Errorf("%q, %+v", fresh, f)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	// One with another key knows nothing, and says so.
	h, fresh = mustOpen(t, path, newKey(t), day0.Add(time.Hour))
	if !strings.Contains(fresh, "another agent key's ("+Thumbprint(key.Public().(ed25519.PublicKey))) || !h.began().Equal(day0.Add(time.Hour)) {
		t.Errorf("another key: %q, began %v", fresh, h.began())
	}
}

// A record that was edited, or signed for something else, is refused, and the words say what to do.
func TestHistoryTampered(t *testing.T) {
	t.Parallel()
	path, key := filepath.Join(t.TempDir(), "history.json"), newKey(t)
	h, _ := mustOpen(t, path, key, day0)
	f := &enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: &enforcer.License{ID: "a", Trial: time.Hour}}}}
	if err := h.see(f, map[string]time.Time{"a": day0}, day0); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"another date": bytes.Replace(good, []byte("2026-05-01"), []byte("2026-06-01"), 1),
		"no licences":  bytes.Replace(good, []byte(`"a":{`), []byte(`"b":{`), 1),
		"cut off":      good[:len(good)/2],
		"empty":        {},
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := openHistory(path, key, day0); err == nil || !strings.Contains(err.Error(), "put back the file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a false clock recorded in the future is put right as soon as the clock is.
func TestHistoryFalseFuture(t *testing.T) {
	t.Parallel()
	h, _ := mustOpen(t, filepath.Join(t.TempDir(), "history.json"), newKey(t), day0)
	f := &enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: &enforcer.License{ID: "a", Trial: time.Hour, Issued: day0}}}}
	if err := h.see(f, map[string]time.Time{"a": day0.AddDate(50, 0, 0)}, day0.AddDate(50, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := h.see(f, nil, day0.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	h.fill(f, day0.Add(time.Hour))
	if !f.Seen["a"].Equal(day0.Add(time.Minute)) {
		t.Errorf("the trial counts from %v", f.Seen["a"])
	}
}

// The record is bounded, and a trial is never forgotten for it.
func TestHistoryBounded(t *testing.T) {
	t.Parallel()
	h, _ := mustOpen(t, filepath.Join(t.TempDir(), "history.json"), newKey(t), day0)
	uses, f := map[string]time.Time{}, &enforcer.Facts{}
	for i := range historyLicenses + 10 {
		uses[fmt.Sprint(i)] = day0.Add(time.Duration(i) * time.Second)
	}
	f.Documents = []enforcer.Document{{License: &enforcer.License{ID: "3", Trial: time.Hour}}, {License: &enforcer.License{ID: "5"}}}
	if err := h.see(f, uses, day0.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	all := h.record.Licenses
	if len(all) != historyLicenses || all["3"].Seen.IsZero() || all["5"].Seen.IsZero() || !all["4"].Seen.IsZero() || all[fmt.Sprint(historyLicenses+9)].Seen.IsZero() {
		t.Errorf("%d are kept; 3 %v, 4 %v, 5 %v", len(all), all["3"], all["4"], all["5"])
	}
	for i := range historyLicenses + 1 {
		h.record.Licenses[fmt.Sprint("t", i)] = past{Trial: true, Seen: day0}
	}
	if err := h.begin("x", emergency{Began: day0}); err == nil || !strings.Contains(err.Error(), "the most that is kept") {
		t.Errorf("one trial too many: %v", err)
	}
}
