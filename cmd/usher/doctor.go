package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/repair"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/redact"
)

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, warning, bad
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

func (c *cli) doctorCommand() *cobra.Command {
	var repair bool
	var src *source
	cmd := &cobra.Command{Use: "doctor [--repair]", Short: "Find faults, and say how to mend them",
		Args: cobra.NoArgs,
		Long: `Look at the socket, the agent, its licence, pools, clock, watching and configuration, and say what
is wrong and how to mend it. Exits 1 when something is bad.

With --repair, while no agent runs, mend damaged journals. Every record that its checksum proves stays, a record
with a single wrong bit is corrected, and the damaged file is set aside. The command replays the rest before it
takes the journal's place, so that the agent starts on it. It never undoes a draw. As root, it keeps the owner of
the files. It accepts state that is not as the agent left it, and the event log says so; draws, refusals and returns
stand as last known.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if repair {
				return c.repair(src)
			}
			found := c.examine(cmd)
			bad := 0
			for _, f := range found {
				if f.Result == "bad" {
					bad++
				}
			}
			if c.json {
				if err := c.printJSON(found); err != nil {
					return err
				}
			} else {
				for _, f := range found {
					fprintf(c.out, "%-8s %s: %s\n", f.Result, f.Check, f.Detail)
					if f.Hint != "" {
						fprintf(c.out, "         hint: %s\n", f.Hint)
					}
				}
			}
			if bad > 0 {
				return &exit{code: exitFailed}
			}
			return nil
		}}
	src = c.configSource(cmd)
	cmd.Flags().BoolVar(&repair, "repair", false, "mend damaged journals, while no agent runs")
	return cmd
}

// repair mends the journals of the configured folders.
func (c *cli) repair(src *source) error {
	cfg, err := src.load(c)
	if err != nil {
		return err
	}
	found, err := repair.Journals(cfg)
	for _, r := range found {
		fprintln(c.out, repairedText(r))
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		fprintln(c.out, "there are no journals to repair")
	}
	accepted, err := repair.Accept(cfg)
	for _, a := range accepted {
		fprintf(c.out, "%s  was %s; it is now accepted, and the event log says so\n", a.File, a.Fault)
	}
	return err
}

// repairedText reports the repair of a journal.
func repairedText(r desk.Repaired) string {
	text := fmt.Sprintf("%s  %d records kept, %d damaged bytes set aside", r.File, r.Kept, r.Dropped)
	if r.Mended > 0 {
		text += fmt.Sprintf(", %d records with one wrong bit mended", r.Mended)
	}
	if r.Restored > 0 {
		text += fmt.Sprintf(", %d leases restored from a later record", r.Restored)
	}
	if r.LeftOut > 0 {
		text += fmt.Sprintf(", %d records left out that depend on lost ones", r.LeftOut)
	}
	return text
}

// examine makes every check that this command can make.
func (c *cli) examine(cmd *cobra.Command) (out []finding) {
	ctx, cancel := context.WithTimeout(cmd.Context(), answerWithin)
	defer cancel()
	add := func(check, result, hint, format string, args ...any) {
		out = append(out, finding{check, result, fmt.Sprintf(format, args...), hint})
	}
	agent := c.client()
	socket := agent.Socket()
	switch fi, err := os.Stat(socket); {
	case errors.Is(err, os.ErrNotExist):
		add("socket", "bad", "start the agent; --socket or USHER_SOCKET names its socket", "there is no %s", socket)
	case err != nil:
		add("socket", "bad", "every folder on its path must let you in", "%v", err)
	case fi.Mode().Type() != os.ModeSocket:
		add("socket", "bad", "move it away and restart the agent", "%s is not a socket", socket)
	default:
		add("socket", "ok", "", "%s, mode %04o", socket, fi.Mode().Perm())
	}
	h, err := agent.Health(ctx)
	if err != nil {
		hint := ""
		var p *client.Error
		if errors.As(err, &p) {
			hint = p.Hint
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			hint = "the agent that made the socket is gone; start it again"
		}
		add("agent", "bad", hint, "%v", err)
		c.examineHost(cmd, add)
		return out
	}
	result := "ok"
	if h.Status != "ok" {
		result = "warning"
	}
	add("agent", result, "", "%s, version %s, product %s, keys from %s", h.Status, h.Version, dash(h.Product),
		h.Anchors)
	for _, u := range h.Unready {
		add("vital part "+u.Part, "bad", "the agent is not ready until it is well; its log says more", "%s (since %s)",
			u.Reason, u.Since.Format(time.RFC3339))
	}
	if h.Version != version {
		add("version", "warning", "restart the agent after an update", "the agent is version %s, and this command %s",
			h.Version, version)
	}
	for _, s := range h.State {
		add("state", "bad",
			"find out who changed the agent's folders; then stop the agent and run `usher doctor --repair`, which "+
				"accepts the present state",
			"%s is %s (found %s): %s", s.File, s.Fault, s.Found.Format(time.RFC3339), s.Effect)
	}
	if l, err := agent.License(ctx); err != nil {
		add("licence", "bad", "", "%v", err)
	} else {
		examineLicense(l, add)
	}
	if k, err := agent.Clock(ctx); err == nil {
		examineClock(k, add)
	}
	if pools, err := agent.Pools(ctx); err == nil {
		for _, p := range pools {
			switch {
			case p.Budget != nil && *p.Budget > 0 && p.InUse >= *p.Budget:
				add("pool "+p.Name, "warning", "`usher leases` lists the holders", "all %d slots are in use",
					*p.Budget)
			case p.Budget != nil && p.Limit != nil && *p.Budget < *p.Limit:
				add("pool "+p.Name, "warning", "", "this agent may hand out %d of %d slots", *p.Budget, *p.Limit)
			}
		}
	}
	examineListeners(ctx, agent, h, add)
	if settings, err := agent.Config(ctx); err == nil {
		add("configuration", "ok", "", "%d keys; `usher config show --origin` lists them", len(settings))
	} else if errors.Is(err, client.ErrForbidden) {
		add("configuration", "warning", "ask as root or the agent's user", "only admins may read it")
	}
	c.examineHost(cmd, add)
	return out
}

// examineListeners lists the listeners of dialects, and the keys that sign their answers.
func examineListeners(ctx context.Context, agent *client.Client, h *wire.Health,
	add func(check, result, hint, format string, args ...any)) {
	if len(h.Listeners) == 0 {
		return
	}
	signs := map[string]string{}
	if keys, err := agent.Keys(ctx); err == nil {
		for _, k := range keys.Keys {
			if x, err := base64.RawURLEncoding.DecodeString(k.X); err == nil {
				signs[k.Dialect] = hex.EncodeToString(x)
			}
		}
	}
	for _, l := range h.Listeners {
		add("listener", "ok", "", "%s speaks %s; the Ed25519 key of its answers is %s", l.Address, l.Dialect,
			dash(signs[l.Dialect]))
	}
}

func examineLicense(l *wire.License, add func(check, result, hint, format string, args ...any)) {
	if l.State == "valid" {
		add("licence", "ok", "", "%s", l.Reason)
	} else {
		add("licence", "bad", "`usher license list` shows every document", "%s: %s", l.Code, l.Reason)
	}
	for _, w := range l.Warnings {
		add("licence", "warning", "", "%s: %s", w.Code, w.Detail)
	}
}

// examineKernel reports how the agent can learn here of a holder's death.
func examineKernel(add func(check, result, hint, format string, args ...any)) {
	s := liveness.Supported()
	again := "by number and start time"
	if s.Handles {
		again = "by file handle"
	}
	switch {
	case s.PeerPIDFD:
		add("liveness", "ok", "",
			"the kernel (%s) reports the death of any holder (peerpidfd); after a restart the agent finds holders %s",
			s.Kernel, again)
	case s.PIDFDOpen:
		add("liveness", "ok", "",
			"the kernel (%s) reports the death of a holder that sends its own pidfd (sentpidfd), as our client does, "+
				"or whose process the agent can see (pidfd); after a restart the agent finds holders %s", s.Kernel,
			again)
	default:
		add("liveness", "warning", "keep the connection open for as long as slots are held",
			"the kernel does not report the death of other processes; a lease lives by its connection")
	}
}

func (c *cli) examineHost(cmd *cobra.Command, add func(check, result, hint, format string, args ...any)) {
	examineKernel(add)
	r := host.Measure(cmd.Context(), host.Config{Product: "doctor"})
	present := 0
	for _, k := range r.Components {
		if len(k.Values) > 0 && k.Note == "" {
			present++
		}
	}
	detail := fmt.Sprintf("%d of %d components can be read by this user; virtual machine: %s; container: %s", present,
		len(r.Components), yesNo(r.Virtual), yesNo(r.Container))
	if present < 2 {
		add("host", "warning",
			"too few for a licence that is bound to this host; bind it to the agent's key, or mount the host's "+
				"/sys and /etc", "%s", detail)
		return
	}
	add("host", "ok", "", "%s", detail)
}

func (c *cli) bundleCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "support-bundle [--out FILE]",
		Short: "Write the facts that a vendor's support needs, without secrets", Args: cobra.NoArgs,
		Long: `Write a .tar.gz with the licence's state, pools, leases, configuration, metrics, fingerprint and the
doctor's findings. It leaves out keys, e-mail addresses, licensees' own terms, and the users and
labels of holders. Look into it before you send it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				out = "usher-support-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			}
			n, err := c.bundle(cmd, out)
			if err != nil {
				return fmt.Errorf("support bundle: %w", err)
			}
			if out != "-" {
				fprintf(c.out, "%s  %d files; look into it before you send it\n", out, n)
			}
			return nil
		}}
	cmd.Flags().StringVar(&out, "out", "",
		"the file to write; - is standard output (default usher-support-TIME.tar.gz)")
	return cmd
}

// bundle writes the support bundle and returns the number of its files.
func (c *cli) bundle(cmd *cobra.Command, path string) (n int, err error) {
	to := c.out
	if path != "-" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			return 0, fmt.Errorf("%s exists already; give another --out", path)
		}
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	z := gzip.NewWriter(to)
	t := tar.NewWriter(z)
	now := time.Now()
	add := func(name string, data []byte) {
		if err == nil {
			err = t.WriteHeader(&tar.Header{Name: "usher-support/" + name, Mode: 0o644, Size: int64(len(data)),
				ModTime: now})
		}
		if err == nil {
			_, err = t.Write(data)
			n++
		}
	}
	part := func(name string, get func() (any, error)) {
		v, failed := get()
		if failed != nil {
			add(name+".error.txt", []byte(redact.Text(failed.Error())+"\n"))
			return
		}
		if raw, ok := v.([]byte); ok {
			add(name+".txt", []byte(redact.Text(string(raw))))
			return
		}
		b, failed := json.MarshalIndent(redact.Shape(v), "", "  ")
		if failed != nil {
			add(name+".error.txt", []byte(failed.Error()+"\n"))
			return
		}
		add(name+".json", append(b, '\n'))
	}
	ctx, agent := cmd.Context(), c.client()
	part("version", func() (any, error) {
		return map[string]string{"version": versionText(), "go": runtime.Version(), "os": runtime.GOOS,
			"arch": runtime.GOARCH}, nil
	})
	part("doctor", func() (any, error) { return c.examine(cmd), nil })
	part("health", func() (any, error) { return agent.Health(ctx) })
	part("license", func() (any, error) { l, err := agent.License(ctx); return redactLicense(l), err })
	part("pools", func() (any, error) { return agent.Pools(ctx) })
	part("leases", func() (any, error) { l, err := agent.Leases(ctx, ""); return redactLeases(l), err })
	part("config", func() (any, error) { s, err := agent.Config(ctx); return redactConfig(s), err })
	part("events", func() (any, error) { return eventsTail(ctx, agent) })
	part("fingerprint", func() (any, error) { return agent.Fingerprint(ctx, "") })
	part("metrics", func() (any, error) { return agent.Metrics(ctx) })
	return n, errors.Join(err, t.Close(), z.Close())
}

// redactLicense removes the names of people and the vendor's own terms.
func redactLicense(l *wire.License) *wire.License {
	if l == nil {
		return nil
	}
	for i := range l.Licenses {
		l.Licenses[i].Licensee, l.Licenses[i].Issuer, l.Licenses[i].Terms = "(left out)", "(left out)", map[string]any{}
	}
	return l
}

func redactLeases(leases []wire.Lease) []wire.Lease {
	for i := range leases {
		if h := leases[i].Holder; h != nil {
			h.User, h.Labels = "", nil
			h.Exe = filepath.Base(h.Exe)
		}
		leases[i].ID, leases[i].Token = leases[i].ID[:min(8, len(leases[i].ID))]+"…", ""
	}
	return leases
}

func redactConfig(settings []wire.Setting) []wire.Setting {
	for i := range settings {
		k := settings[i].Key[strings.LastIndexByte(settings[i].Key, '.')+1:]
		// a path tells where a secret is, but not the secret
		path := strings.HasSuffix(k, "_file") || strings.HasSuffix(k, "_dir") || k == "path"
		if !path && redact.Member(k, settings[i].Value) || k == "inline" {
			if settings[i].Value != "" {
				settings[i].Value = "(left out)"
			}
		}
	}
	return settings
}
