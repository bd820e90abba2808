package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// asks are the commands that ask an agent, with the arguments that they need, and the exit code for one that is silent.
var asks = map[string]struct {
	args string
	code int
}{
	"acquire":              {"--pool p", exitAgentAway},
	"adjust":               {"m --drawn 1", exitAgentAway},
	"draw":                 {"m", exitAgentAway},
	"check":                {"", nagiosCritical}, // by the guidelines of the Monitoring Plugins
	"config show":          {"", exitAgentAway},
	"doctor":               {"", exitFailed}, // it says so among its findings
	"drain":                {"", exitAgentAway},
	"fleet status":         {"", exitAgentAway},
	"fleet drain":          {"host-1", exitAgentAway},
	"fleet evict":          {"host-1", exitAgentAway},
	"emergency list":       {"", exitAgentAway},
	"emergency start":      {"--reason fire", exitAgentAway},
	"events":               {"", exitAgentAway},
	"fingerprint":          {"", exitAgentAway},
	"health":               {"", exitAgentAway},
	"leases":               {"", exitAgentAway},
	"license install":      {"LIC", exitAgentAway},
	"license list":         {"", exitAgentAway},
	"license remove":       {"a.lic", exitAgentAway},
	"license return":       {"id --out DIR/receipt", exitAgentAway},
	"license release-host": {"id", exitAgentAway},
	"license rollback":     {"", exitAgentAway},
	"policies explain":     {"--pool p", exitAgentAway},
	"policies list":        {"", exitAgentAway},
	"pools":                {"", exitAgentAway},
	"release":              {"id", exitAgentAway},
	"reload":               {"", exitAgentAway},
	"renew":                {"id", exitAgentAway},
	"report":               {"", exitAgentAway},
	"top":                  {"--once", exitAgentAway},
	"run":                  {"--pool p -- true", exitAgentAway},
	"support-bundle":       {"--out DIR/bundle.tar.gz", exitOK}, // it holds what there is
	"status":               {"", exitAgentAway},
	"upstream call":        {"", exitAgentAway},
	"upstream preview":     {"", exitAgentAway},
}

// alone are the commands that ask no agent.
var alone = strings.Fields(
	`agent demo man help completion vendor upstream events/verify events/history fleet/rules/set host/key
	license/inspect config import-options report/merge upstream/add upstream/forget upstream/forgive upstream/list
	upstream/machines upstream/renew upstream/resume upstream/revoke upstream/site-key upstream/suspend upstream/token`)

// silent listens, takes connections, and never answers. It returns the socket and how many came.
func silent(t *testing.T) (socket string, came *atomic.Int64) {
	t.Helper()
	socket, came = filepath.Join(t.TempDir(), "s"), new(atomic.Int64)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			go io.Copy(io.Discard, conn)
		}
	}()
	return socket, came
}

// TestAgentThatDoesNotAnswer walks all commands: each that asks an agent ends by its deadline, and says what is wrong.
func TestAgentThatDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	lic := licenceIn(t, dir)
	seen := map[string]bool{}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		name := strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), "usher"))
		top, _, _ := strings.Cut(name, " ")
		ask, does := asks[name]
		switch {
		case does:
			seen[name] = true
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				socket, came := silent(t)
				args := append(strings.Fields(name), "--socket", socket, "--timeout", "200ms")
				args = append(args,
					strings.Fields(strings.NewReplacer("LIC", lic, "DIR", t.TempDir()).Replace(ask.args))...)
				began := time.Now()
				code, out, errs := tool(t, args...)
				if took := time.Since(began); took > 20*time.Second {
					t.Errorf("it takes %v", took)
				}
				said := strings.Contains(out+errs, "does not answer within 200ms") || // the client's words
					strings.Contains(out+errs, "does not answer within 0.2 seconds")
				if code != ask.code || code != exitOK && !said {
					t.Errorf("it ends with %d, and says %s%s", code, out, errs)
				}
				if came.Load() == 0 {
					t.Error("it asks no agent")
				}
			})
		case name == "" || cmd.HasSubCommands() && !slices.Contains(alone, name):
		case !slices.Contains(alone, top) && !slices.Contains(alone, strings.ReplaceAll(name, " ", "/")) &&
			!strings.HasPrefix(name, "upstream token"):
			t.Errorf("the test does not know whether `usher %s` asks an agent", name)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
	for name := range asks {
		if !seen[name] {
			t.Errorf("there is no command %s", name)
		}
	}
}

// health --ready --wait ends when the wait is over, whatever the agent does, and sooner where it is ready.
func TestHealthWaitsNoLonger(t *testing.T) {
	socket, _ := silent(t)
	began := time.Now()
	code, _, errs := tool(t, "health", "--ready", "--wait", "300ms", "--socket", socket)
	if took := time.Since(began); code != exitAgentAway || took < 300*time.Millisecond || took > 4*time.Second ||
		!strings.Contains(errs, "does not answer within 0.3 seconds") {
		t.Errorf("after %v it ends with %d and says %s", took, code, errs)
	}
}

// answersHealth is an agent that answers health and, with a status, nothing else before the time that it is frozen at.
func answersHealth(t *testing.T, frozen *atomic.Bool) (socket string, looks *atomic.Int64) {
	t.Helper()
	socket, looks = filepath.Join(t.TempDir(), "s"), new(atomic.Int64)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/health" && !frozen.Load() {
			looks.Add(1)
			fmt.Fprint(w, `{"status":"ok"}`)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return socket, looks
}

// A command that waits goes on for as long as the agent answers, and notices when it does not any more.
func TestWaitersNoticeAFrozenAgent(t *testing.T) {
	for _, line := range []string{"acquire --pool p --wait 1h", "drain --wait 1h", "upstream call"} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			var frozen atomic.Bool
			socket, looks := answersHealth(t, &frozen)
			done := make(chan string, 1)
			go func() {
				code, out, errs := tool(t, append(strings.Fields(line), "--socket", socket, "--timeout", "1s")...)
				done <- fmt.Sprint(code, " ", out, errs)
			}()
			for end := time.Now().Add(30 * time.Second); looks.Load() < 1; {
				select {
				case said := <-done:
					t.Fatalf("it does not wait for an agent that answers: %s", said)
				case <-time.After(5 * time.Millisecond):
				}
				if time.Now().After(end) {
					t.Fatal("nobody looks at the agent")
				}
			}
			frozen.Store(true)
			select {
			case said := <-done:
				if !strings.HasPrefix(said, fmt.Sprint(exitAgentAway)) ||
					!strings.Contains(said, "does not answer within") {
					t.Errorf("it says %s", said)
				}
			case <-time.After(60 * time.Second):
				t.Error("it goes on waiting for a frozen agent")
			}
		})
	}
}
