package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// A vendor's folder that is wrong stops make before anything is built, and says what is wrong.
func TestWrongVendorStopsMake(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("there is no make:", err)
	}
	empty := t.TempDir()
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "vendor.json"), []byte(`{"product": }`), 0o600); err != nil {
		t.Fatal(err)
	}
	for folder, says := range map[string]string{filepath.Join(empty, "none"): "no vendor.json", empty: "no vendor.json",
		broken: "the folder is not good"} {
		bin := filepath.Join(t.TempDir(), "bin")
		cmd := exec.Command("make", "build", "VENDOR="+folder, "BIN="+bin)
		cmd.Dir = "../.."
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "VENDOR="+folder) || !strings.Contains(string(out), says) {
			t.Errorf("VENDOR=%s: %v\n%s", folder, err, out)
		}
		if _, err := os.Stat(bin); err == nil {
			t.Errorf("VENDOR=%s: something was built", folder)
		}
	}
}

// A holder for whom no kernel vouches is no uid.
func TestHolderInWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		h    *wire.Holder
		want string
	}{
		{&wire.Holder{UID: 1000, PID: 7, Exe: "/bin/x"}, "uid 1000 pid 7 /bin/x"},
		{&wire.Holder{UID: 65534, Credential: "ci"}, "credential ci"},
		{&wire.Holder{UID: 65534, Labels: map[string]string{"job": "1"}}, "without an identity (job=1)"},
		{nil, "-"},
	} {
		if got := holderText(c.h); got != c.want || strings.Contains(got, "65534") {
			t.Errorf("%+v is %q, want %q", c.h, got, c.want)
		}
	}
}

// answering is an agent that answers each path with one shape, and everything else with 404.
func answering(t *testing.T, shapes map[string]any) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shape, status := shapes[r.URL.Path], http.StatusOK
		if shape == nil {
			shape, status = &wire.Problem{Title: "none", Status: 404, Code: "route_unknown", Detail: "none"}, 404
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(shape)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// What `usher emergency list` says of a licence agrees with whether an emergency may begin, by the agent's time and not
// by this host's.
func TestEmergencyListInWords(t *testing.T) {
	t.Parallel()
	now := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { x := now.Add(d); return &x }
	for name, c := range map[string]struct {
		next *time.Time
		want string
	}{
		"one is left":          {at(0), "one may begin when it is in its grace, or has lapsed"},
		"one was left before":  {at(-24 * time.Hour), "one may begin when it is in its grace, or has lapsed"},
		"none is left for now": {at(72 * time.Hour), "none is left; the next may begin in 3 d"},
		"none ever":            {nil, "at most 2 within a year; no more may begin"},
	} {
		socket := answering(t, map[string]any{"/v1/clock": &wire.Clock{Time: now}, "/v1/emergency": &wire.Emergencies{
			Grants: []wire.EmergencyGrant{{License: "L1", LengthSeconds: 259200, PerYear: 2, Next: c.next}},
			Emergencies: []wire.Emergency{
				{License: "L1", BeganAt: now.Add(-time.Hour), EndsAt: now.Add(time.Hour), Running: true,
					Reason: "fire"},
				{License: "L1", BeganAt: now.Add(-9 * time.Hour), EndsAt: now.Add(-8 * time.Hour), Reason: "flood"}}}})
		code, out, errs := tool(t, "emergency", "list", "--socket", socket)
		if code != 0 || !strings.Contains(out, c.want) || !strings.Contains(out, "running  fire") ||
			!strings.Contains(out, "over     flood") {
			t.Errorf("%s: exit %d, %s%s", name, code, out, errs)
		}
		if strings.Contains(out, "72h0m0s") ||
			strings.Contains(out, "one may begin") != (c.next != nil && !c.next.After(now)) {
			t.Errorf("%s: the length is no words: %s", name, out)
		}
	}
}

// The last date that there is is far away, and said so.
func TestFarAway(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	if got := away(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), now); got != "in 2912110 days" {
		t.Error(got)
	}
}
