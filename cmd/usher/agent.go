package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/agent/output"
	"github.com/usher-agent/usher/cmd/usher/internal/doctor"
	"github.com/usher-agent/usher/cmd/usher/internal/early"
	"github.com/usher-agent/usher/cmd/usher/internal/instance"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/textual"
)

// configFlags are the flags that set a key of the configuration.
var configFlags = []struct{ flag, key, help string }{
	{"product", "product", "the product that the agent serves"},
	{"license", "license.path", "the licence folder, or one licence file"},
	{"state-dir", "state.dir", "the folder for the agent's state"},
	{"ops-listen", "ops.listen", "host:port for /metrics, /healthz and /readyz"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"log-format", "log.format", "text or json"},
}

// source is the origin of the configuration for a command.
type source struct {
	file  string
	guard bool // read only files that no other user can change, as the agent does
	agent bool // it is the agent itself that starts
	// doctor says that the doctor reads it, which has a finding of its own where paths are relative.
	doctor bool
	flags  map[string]*string
	unit   *instance.Unit // that the configuration is of, once it is loaded; nil: of none
	from   string         // the file that was loaded last; empty: none
}

func (c *cli) configSource(cmd *cobra.Command) *source {
	s := &source{flags: map[string]*string{}}
	cmd.Flags().StringVar(&s.file, "config", "",
		"the configuration file (default USHER_CONFIG, else "+naming.Config()+" if it exists)")
	for _, f := range configFlags {
		s.flags[f.key] = cmd.Flags().String(f.flag, "", f.help+" ("+f.key+")")
	}
	return s
}

// path returns the configuration file; empty when there is none.
func (s *source) path() string {
	if s.file != "" {
		return s.file
	}
	if f := textual.Value(os.Getenv("USHER_CONFIG")); f != "" {
		return f
	}
	if _, err := os.Stat(naming.Config()); err == nil {
		return naming.Config()
	}
	return ""
}

func (s *source) load(c *cli) (*config.Config, error) {
	flags := map[string]string{}
	for key, v := range s.flags {
		if *v != "" {
			flags[key] = *v
		}
	}
	if c.socket != "" {
		flags["socket.path"] = c.socket
	}
	file, env, err := s.origin(c)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(config.Source{File: file, Env: env, Flags: flags, Guard: s.guard})
	if agent.OfTheHost(err) || err != nil && !isReadable(file) {
		return nil, &exit{code: exitFailed, cause: err}
	}
	if err != nil {
		return nil, &exit{code: exitConfig, cause: err,
			hint: "docs/configuration.md and configs/usher.yaml explain every key"}
	}
	if own, err := os.Getwd(); err == nil && !s.agent && !s.doctor {
		if says := doctor.Relative(cfg, file, own); says != "" {
			fprintf(c.errs, "warning: %s\n", says)
		}
	}
	return cfg, nil
}

// origin returns the file and the variables of the configuration: those of the unit that it is of, else this process's.
func (s *source) origin(c *cli) (file string, env []string, err error) {
	if s.unit, err = s.locate(c); err != nil {
		return "", nil, err
	}
	s.from, env = s.path(), os.Environ()
	if s.unit != nil {
		s.from, env = cmp.Or(s.file, s.unit.Config), s.unit.Env
	}
	return s.from, env, nil
}

// isReadable reports whether the configuration file, if there is one, can be read now.
func isReadable(path string) bool {
	if path == "" {
		return true
	}
	_, err := os.ReadFile(path)
	return err == nil
}

func (c *cli) agentCommand() *cobra.Command {
	var check, folders bool
	var owner string
	var src *source
	cmd := &cobra.Command{Use: "agent [--config FILE] [--check | --make-folders [--owner UID:GID]]",
		Short: "Run the agent, in the foreground", Args: cobra.NoArgs,
		Long: `Run the agent in the foreground. It listens on its socket, watches the licence folder, and logs to
standard error.

SIGHUP reads the configuration again, as a change of the file does. The first SIGINT or SIGTERM lets calls under way
finish; a second one ends it at once. --check reads and checks everything, says which terms hold, and starts
nothing.

--make-folders makes state.dir and state.runtime_dir, which nobody else can write to, and ends. Run it in a
container that starts before the agent's where everybody can write to a volume, as to a Kubernetes emptyDir. The
agent then mounts these folders instead of the volume. With --owner, root makes them, and the folder of the socket, for
an agent that runs as another user.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if owner != "" && !folders {
				return usage("--owner goes with --make-folders")
			}
			src.agent = !check
			src.guard = !check || os.Geteuid() != 0 // root checks the files of another user's agent
			cfg, err := src.load(c)
			if err != nil {
				return err
			}
			if folders {
				return makeFolders(cfg, owner)
			}
			if err := c.apart(cfg); err != nil {
				return err
			}
			if check {
				return c.checkConfig(cmd.Context(), cfg, src)
			}
			return c.runAgent(cmd.Context(), cfg, src)
		}}
	src = c.configSource(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration, and start nothing")
	cmd.Flags().BoolVar(&folders, "make-folders", false, "make the agent's own folders, and start nothing")
	cmd.Flags().StringVar(&owner, "owner", "",
		"with --make-folders: the numbers of the agent's user and group, such as 10473:10473 (default: one's own)")
	return cmd
}

// makeFolders makes the agent's own folders, for another user if owner names one.
func makeFolders(cfg *config.Config, owner string) error {
	state, runtime := files.StateFolder(cfg.State.Dir), files.RuntimeFolder(cfg.State.RuntimeDir)
	if owner == "" {
		return files.MakeOwn(state, runtime)
	}
	uid, gid, ok := strings.Cut(owner, ":")
	u, err := strconv.ParseUint(uid, 10, 31)
	g, gidErr := strconv.ParseUint(gid, 10, 31)
	if !ok || err != nil || gidErr != nil {
		return usage("--owner: %q is not a user's and a group's number, such as 10473:10473", owner)
	}
	return files.GiveTo(int(u), int(g), files.SocketFolder(cfg.Socket.Path), runtime, state)
}

// newLog makes the configured log on an output, and the function that sets its level.
func newLog(cfg *config.Config, to io.Writer) (*slog.Logger, func(string)) {
	level := &slog.LevelVar{}
	set := func(s string) {
		if err := level.UnmarshalText([]byte(s)); err != nil {
			level.Set(slog.LevelInfo)
		}
	}
	set(cfg.Log.Level)
	var h slog.Handler = slog.NewTextHandler(screened{to, textual.Screen},
		&slog.HandlerOptions{Level: level, ReplaceAttr: spoken})
	if cfg.Log.Format == "json" {
		h = slog.NewJSONHandler(screened{to, textual.ScreenJSON},
			&slog.HandlerOptions{Level: level, ReplaceAttr: redacted})
	}
	return slog.New(h), set
}

// logWithin is for how long the agent that ends waits for the reader of its log.
const logWithin = 2 * time.Second

// queueErrors has all that goes to standard error from now on pass a queue: its reader may stand still, or be gone, and
// the agent goes on.
func (c *cli) queueErrors(cfg *config.Config) *output.Queue {
	// A write to a reader that is gone would end the process: the runtime does so on standard output and standard
	// error, unless the signal is asked for.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	c.takesTime.Store(true) // the last lines, and a server's calls under way
	q := output.New(c.errs, func(to io.Writer, lines uint64) {
		log, _ := newLog(cfg, to)
		log.Warn("the reader of the log stood still, and lines were dropped", "lines", lines)
	})
	c.errs = q
	c.flush = func() { q.Close(logWithin) }
	stdlog.SetOutput(screened{q, textual.Screen}) // what libraries write
	return q
}

// logNotes logs what of the configuration may not be meant so.
func logNotes(log *slog.Logger, cfg *config.Config) {
	for _, n := range cfg.Notes() {
		log.Warn("a setting may not be what is meant", "note", n)
	}
}

func (c *cli) runAgent(ctx context.Context, cfg *config.Config, src *source) error {
	queue := c.queueErrors(cfg)
	log, setLevel := newLog(cfg, queue)
	logNotes(log, cfg)
	from := src.from // a reload finds it again, at any time
	a, err := agent.New(agent.Options{Config: cfg, Load: func() (*config.Config, error) {
		next, err := src.load(c)
		logNotes(log, next)
		return next, err
	}, Log: log, SetLevel: setLevel, LogDropped: queue.Dropped, Version: version, Commit: commit()})
	if err != nil {
		return &exit{code: startCode(err), cause: err}
	}
	go reap(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// After the first signal, the next one has its default effect.
	context.AfterFunc(ctx, c.stopSignals)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.reloads(ctx, a, from, log)
	}()
	err = a.Run(ctx)
	cancel()
	<-done
	if err != nil {
		return &exit{code: exitFailed, cause: err}
	}
	log.Info("stopped")
	return nil
}

// startCode returns the exit code of an agent that does not start: a service manager tries again, unless the
// configuration itself is wrong.
func startCode(err error) int {
	if agent.Misconfigured(err) {
		return exitConfig
	}
	return exitFailed
}

// reloads reloads on SIGHUP and when the configuration file changes, until ctx ends.
func (c *cli) reloads(ctx context.Context, a *agent.Agent, path string, log *slog.Logger) {
	hup := early.HUP // what came during the start is in it
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var events chan fsnotify.Event
	var fails chan error
	if path != "" {
		// It watches the folder, because editors and configuration tools replace the file.
		if w, err := fsnotify.NewWatcher(); err == nil {
			defer w.Close()
			if w.Add(filepath.Dir(path)) == nil {
				events, fails = w.Events, w.Errors
			}
		}
		if events == nil {
			log.Warn("the configuration file cannot be watched; send SIGHUP, or run `usher reload`, after a change",
				"file", path)
		}
	}
	before := fileStamp(path)
	settle := time.NewTimer(time.Hour)
	settle.Stop()
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			before = fileStamp(path)
			a.Reload()
		case <-events:
			settle.Reset(250 * time.Millisecond) // an editor writes in steps
		case <-fails:
		case <-settle.C:
			if now := fileStamp(path); now != before {
				before = now
				a.Reload()
			}
		}
	}
}

// fileStamp returns a text that differs between versions of a file.
func fileStamp(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(fi.ModTime().UnixNano(), fi.Size())
}

// checkConfig reports the effect of the configuration: the anchors, the terms that it narrows, and the verdict on the
// licences in the folder.
func (c *cli) checkConfig(ctx context.Context, cfg *config.Config, src *source) error {
	if err := errors.Join(inspect.Faults(cfg), agent.Check(cfg)); err != nil {
		return &exit{code: exitConfig, cause: err}
	}
	v, err := inspect.Configured(cfg)
	if err != nil {
		return &exit{code: exitConfig, cause: err}
	}
	from := cmp.Or(src.from, "(none: defaults, variables and flags)")
	if src.unit != nil {
		from += ", with the variables of " + src.unit.Service
	}
	rows := [][]string{{"configuration", from}, {"product", dash(cfg.Product.Name())}, {"licences", cfg.License.Path},
		{"socket", cfg.Socket.Path},
		{"trusted keys", dash(strings.Join(v.Keys, ", "))},
		{"verdict now", string(v.Verdict.Code) + ": " + v.Verdict.Reason}}
	if f := cfg.Fleet; len(f.Endpoints) > 0 {
		pools := "all pools of a site"
		if len(f.Pools) > 0 {
			pools = strings.Join(f.Pools, ", ")
		}
		rows = append(rows, []string{"fleet", pools + ", from etcd at " + strings.Join(f.Endpoints, ", ")})
	}
	for _, l := range v.Listeners {
		rows = append(rows, []string{"listener " + l[0], l[1]})
	}
	for _, w := range v.Verdict.Warnings {
		rows = append(rows, []string{"warning", string(w.Code) + ": " + w.Detail})
	}
	if err := c.table(rows...); err != nil {
		return err
	}
	c.printNotes(cfg)
	for _, r := range agent.Remarks(cfg, v.Verdict) {
		fprintf(c.errs, "warning: %s\n", r)
	}
	for _, w := range v.Verdict.Warnings {
		if w.Code == enforcer.WarnConfigIgnored {
			fprintln(c.errs, "warning: a key of the configuration would widen a signed term; the licence holds")
			break
		}
	}
	if len(v.Keys) == 0 {
		fprintln(c.errs,
			"warning: no key is trusted, so no licence can be valid: name the vendor's public key under license.trust")
	}
	for _, f := range doctor.OfConfiguration(ctx, doctor.Options{Version: version, Unit: src.unit, File: src.from,
		Load: func() (*config.Config, error) { return cfg, nil }}) {
		fprintf(c.errs, "warning: %s\n", f.Sentence())
	}
	fprintln(c.out, "the configuration is good")
	return nil
}

// printNotes warns of what of the configuration may not be meant so.
func (c *cli) printNotes(cfg *config.Config) {
	for _, n := range cfg.Notes() {
		fprintf(c.errs, "warning: %s\n", n)
	}
}

// anchorsFrom returns the origin of the anchors: the configuration, or a vendor's build.
func anchorsFrom() string {
	product, _, err := catalog.Embedded()
	switch {
	case err != nil:
		return "broken"
	case product != "":
		return "embedded product=" + product
	default:
		return "config"
	}
}
