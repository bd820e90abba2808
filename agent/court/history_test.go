package court

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

// configOf returns a history's configuration that keeps its file without a seal.
func configOf(path string, key ed25519.PrivateKey, now time.Time) HistoryConfig {
	return HistoryConfig{Path: path, Key: key, KeyID: thumbprint, Now: now, Read: os.ReadFile,
		Write: func(path string, data []byte) error { return os.WriteFile(path, data, 0o600) }}
}

func thumbprint(key ed25519.PublicKey) string { return fmt.Sprintf("%x", key[:4]) }

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustOpen(t *testing.T, path string, key ed25519.PrivateKey, now time.Time) (*History, string) {
	t.Helper()
	h, fresh, err := OpenHistory(configOf(path, key, now))
	if err != nil {
		t.Fatal(err)
	}
	return h, fresh
}

// see records first uses.
func see(h *History, f *enforcer.Facts, uses map[enforcer.Ref]time.Time, now time.Time) error {
	due := toRecord(h.recorded().Licenses, f, uses, now)
	if due == nil {
		return nil
	}
	return h.record(due)
}

// begin records an emergency.
func begin(h *History, ref enforcer.Ref, e Emergency) error {
	return h.change(nil, func(licenses map[enforcer.Ref]past) error {
		addEmergency(licenses, ref, e)
		return nil
	})
}

func TestHistory(t *testing.T) {
	t.Parallel()
	path, key := filepath.Join(t.TempDir(), "history.json"), newKey(t)
	h, fresh := mustOpen(t, path, key, day0)
	if fresh == "" {
		t.Error("nothing is said of a new record")
	}
	trial := &enforcer.License{System: "usher", ID: "a", Trial: time.Hour, Issued: day0}
	f := &enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: trial}}}
	if err := see(h, f, map[enforcer.Ref]time.Time{"usher/a": day0}, day0); err != nil {
		t.Fatal(err)
	}
	if err := begin(h, "usher/a", Emergency{day0.Add(time.Hour), day0.Add(2 * time.Hour), "fire"}); err != nil {
		t.Fatal(err)
	}
	err := h.change(nil, func(licenses map[enforcer.Ref]past) error {
		licenses["usher/b"] = past{Returned: day0.Add(time.Minute), Product: "acme", Document: "ab"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Another start knows all of it.
	h, fresh = mustOpen(t, path, key, day0.Add(1000*time.Hour))
	h.Fill(f, day0.Add(1000*time.Hour))
	if fresh != "" || !h.Began().Equal(day0) || !f.Seen["usher/a"].Equal(day0) || len(f.Emergencies["usher/a"]) != 1 ||
		!f.Returned["usher/b"].Equal(day0.Add(time.Minute)) {
		t.Errorf("%q, %+v", fresh, f)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	// One with another key knows nothing, and says so.
	h, fresh = mustOpen(t, path, newKey(t), day0.Add(time.Hour))
	if !strings.Contains(fresh, "another agent key's ("+thumbprint(key.Public().(ed25519.PublicKey))) ||
		!h.Began().Equal(day0.Add(time.Hour)) {
		t.Errorf("another key: %q, began %v", fresh, h.Began())
	}
}

// A record that was edited, or signed for something else, is refused, and the words say what to do.
func TestHistoryTampered(t *testing.T) {
	t.Parallel()
	path, key := filepath.Join(t.TempDir(), "history.json"), newKey(t)
	h, _ := mustOpen(t, path, key, day0)
	f := &enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic",
		License: &enforcer.License{System: "usher", ID: "a", Trial: time.Hour}}}}
	if err := see(h, f, map[enforcer.Ref]time.Time{"usher/a": day0}, day0); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"another date": bytes.Replace(good, []byte("2026-05-01"), []byte("2026-06-01"), 1),
		"no licences":  bytes.Replace(good, []byte(`"usher/a":{`), []byte(`"usher/b":{`), 1),
		"cut off":      good[:len(good)/2],
		"empty":        {},
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := OpenHistory(configOf(path, key, day0)); err == nil ||
			!strings.Contains(err.Error(), "put back the file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A first use that a false clock put into the future is put right as soon as the clock is.
func TestHistoryFalseFuture(t *testing.T) {
	t.Parallel()
	h, _ := mustOpen(t, filepath.Join(t.TempDir(), "history.json"), newKey(t), day0)
	f := &enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic",
		License: &enforcer.License{System: "usher", ID: "a", Trial: time.Hour, Issued: day0}}}}
	if err := see(h, f, map[enforcer.Ref]time.Time{"usher/a": day0.AddDate(50, 0, 0)}, day0.AddDate(50, 0, 0)); err !=
		nil {
		t.Fatal(err)
	}
	if err := see(h, f, nil, day0.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	h.Fill(f, day0.Add(time.Hour))
	if !f.Seen["usher/a"].Equal(day0.Add(time.Minute)) {
		t.Errorf("the trial counts from %v", f.Seen["usher/a"])
	}
}

// The record is bounded, and a trial is never forgotten for it.
func TestHistoryBounded(t *testing.T) {
	t.Parallel()
	h, _ := mustOpen(t, filepath.Join(t.TempDir(), "history.json"), newKey(t), day0)
	uses, f := map[enforcer.Ref]time.Time{}, &enforcer.Facts{}
	for i := range historyLicenses + 10 {
		uses[enforcer.Ref(fmt.Sprint("usher/", i))] = day0.Add(time.Duration(i) * time.Second)
	}
	f.Documents = []enforcer.Document{{License: &enforcer.License{System: "usher", ID: "3", Trial: time.Hour}},
		{License: &enforcer.License{System: "usher", ID: "5"}}}
	if err := see(h, f, uses, day0.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	all := h.kept.Licenses
	if len(all) != historyLicenses || all["usher/3"].Seen.IsZero() || all["usher/5"].Seen.IsZero() ||
		!all["usher/4"].Seen.IsZero() || all[enforcer.Ref(fmt.Sprint("usher/", historyLicenses+9))].Seen.IsZero() {
		t.Errorf("%d are kept; 3 %v, 4 %v, 5 %v", len(all), all["usher/3"], all["usher/4"], all["usher/5"])
	}
	for i := range historyLicenses + 1 {
		h.kept.Licenses[enforcer.Ref(fmt.Sprint("usher/t", i))] = past{Trial: true, Seen: day0}
	}
	if err := begin(h, "usher/x", Emergency{Began: day0}); err == nil ||
		!strings.Contains(err.Error(), "the most that is kept") {
		t.Errorf("one trial too many: %v", err)
	}
}

// A former version named licences by their ids alone: its records are known of each licence of that id. Later records
// are of one licence alone.
func TestFormerHistory(t *testing.T) {
	t.Parallel()
	path, key := filepath.Join(t.TempDir(), "history.json"), newKey(t)
	h, _ := mustOpen(t, path, key, day0)
	h.kept.Named = false
	h.kept.Licenses = map[enforcer.Ref]past{"a": {Seen: day0, Trial: true,
		Emergencies: []Emergency{{Began: day0, Ends: day0.Add(time.Hour)}}}, "b": {Returned: day0}}
	if err := h.write(h.kept); err != nil {
		t.Fatal(err)
	}
	h, fresh := mustOpen(t, path, key, day0.Add(time.Hour))
	native, test := &enforcer.License{System: "usher", ID: "a", Trial: time.Hour},
		&enforcer.License{System: "usher", ID: "a", AnchorEnvironment: enforcer.Test}
	f := &enforcer.Facts{Documents: []enforcer.Document{{License: native}, {License: test},
		{License: &enforcer.License{System: "usher", ID: "b"}}}}
	h.Fill(f, day0.Add(time.Hour))
	if fresh != "" || !f.Seen["usher/a"].Equal(day0) || len(f.Emergencies["usher/a"]) != 1 ||
		len(f.Emergencies["usher:test/a"]) != 1 || !f.Returned["usher/b"].Equal(day0) {
		t.Errorf("%q, %+v", fresh, f)
	}
	if err := begin(h, "usher/a", Emergency{Began: day0.Add(2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	h, _ = mustOpen(t, path, key, day0.Add(time.Hour))
	h.Fill(f, day0.Add(time.Hour))
	if len(f.Emergencies["usher/a"]) != 2 || len(f.Emergencies["usher:test/a"]) != 1 || !f.Seen["usher/a"].Equal(day0) {
		t.Errorf("%+v", f)
	}
	if all := h.Emergencies(); len(all) != 1 || len(all["usher/a"]) != 2 {
		t.Errorf("%v", all)
	}
	if ref, ok := returnedAs(h.recorded().Licenses, "b"); !ok || ref != enforcer.FormerRef("b") {
		t.Errorf("%s, %t", ref, ok)
	}
}
