package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/agent/registrar"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// upstreamFlags are the flags of the server.
type upstreamFlags struct {
	key, signer, public, alg string
	trust                    []string
	data, listen, metrics    string
	runtimeDir               string
	enrolment                bool
	certFile, keyFile        string
	mutual, pools            bool
	blockTTL                 time.Duration
	fleet                    fleetFlags
	license                  string
	machines                 int64
	logLevel, logFormat      string
}

func (c *cli) upstreamCommand() *cobra.Command {
	var o upstreamFlags
	cmd := &cobra.Command{Use: "upstream --data DIR [--key K.key] [--serve-pools] [--listen ADDR] [--tls-cert F " +
		"--tls-key F]",
		Short: "Run the reference upstream, or a site server: activations, heartbeats, check-ins, renewals, blocks " +
			"of slots", Args: cobra.NoArgs,
		Long: `Run the server for licences with heartbeats and check-ins. It keeps its records in one file under
--data, signs its answers with the vendor's key, and admits every licence that this key (or one
under --trust) has signed. The commands below it are for its operator, and speak to the running
server.

With --serve-pools it gives agents blocks of slots from the pools of a whole site. Without --key it is a customer's
site server: it serves blocks alone, for the licences that a key under --trust has signed and that name the server's
own key. "usher upstream site-key" makes and shows that key.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serveUpstream(cmd, &o) }}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "the vendor's signing key, as \"vendor keygen\" writes it")
	f.StringVar(&o.signer, "signer", "", "a command that signs instead of --key, for a KMS or an HSM; needs --public")
	f.StringVar(&o.public, "public", "", "the public key that belongs to --signer")
	f.StringVar(&o.alg, "alg", "", "EdDSA, ES256, PS256 or RS256 (default: by the key)")
	f.StringArrayVar(&o.trust, "trust", nil, "a further public key of licences (K.pub); may be repeated")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9870", "the address for agents")
	f.StringVar(&o.metrics, "metrics-listen", "",
		"the address of /metrics, over plain HTTP, such as 127.0.0.1:9872; metrics name licences, so keep "+
			"strangers away (default: none)")
	f.BoolVar(&o.enrolment, "require-enrolment", false,
		"an unknown host needs an enrolment token (\"usher upstream token\"); the licence document alone does not "+
			"admit it")
	f.StringVar(&o.certFile, "tls-cert", "",
		"the server's certificate, in PEM; without it the server speaks plain HTTP")
	f.StringVar(&o.keyFile, "tls-key", "", "the key of --tls-cert")
	f.BoolVar(&o.mutual, "mutual-tls", false, "agents must show a certificate of their own key")
	f.BoolVar(&o.pools, "serve-pools", false, "serve blocks of slots of site pools")
	spanVar(f, &o.blockTTL, "block-ttl", registry.DefaultBlockTTL, time.Second,
		"the longest time of a block: after it a dead agent's slots are free again")
	f.StringVar(&o.runtimeDir, "runtime-dir", "",
		"a folder that a restart of the host empties and no backup includes (/run/usher-upstream for root, else "+
			"under $XDG_RUNTIME_DIR): with it the server detects a store that is not the latest")
	o.fleet.add(f)
	f.StringVar(&o.license, "license", "", "a licence, or a folder of licences, to know from the start")
	f.Var(&hostsFlag{&o.machines}, "machines",
		"how many hosts a licence may be activated on, unless \"machines\" sets it (default any)")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	cmd.PersistentFlags().StringVar(&o.data, "data", "", "the server's folder (USHER_UPSTREAM_DATA)")
	cmd.AddCommand(c.upstreamList(&o), c.upstreamSiteKey(&o), c.upstreamAdd(&o), c.upstreamRenew(&o),
		c.upstreamMachines(&o), c.upstreamForget(&o), c.upstreamForgive(&o), c.upstreamToken(&o), c.upstreamLabel(&o),
		c.upstreamRules(&o), c.upstreamFleet(&o), c.upstreamDoctor(&o),
		c.upstreamState(&o, "suspend", "Suspend a licence: its hosts learn of it with their next call"),
		c.upstreamState(&o, "resume", "End the suspension of a licence"),
		c.upstreamState(&o, "revoke", "Revoke a licence permanently"),
		c.upstreamPreview(), c.upstreamCall())
	return cmd
}

func (o *upstreamFlags) dir() (string, error) {
	if o.data == "" {
		o.data = textual.Value(os.Getenv("USHER_UPSTREAM_DATA"))
	}
	if o.data == "" {
		return "", usage("--data is missing: name the server's folder, or set USHER_UPSTREAM_DATA")
	}
	return o.data, nil
}

func (c *cli) serveUpstream(cmd *cobra.Command, o *upstreamFlags) error {
	dir, err := o.dir()
	if err != nil {
		return err
	}
	if (o.certFile == "") != (o.keyFile == "") || o.mutual && o.certFile == "" {
		return usage("--tls-cert and --tls-key go together, and --mutual-tls needs both")
	}
	site := o.key == "" && o.signer == "" && o.pools
	if site && len(o.trust) == 0 {
		return usage(
			"--trust is missing: a site server needs the vendor's public key (K.pub); the vendor's own server " +
				"needs --key")
	}
	var signer *issue.Signer
	if site {
		signer, err = siteKey(dir)
	} else {
		signer, _, err = c.loadSigner(cmd, &signFlags{key: o.key, signer: o.signer, public: o.public, alg: o.alg})
	}
	if err != nil {
		return err
	}
	if o.runtimeDir == "" {
		o.runtimeDir = upstreamRunDir()
	}
	var anchors []plugin.Anchor
	for _, file := range o.trust {
		b, err := readText(file)
		if err != nil {
			return fmt.Errorf("--trust: %w", err)
		}
		a, err := usher.NewAnchor(issue.KeyIDOf(file), b, "")
		if err != nil {
			return fmt.Errorf("--trust: %w", err)
		}
		anchors = append(anchors, a)
	}
	shared, err := o.fleet.open(o.pools, &o.blockTTL, cmd.Flags().Changed("block-ttl"))
	if err != nil {
		return err
	}
	logs := &config.Config{Log: config.Log{Level: o.logLevel, Format: o.logFormat}}
	log, _ := newLog(logs, c.queueErrors(logs))
	return registrar.Run(cmd.Context(), registrar.Config{Dir: dir, Listen: o.listen, MetricsListen: o.metrics,
		RequireEnrolment: o.enrolment, CertFile: o.certFile, KeyFile: o.keyFile, Mutual: o.mutual,
		Signer: signer, Anchors: anchors, Machines: o.machines, Log: log,
		Site: site, Pools: o.pools, BlockTTL: o.blockTTL, Licences: o.license, Uptime: agent.SinceBoot,
		RunDir: o.runtimeDir, Fleet: shared, Version: version})
}

// upstreamRunDir returns the default folder that a restart of the host empties; empty: this system has none.
func upstreamRunDir() string {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if os.Geteuid() == 0 {
		base = "/run"
	}
	if base == "" || runtime.GOOS != "linux" {
		return ""
	}
	return filepath.Join(base, naming.Program()+"-upstream")
}

// siteKey loads the key of a site server, and makes it if there is none.
func siteKey(dir string) (*issue.Signer, error) {
	file := filepath.Join(dir, "site.key")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if _, _, err := issue.MakeKey(dir, "site", ""); err != nil {
			return nil, err
		}
	}
	return issue.LoadSigner(file, "")
}

func (c *cli) upstreamSiteKey(o *upstreamFlags) *cobra.Command {
	return &cobra.Command{Use: "site-key",
		Short: "Show the key of this site server, which licences name; make one if there is none", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := o.dir()
			if err != nil {
				return err
			}
			if _, err := siteKey(dir); err != nil {
				return err
			}
			public := filepath.Join(dir, "site.pub")
			thumb, err := issue.ThumbprintOf(public)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"jkt": thumb, "public": public})
			}
			fprintf(c.out, "%s\n", thumb)
			fprintf(c.errs, "give it to the vendor for: usher vendor sign --site-server %s\n", thumb)
			return nil
		}}
}

// orderWithin is how long the server may take for an order.
const orderWithin = 30 * time.Second

// order sends an order to the running server.
func (o *upstreamFlags) order(ctx context.Context, order registry.Order) (registry.Done, error) {
	dir, err := o.dir()
	if err != nil {
		return registry.Done{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, orderWithin)
	defer cancel()
	done, err := registry.Ask(ctx, filepath.Join(dir, registrar.Socket), order)
	var unreached *net.OpError
	if errors.As(err, &unreached) {
		return done, fail(exitAgentAway, "`usher upstream --key K.key --data "+dir+"` starts it",
			"no upstream server answers in %s: %v", dir, unreached.Err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return done, fail(exitAgentAway, "look at its log, and with `usher upstream list` at what has changed",
			"the upstream server of %s does not answer within %s", dir, enforcer.Span(orderWithin))
	}
	return done, err
}

func (c *cli) upstreamList(o *upstreamFlags) *cobra.Command {
	var hosts, blocks bool
	cmd := &cobra.Command{Use: "list [--hosts | --blocks]", Short: "List the licences that the server knows",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			if blocks {
				return c.listBlocks(cmd.Context(), o)
			}
			done, err := o.order(cmd.Context(), registry.Order{Do: "list"})
			if err != nil {
				return err
			}
			if c.json {
				if done.Licences == nil {
					done.Licences = []registry.Listed{}
				}
				return c.printJSON(done.Licences)
			}
			if hosts {
				return c.listHosts(done.Licences)
			}
			rows := [][]string{{"LICENCE", "PRODUCT", "LICENSEE", "STATE", "HOSTS", "OF", "REASON"}}
			for _, l := range done.Licences {
				of := "any"
				if l.Machines > 0 {
					of = fmt.Sprint(l.Machines)
				}
				rows = append(rows, []string{l.ID, l.Product, orDash(l.Licensee), l.State, fmt.Sprint(len(l.Hosts)), of,
					orDash(l.Reason)})
			}
			return c.table(rows...)
		}}
	cmd.Flags().BoolVar(&hosts, "hosts", false, "list the hosts instead")
	cmd.Flags().BoolVar(&blocks, "blocks", false, "list the agents' blocks of slots instead")
	cmd.MarkFlagsMutuallyExclusive("hosts", "blocks")
	return cmd
}

func (c *cli) listBlocks(ctx context.Context, o *upstreamFlags) error {
	done, err := o.order(ctx, registry.Order{Do: "blocks"})
	if err != nil {
		return err
	}
	if c.json {
		if done.Blocks == nil {
			done.Blocks = []registry.OutBlock{}
		}
		return c.printJSON(done.Blocks)
	}
	rows := [][]string{{"LICENCE", "POOL", "SLOTS", "HOST", "TAKEN", "LEFT", "BLOCK"}}
	for _, b := range done.Blocks {
		rows = append(rows, []string{b.License, b.Pool, fmt.Sprint(b.Slots), short(b.Agent),
			b.Taken.Format(time.RFC3339), enforcer.Span(b.Left.Round(time.Second)), b.ID})
	}
	return c.table(rows...)
}

func (c *cli) listHosts(all []registry.Listed) error {
	now := time.Now()
	rows := [][]string{{"LICENCE", "HOST", "ACTIVATED", "SEEN", "VERSION", "USAGE", "NOTE"}}
	for _, l := range all {
		for _, h := range l.Hosts {
			var use []string
			for _, u := range h.Usage {
				use = append(use, fmt.Sprintf("%s=%d", u.Pool, u.InUse))
			}
			note := "-"
			if !h.ClonedAt.IsZero() {
				note = "a copy of it was seen " + away(h.ClonedAt, now)
			}
			for _, told := range admissionNotes(h, now) {
				note = strings.TrimPrefix(note+"; "+told, "-; ")
			}
			if n := len(h.Emergencies); n > 0 {
				last := h.Emergencies[n-1]
				told := fmt.Sprintf("emergency of %s: %s", time.Unix(last.Began, 0).UTC().Format(time.DateOnly),
					last.Reason)
				if n > 1 {
					told += fmt.Sprintf(" (%d in all)", n)
				}
				note = strings.TrimPrefix(note+"; "+told, "-; ")
			}
			rows = append(rows, []string{l.ID, short(h.AgentKey),
				h.Activated.UTC().Format(time.RFC3339), away(h.Seen, now), orDash(h.Version),
				orDash(strings.Join(use, ",")), note})
		}
	}
	return c.table(rows...)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (c *cli) upstreamAdd(o *upstreamFlags) *cobra.Command {
	var machines int64
	cmd := &cobra.Command{Use: "add FILE [--machines N]",
		Short: "Add a licence, or a later issue of one, to the server", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			done, err := o.order(cmd.Context(), registry.Order{Do: "add", Document: b, Machines: machines})
			if err != nil {
				return err
			}
			fprintf(c.out, "licence %s is known to the upstream\n", done.Licence.ID)
			return nil
		}}
	cmd.Flags().Var(&hostsFlag{&machines}, "machines",
		"how many hosts it may be activated on: a number, or any (default: as before, else as the server's --machines)")
	return cmd
}

func (c *cli) upstreamState(o *upstreamFlags, do, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: do + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := o.order(cmd.Context(), registry.Order{Do: do, ID: args[0], Reason: reason})
			if err != nil {
				return err
			}
			fprintf(c.out, "licence %s is %s; its hosts learn of it with their next call\n", done.Licence.ID,
				done.Licence.State)
			return nil
		}}
	if do != "resume" {
		cmd.Flags().StringVar(&reason, "reason", "", "a sentence for its hosts")
	}
	return cmd
}

func (c *cli) upstreamRenew(o *upstreamFlags) *cobra.Command {
	var expires string
	cmd := &cobra.Command{Use: "renew ID --expires T",
		Short: "Issue a licence again with a later end; its hosts get it with their next check-in",
		Args:  cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			order := registry.Order{Do: "renew", ID: args[0]}
			switch expires {
			case "":
				return usage("--expires is missing: give a date such as 2027-12-31, a span such as 365d, or never")
			case "never":
			default:
				at, err := parseTime(expires, time.Now(), true)
				if err != nil {
					return usage("--expires: %w", err)
				}
				order.Expires = at
			}
			done, err := o.order(cmd.Context(), order)
			if err != nil {
				return err
			}
			fprintf(c.out, "licence %s is renewed; its hosts get it with their next check-in\n", done.Licence.ID)
			return nil
		}}
	cmd.Flags().StringVar(&expires, "expires", "", "a date, a time, a span from now, or never")
	return cmd
}

func (c *cli) upstreamMachines(o *upstreamFlags) *cobra.Command {
	var n int64
	cmd := &cobra.Command{Use: "machines ID --max N", Short: "Set on how many hosts a licence may be activated",
		Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			if n == 0 {
				return usage("--max is missing: give a number of hosts, or any")
			}
			_, err := o.order(cmd.Context(), registry.Order{Do: "machines", ID: args[0], Machines: n})
			return err
		}}
	cmd.Flags().Var(&hostsFlag{&n}, "max", "a number of hosts, or any")
	return cmd
}

func (c *cli) upstreamForget(o *upstreamFlags) *cobra.Command {
	var host string
	cmd := &cobra.Command{Use: "forget ID --host KEY",
		Short: "Remove a host from a licence: one that is gone, or a copy that must start over",
		Args:  cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			if host == "" {
				return usage(
					"--host is missing: give the beginning of its key from `usher upstream list --hosts`")
			}
			done, err := o.order(cmd.Context(), registry.Order{Do: "forget", ID: args[0], Agent: host})
			if err != nil {
				return err
			}
			if done.Forgotten == 0 {
				return noSuchHost(args[0], host)
			}
			fprintf(c.out, "%d forgotten\n", done.Forgotten)
			return nil
		}}
	cmd.Flags().StringVar(&host, "host", "", "the beginning of the host's key")
	return cmd
}

// noSuchHost says that an order has done nothing.
func noSuchHost(licence, host string) error {
	return fail(exitFailed, "`usher upstream list --hosts` lists them",
		"licence %s has no host whose key begins with %q: nothing has changed", licence, host)
}

func (c *cli) upstreamPreview() *cobra.Command {
	return &cobra.Command{Use: "preview", Short: "Print the data of the agent's next call to its upstream",
		Args: cobra.NoArgs,
		Long: "Print exactly what the agent on this host would send with its next call to its upstream, apart from " +
			"the random nonce and the date. Admins only.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().UpstreamPreview(cmd.Context())
			if err != nil {
				return err
			}
			if len(all) == 0 && !c.json {
				fprintln(c.out,
					"nothing: no licence in force demands an upstream, or none is configured for its system")
				return nil
			}
			return c.printJSON(all)
		}}
}
