package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

// failingAgent accepts calls, and fails at each in one way.
func failingAgent(t *testing.T, how func(http.ResponseWriter, *http.Request)) (socket string) {
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
	s := &http.Server{Handler: http.HandlerFunc(how)}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// What a command says has happened has happened: where the agent fails at the call, cannot write, or is gone before it
// has answered, no command ends well and none says that it is done. The walk is over every command that asks an agent.
func TestNoReportBeforeTheFact(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	doc := filepath.Join(dir, "a.lic")
	if err := os.WriteFile(doc, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangUp := func(w http.ResponseWriter) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			c.Close()
		}
	}
	for name, how := range map[string]func(http.ResponseWriter, *http.Request){
		"its disk is full": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusInsufficientStorage)
			json.NewEncoder(w).Encode(&wire.Problem{Title: "storage", Status: 507, Code: "storage",
				Detail: "the disk is full"})
		},
		"it is gone before it answers": func(w http.ResponseWriter, _ *http.Request) { hangUp(w) },
		"it is gone in the middle of its answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			w.Write([]byte(`{"state":"valid","released":true,`))
			w.(http.Flusher).Flush()
			hangUp(w)
		},
		"its answer is another program's": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte("<html>It works!</html>"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := failingAgent(t, how)
			for _, command := range append([]string{"drain --off", "upstream call --license L"}, asked...) {
				command = strings.ReplaceAll(command, "DOC", doc)
				for _, more := range [][]string{nil, {"--json"}} {
					words := strings.Fields(command)
					args := append(append([]string{words[0], "--socket", socket}, more...), words[1:]...)
					if len(words) > 1 && !strings.HasPrefix(words[1], "-") { // the flags go behind a subcommand
						args = append(append([]string{words[0], words[1], "--socket", socket}, more...), words[2:]...)
					}
					if slices.Contains([]string{"acquire", "renew", "release", "run", "draw"}, words[0]) {
						args = slices.Insert(args, 1, "--agent-wait", "0") // they would ride out a restart
					}
					code, out, errs := tool(t, args...)
					if code == exitOK {
						t.Errorf("usher %s ends well:\n%s%s", strings.Join(args, " "), out, errs)
					}
					for _, said := range []string{"removed", "installed", "reloaded", "drained", "released", "done",
						"is in force", "holds until", "brings it back"} {
						if strings.Contains(out, said) {
							t.Errorf("usher %s says %q:\n%s%s", strings.Join(args, " "), said, out, errs)
						}
					}
				}
			}
		})
	}
}
