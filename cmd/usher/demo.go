package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

func (c *cli) demoCommand() *cobra.Command {
	var exitAtOnce bool
	cmd := &cobra.Command{Use: "demo [--exit]",
		Short: "Play the whole story in a temporary folder, with nothing to configure", Args: cobra.NoArgs,
		Long: `Play the vendor, the installer, the product and the operator, one after the other, with a real agent
in a temporary folder. The agent then stays up for you to try, until Ctrl-C; with --exit it ends at
once.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context(), exitAtOnce) }}
	cmd.Flags().BoolVar(&exitAtOnce, "exit", false, "end when the tour is over")
	return cmd
}

// tour is a running demo.
type tour struct {
	*cli
	ctx                     context.Context
	dir, exe, socket, inbox string
	upstream                string // the address of the vendor's server
	agent                   *client.Client
	step                    int
}

func (c *cli) demo(ctx context.Context, exitAtOnce bool) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	dir, err := os.MkdirTemp("", "usher-demo-")
	if err == nil && len(dir) > 80 { // a socket's path must be short
		os.Remove(dir)
		dir, err = os.MkdirTemp("/tmp", "usher-demo-")
	}
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	c.takesTime.Store(true) // the agents end, and the folder goes
	defer os.RemoveAll(dir)
	t := &tour{cli: c, ctx: ctx, dir: dir, exe: exe, socket: filepath.Join(dir, "usher.sock"),
		inbox: filepath.Join(dir, "license.d")}
	t.agent = client.New(t.socket)
	defer t.agent.Close()
	began := time.Now()
	stop, err := t.prepare()
	if stop != nil {
		defer func() { err = errors.Join(err, stop()) }()
	}
	if err != nil {
		return err
	}
	if err := t.tell(); err != nil {
		return err
	}
	fprintf(c.out, "\nThat was all of it, in %.1f s.\n", time.Since(began).Seconds())
	if exitAtOnce {
		return nil
	}
	fprintf(c.out, `
The agent stays up until Ctrl-C. Try this in another terminal:

  export USHER_SOCKET=%s
  curl --unix-socket $USHER_SOCKET http://usher/v1/license
  curl --unix-socket $USHER_SOCKET http://usher/v1/leases --json '{"pool": "streams"}'
  %[2]s status
  %[2]s run --pool streams -- sleep 60
  %[2]s events -f

and drop licences of your own into %[3]s:

  %[2]s vendor sign --key %[4]s --product demo --id mine --limit streams=7 --scope host --out %[3]s/mine.lic
`, t.socket, exe, t.inbox, filepath.Join(dir, "keys/demo-key.key"))
	<-ctx.Done()
	fprintln(c.out)
	return nil
}

// prepare makes the vendor's key and starts the agent, without a licence at first.
func (t *tour) prepare() (stop func() error, err error) {
	if err := os.Mkdir(t.inbox, 0o755); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	t.say("The vendor makes a key, once", "The private half signs licences; the public half ships with the product.")
	if _, err := t.usher(0, "vendor", "keygen", "--kid", "demo-key", "--out", "keys"); err != nil {
		return nil, err
	}
	if t.upstream, err = freeAddress(); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(
		"product: demo\nlicense:\n  path: %s\n  trust:\n    - {kid: demo-key, key_file: %s}\nsocket: {path: %s, "+
			"mode: \"0600\"}\nstate: {dir: %s, runtime_dir: %s}\nupstream: {url: \"http://%s\"}\n",
		t.inbox, filepath.Join(t.dir, "keys/demo-key.pub"), t.socket, filepath.Join(t.dir, "state"),
		filepath.Join(t.dir, "run"), t.upstream)
	if err := os.WriteFile(filepath.Join(t.dir, "usher.yaml"), []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	t.say("The operator starts the agent",
		"It watches the folder license.d and listens on a Unix socket. There is no licence yet.")
	fprintln(t.out, "  $ usher agent --config usher.yaml &")
	var log bytes.Buffer
	cmd := exec.Command(t.exe, "agent", "--config", filepath.Join(t.dir, "usher.yaml"))
	cmd.Env = cleanEnvironment()
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("demo: the agent failed: %w\n%s", err, log.String())
			}
			return nil
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			return errors.New("demo: the agent did not end in time")
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if ok, err := t.agent.Ready(t.ctx); err == nil && ok {
			break
		}
		select {
		case err := <-ended:
			ended <- err
			return stop, fmt.Errorf("demo: the agent did not start:\n%s", log.String())
		case <-t.ctx.Done():
			return stop, t.ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return stop, errors.New("demo: the agent is not ready after 10 s")
		}
	}
	_, err = t.usher(exitNotValid, "status")
	return stop, err
}

// tell tells the story.
func (t *tour) tell() error {
	t.say("The vendor signs a licence: 3 streams, bound to this host",
		"The request names the host by keyed hashes and by the agent's key; no serial number leaves it.")
	if _, err := t.usher(0, "fingerprint", "--request", "request.json"); err != nil {
		return err
	}
	if err := t.sign("demo-1", "3", "demo-1.lic"); err != nil {
		return err
	}
	t.say("The installer drops it into the folder", "No reload, no restart.")
	if err := t.drop("demo-1.lic", "demo.lic", func(l *wire.License) bool { return l.State == "valid" }); err != nil {
		return err
	}
	t.say("The product takes slots, until there are none", "")
	var leases []string
	for range 3 {
		id, err := t.usher(0, "acquire", "--pool", "streams", "--ttl", "10m")
		if err != nil {
			return err
		}
		leases = append(leases, strings.TrimSpace(id))
	}
	if _, err := t.usher(exitNoSlot, "acquire", "--pool", "streams"); err != nil {
		return err
	}
	t.say("One is given back, and is free at once", "")
	if _, err := t.usher(0, "release", leases[0]); err != nil {
		return err
	}
	if _, err := t.usher(0, "pools"); err != nil {
		return err
	}
	if err := t.kill(); err != nil {
		return err
	}
	t.say("The customer buys more: a licence for 5 replaces it", "Nobody who holds a slot notices.")
	if err := t.sign("demo-2", "5", "demo-2.lic"); err != nil {
		return err
	}
	if err := t.drop("demo-2.lic", "demo.lic", func(l *wire.License) bool {
		n := l.Limits["streams"]
		return n != nil && *n == 5
	}); err != nil {
		return err
	}
	t.say("Somebody edits it, to get even more", "The agent refuses it with the reason, and the last good one stands.")
	if err := t.tamper(); err != nil {
		return err
	}
	if _, err := t.usher(0, "status"); err != nil {
		return err
	}
	t.say("The operator's metrics have moved", "")
	if err := t.metrics(); err != nil {
		return err
	}
	return t.online()
}

// sign signs a licence for a number of streams that is bound to this host.
func (t *tour) sign(id, streams, file string) error {
	_, err := t.usher(0, "vendor", "sign", "--key", "keys/demo-key.key", "--product", "demo", "--licensee", "You",
		"--id", id, "--limit", "streams="+streams,
		"--feature", "hd", "--expires", "90d", "--bind", "request.json", "--out", file)
	return err
}

func (t *tour) say(title, text string) {
	t.step++
	if t.step > 1 {
		fprintln(t.out)
	}
	fprintf(t.out, "%d. %s\n", t.step, title)
	if text != "" {
		fprintf(t.out, "   %s\n", text)
	}
}

// usher runs a command of this binary as a person would, and prints both command and output.
func (t *tour) usher(wantCode int, args ...string) (string, error) {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = a
		if strings.ContainsAny(a, " $") {
			shown[i] = "'" + a + "'"
		}
	}
	fprintf(t.out, "  $ usher %s\n", strings.Join(shown, " "))
	cmd := exec.CommandContext(t.ctx, t.exe, args...)
	cmd.Dir, cmd.Env = t.dir, append(cleanEnvironment(), "USHER_SOCKET="+t.socket)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(strings.TrimRight(string(out), "\n")) {
		fprintf(t.out, "    %s\n", strings.TrimRight(line, "\n"))
	}
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != wantCode {
		return "", fmt.Errorf("demo: usher %s ended with %v instead of exit code %d", args[0], err, wantCode)
	}
	return string(out), nil
}

// cleanEnvironment returns this process's environment without Usher's variables.
func cleanEnvironment() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "USHER_") {
			out = append(out, kv)
		}
	}
	return out
}

// drop renames a licence into the folder and waits until it is in force.
func (t *tour) drop(from, name string, inForce func(*wire.License) bool) error {
	fprintf(t.out, "  $ mv %s license.d/%s\n", from, name)
	began := time.Now()
	if err := os.Rename(filepath.Join(t.dir, from), filepath.Join(t.inbox, name)); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	l, err := t.until(inForce)
	if err != nil {
		return err
	}
	fprintf(t.out, "    in force after %.1f ms: %s\n", float64(time.Since(began).Microseconds())/1000, l.Reason)
	return nil
}

func (t *tour) until(ok func(*wire.License) bool) (*wire.License, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		l, err := t.agent.License(t.ctx)
		if err != nil {
			return nil, err
		}
		if ok(l) {
			return l, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("demo: the licence did not change in time; it is %s: %s", l.Code, l.Reason)
		}
		select {
		case <-t.ctx.Done():
			return nil, t.ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// kill starts a holder of the last slot and a waiter for it, and kills the holder.
func (t *tour) kill() error {
	t.say("A program with a slot is killed while another waits",
		"The kernel tells the agent at once; no time to live must run out.")
	fprintln(t.out, "  $ usher run --pool streams -- sleep 1000 &")
	holder := exec.CommandContext(t.ctx, t.exe, "run", "--pool", "streams", "--", "sleep", "1000")
	holder.Env = append(cleanEnvironment(), "USHER_SOCKET="+t.socket)
	if err := holder.Start(); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() {
		holder.Process.Kill()
		holder.Wait()
	}()
	if err := t.pool("the program holds a slot", func(p *wire.Pool) bool { return *p.Available == 0 }); err != nil {
		return err
	}
	fprintln(t.out, "  $ usher acquire --pool streams --wait 30s &")
	type answer struct {
		lease *wire.Lease
		err   error
		at    time.Time
	}
	got := make(chan answer, 1)
	go func() {
		l, err := t.agent.Acquire(t.ctx, wire.AcquireRequest{Pool: "streams", WaitSeconds: 30})
		got <- answer{l, err, time.Now()}
	}()
	if err := t.pool("somebody waits", func(p *wire.Pool) bool { return p.Waiting == 1 }); err != nil {
		return err
	}
	fprintln(t.out, "  $ kill -9 %1")
	killed := time.Now()
	if err := holder.Process.Kill(); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	a := <-got
	if a.err != nil {
		return a.err
	}
	fprintf(t.out, "    %.1f ms after the kill the waiter has the slot: lease %s\n",
		float64(a.at.Sub(killed).Microseconds())/1000, a.lease.ID)
	return t.agent.Release(t.ctx, a.lease.ID, false)
}

// pool waits for a state of the story's pool.
func (t *tour) pool(what string, ok func(*wire.Pool) bool) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		p, err := t.agent.Pool(t.ctx, "streams")
		if err != nil {
			return err
		}
		if ok(p) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("demo: after 10 s it is still not true that %s", what)
		}
		select {
		case <-t.ctx.Done():
			return t.ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// tamper changes one character of the licence in force and waits until the fault is reported.
func (t *tour) tamper() error {
	path := filepath.Join(t.inbox, "demo.lic")
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	i := len(b) / 2
	for b[i] == '\n' {
		i++
	}
	was := b[i]
	b[i] = 'A'
	if was == 'A' {
		b[i] = 'B'
	}
	fprintf(t.out, "  $ vi license.d/demo.lic     # one character: %c → %c\n", was, b[i])
	tmp := filepath.Join(t.dir, "edited")
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	_, err = t.until(func(l *wire.License) bool {
		return slices.ContainsFunc(l.Warnings, func(w wire.Warning) bool { return w.Code == "DOCUMENT" })
	})
	return err
}

// metrics shows a few of the metrics.
func (t *tour) metrics() error {
	fprintf(t.out, "  $ curl --unix-socket usher.sock http://usher/metrics | grep usher_\n")
	b, err := t.agent.Metrics(t.ctx)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		for _, want := range []string{`usher_license_state{state="valid"}`, `usher_license_expiry_timestamp`,
			`usher_slots_limit{`, `usher_slots_in_use{`, `usher_acquires_total{pool="streams",result="granted"}`,
			`usher_denials_total{code="no_slots",pool="streams"}`,
			`usher_releases_total{cause="released",pool="streams"}`, `usher_license_warning{code="DOCUMENT"}`} {
			if strings.HasPrefix(line, want) {
				fprintf(t.out, "    %s\n", strings.TrimRight(line, "\n"))
			}
		}
	}
	return nil
}
