package agent_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/client/wire"
)

// Every answer is JSON, whatever bytes a file's name has; two names that differ in such bytes alone stay two.
func TestAnyBytesMakeJSON(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	for name, doc := range map[string][]byte{"caf\xe9.lic": h.sign("L1", 3, nil), "caf\xe8.lic": []byte("noise\xff"),
		"\x1b[2J\u202e.lic": []byte("more noise")} {
		if err := os.WriteFile(filepath.Join(h.path("l"), name), doc, 0o644); err != nil {
			t.Skip("no file can have that name here:", err)
		}
	}
	l := h.until("all three", func(l *wire.License) bool { return l.State == "valid" && len(l.Licenses) == 3 })
	names := map[string]bool{}
	for _, d := range l.Licenses {
		names[d.Document] = true
	}
	if !names[`caf\xe9.lic`] || !names[`caf\xe8.lic`] {
		t.Errorf("the documents are called %v", names)
	}
	defer func() { // each goes by the name that its answer has
		for name := range names {
			if err := h.Remove(context.Background(), name); err != nil {
				t.Errorf("%q is not removed: %v", name, err)
			}
		}
		if left, _ := os.ReadDir(h.path("l")); len(left) > 0 {
			t.Errorf("%d files are left", len(left))
		}
	}()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", h.path("s"))
	}}}
	defer c.CloseIdleConnections()
	for _, r := range api.Routes() {
		if r.Method != "GET" || r.Path == "/v1/events" || r.Path == "/metrics" || strings.Contains(r.Path, "debug") ||
			strings.Contains(r.Path, "session") {
			continue
		}
		res, err := c.Get("http://usher" + strings.NewReplacer("{name}", "streams", "{id}", "0").Replace(r.Path))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode >= 500 && res.StatusCode != 503 {
			t.Errorf("GET %s: %d %v", r.Path, res.StatusCode, err)
		}
		if strings.Contains(res.Header.Get("Content-Type"), "json") && !(json.Valid(b) && utf8.Valid(b)) {
			t.Errorf("GET %s is no JSON: %q", r.Path, b)
		}
	}
}
