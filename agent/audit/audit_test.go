package audit

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/enforcer"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func open(t *testing.T, dir string, key ed25519.PrivateKey) *Log {
	t.Helper()
	l, err := Open(
		Config{
			Dir:   dir,
			Key:   key,
			Users: eventlog.UsersPlain,
			Now:   func() time.Time { return noon },
			Log:   slog.New(slog.DiscardHandler),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// written ends a log, and returns its events.
func (l *Log) written(t *testing.T, dir string, key ed25519.PrivateKey) (out []eventlog.Event) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	see := func(e eventlog.Event) { out = append(out, e) }
	if _, err := eventlog.Verify(filepath.Join(dir, Folder), key.Public().(ed25519.PublicKey), see); err != nil {
		t.Fatal(err)
	}
	return out
}

// A verdict is noted by what it changes. The same verdict again adds nothing.
func TestVerdictIsNotedByWhatItChanges(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), newKey(t)
	l := open(t, dir, key)
	texts := map[string]string{"a.lic": "one", "b.lic": "two"}
	document := func(name string) []byte { return []byte(texts[name]) }
	judged := func(code enforcer.Code, names ...string) *enforcer.Verdict {
		v := &enforcer.Verdict{State: enforcer.StateValid, Code: code, JudgedAt: noon}
		for _, n := range names {
			v.Licenses = append(v.Licenses, enforcer.Judged{Document: n, Code: code})
		}
		return v
	}
	upstream := map[enforcer.Ref]enforcer.Upstream{}
	l.Verdict(judged(enforcer.Valid, "a.lic"), upstream, document)
	l.Verdict(judged(enforcer.Valid, "a.lic"), upstream, document)
	l.Verdict(judged(enforcer.Valid, "a.lic", "b.lic"), upstream, document)
	texts["b.lic"] = "three"
	upstream["usher/a"] = enforcer.Upstream{State: "reachable"}
	l.Verdict(judged(enforcer.Valid, "a.lic", "b.lic"), upstream, document)
	l.Verdict(judged(enforcer.Expired, "a.lic"), upstream, document)
	var got []string
	for _, e := range l.written(t, dir, key) {
		got = append(got, strings.TrimSpace(e.Type+" "+e.Subject))
	}
	want := []string{
		"license.changed",
		"document.present a.lic",
		"document.added b.lic",
		"document.changed b.lic",
		"upstream.changed a",
		"license.changed",
		"document.judged a.lic",
		"document.removed b.lic",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A lease that an admin ends is noted with the admin's and the holder's names. Of its id, which gives the lease back,
// only the beginning is noted.
func TestForcedReleaseTellsNoLease(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), newKey(t)
	l := open(t, dir, key)
	lease := &enforcer.Lease{
		ID:     enforcer.LeaseID{1, 2, 3, 4, 5, 6, 7, 8},
		Items:  []enforcer.Item{{Pool: "streams", N: 2}},
		Holder: &enforcer.Holder{Caller: enforcer.Caller{Credential: "token:b"}},
	}
	l.Forced(enforcer.Caller{Credential: "token:a"}, lease)
	got := l.written(t, dir, key)
	if len(got) != 1 || got[0].Type != LeaseForced || got[0].Actor != "token:a" ||
		got[0].Fields["holder"] != "token:b" ||
		got[0].Fields["items"] != "streams=2" ||
		got[0].Subject != lease.ID.String()[:8] ||
		!got[0].At.Equal(noon) {
		t.Errorf("the log has %+v", got)
	}
}

// A log that another key signed is put aside whole, and a new one begins.
func TestAnotherKeysLogIsPutAside(t *testing.T) {
	t.Parallel()
	dir, first, second := t.TempDir(), newKey(t), newKey(t)
	l := open(t, dir, first)
	l.Note(eventlog.Event{Type: AgentStarted})
	l.written(t, dir, first)
	l = open(t, dir, second)
	l.Note(eventlog.Event{Type: AgentStarted})
	if got := l.written(t, dir, second); len(got) != 1 {
		t.Errorf("the new log has %+v", got)
	}
	aside := filepath.Join(dir, Folder+"-20260301T120000")
	if r, err := eventlog.Verify(aside, first.Public().(ed25519.PublicKey), nil); err != nil || r.Events != 1 {
		t.Errorf("%d events were put aside, %v", r.Events, err)
	}
	if err := Append(dir, second, []eventlog.Event{{At: noon, Type: StateAccepted}}); err != nil {
		t.Fatal(err)
	}
	if r, err := eventlog.Verify(filepath.Join(dir, Folder), second.Public().(ed25519.PublicKey), nil); err != nil ||
		r.Events != 2 {
		t.Errorf("%d events after one was appended, %v", r.Events, err)
	}
	if _, err := os.Stat(filepath.Join(dir, Folder, publicKey)); err != nil {
		t.Error(err)
	}
}
