package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/registrar"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// orders are the commands for an upstream's or site server's operator that change something; DOC is a file.
var orders = []string{"add DOC", "renew L --expires never", "machines L --max 3", "forget L --host k",
	"forgive L --host k", "forgive L --all", "token L", "token revoke T", "suspend L", "resume L", "revoke L"}

// upstreamAt answers every order in a folder in one way.
func upstreamAt(t *testing.T, how func(http.ResponseWriter, *http.Request)) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, registrar.Socket))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(how)}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return dir
}

// No order is reported before the fact: where the server refuses, cannot write, is gone before or in its answer, or
// says nothing of what it has done, the command fails and prints no result.
func TestNoOrderReportsBeforeTheFact(t *testing.T) {
	t.Parallel()
	doc := filepath.Join(t.TempDir(), "a.lic")
	if err := os.WriteFile(doc, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp := func(w http.ResponseWriter) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			c.Close()
		}
	}
	says := func(status int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			w.Write([]byte(body))
		}
	}
	for name, how := range map[string]func(http.ResponseWriter, *http.Request){
		"its disk is full": says(422, `{"error":"write upstream.db: no space left on device"}`),
		"it gives no reason": says(500,
			`{"licence":{"id":"L","state":"revoked"},"forgotten":1,"forgiven":1}`),
		"it says nothing":              says(200, `{}`),
		"it says null":                 says(200, `null`),
		"its members are null":         says(200, `{"licence":null,"tokens":null,"token":null,"forgotten":null}`),
		"it answers with no token":     says(200, `{"tokens":[],"token":"x"}`),
		"it is another program":        says(200, `<html>It works!</html>`),
		"it has no body":               says(200, ``),
		"it is gone before it answers": func(w http.ResponseWriter, _ *http.Request) { hangUp(w) },
		"it is gone in its answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte(`{"licence":{"id":"L","state":"revoked"},"forgotten":1,"forgiven":1,"token":"T",`))
			w.(http.Flusher).Flush()
			hangUp(w)
		},
	} {
		dir := upstreamAt(t, how)
		for _, order := range orders {
			args := append([]string{"upstream"}, strings.Fields(strings.ReplaceAll(order, "DOC", doc))...)
			for _, more := range [][]string{nil, {"--json"}} {
				code, out, errs := tool(t, append(append(args, "--data", dir), more...)...)
				if code == exitOK || out != "" || errs == "" {
					t.Errorf("%s: usher upstream %s ends with %d:\n%s%s", name, order, code, out, errs)
				}
			}
		}
	}
}

// Nothing that an upstream server answers moves the operator's terminal, in a result or a refusal.
func TestNoUpstreamMovesTheTerminal(t *testing.T) {
	t.Parallel()
	for _, refuse := range []bool{false, true} {
		dir := upstreamAt(t, func(w http.ResponseWriter, _ *http.Request) {
			var done registry.Done
			fill(reflect.ValueOf(&done).Elem(), hostile)
			if !refuse {
				done.Error = ""
			}
			json.NewEncoder(w).Encode(done)
		})
		for _, order := range append([]string{"list", "list --hosts", "list --blocks", "token list"}, orders[1:]...) {
			args := append([]string{"upstream"}, strings.Fields(order)...)
			for _, more := range [][]string{nil, {"--json"}} {
				code, out, errs := tool(t, append(append(args, "--data", dir), more...)...)
				if at := harmless(out + errs); at != "" || forged(out) || forged(errs) {
					t.Errorf("usher upstream %s prints %q:\n%q", order, at, out+errs)
				}
				if (code == exitOK) == refuse {
					t.Errorf("usher upstream %s ends with %d: %s", order, code, errs)
				}
			}
		}
	}
}
