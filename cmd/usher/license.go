package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

func (c *cli) licenseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "license", Aliases: []string{"licence"},
		Short: "Show, install and remove licences"}
	cmd.AddCommand(c.inspectCommand(), c.installCommand(), c.listCommand(), c.removeCommand(), c.rollbackCommand(),
		c.returnCommand(), c.releaseHostCommand())
	return cmd
}

type inspectFlags struct {
	config, fingerprint, at, product string
	keyFile, hostFingerprint         string
	trust                            []string
}

func (c *cli) inspectCommand() *cobra.Command {
	var o inspectFlags
	cmd := &cobra.Command{Use: "inspect FILE", Short: "Show a document's terms, and whether it verifies",
		Args: cobra.ExactArgs(1),
		Long: `Read a licence document without an agent: what it says, whether it verifies, and if not, why.
Without --trust and --config, the keys are those that are compiled in, or those of ` + naming.Config() +
			` if it exists. Exits 0 only when the document verifies and is good at
the time (--at), 3 otherwise.`,
		Example: "  usher license inspect acme.lic --trust usher=2026-a.pub\n  usher license inspect machine.lic " +
			"--trust SYSTEM=account.pub --key-file licence.key",
		RunE: func(_ *cobra.Command, args []string) error { return c.inspect(args[0], &o) }}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "a configuration to take keys, product and narrowing from")
	f.StringArrayVar(&o.trust, "trust", nil, "a key to trust: SYSTEM[:KID][@ALG]=KEYFILE; may be repeated")
	f.StringVar(&o.keyFile, "key-file", "",
		"a file of licence keys to open an encrypted document with; - is standard input")
	f.StringVar(&o.hostFingerprint, "host-fingerprint", "",
		"the licence system's name for the host, for machine files (default: from usher fingerprint)")
	f.StringVar(&o.fingerprint, "fingerprint", "",
		"judge for the host and the agent key of this request instead of these here")
	f.StringVar(&o.product, "product", "", "judge for this product (default: the document's own)")
	f.StringVar(&o.at, "at", "", "judge at this time (default now)")
	return cmd
}

func emptyDocument(code int, path string) error {
	return fail(code, "copy the licence file again, as the vendor sent it", "%s is empty", path)
}

func (c *cli) inspect(path string, o *inspectFlags) error {
	doc, err := c.readFile(path)
	if err != nil {
		return err
	}
	if len(doc) == 0 {
		return emptyDocument(exitNotValid, path)
	}
	now := time.Now()
	if o.at != "" {
		if now, err = parseTime(o.at, now, false); err != nil {
			return usage("--at: %w", err)
		}
	}
	cfg := config.Default()
	if o.config != "" || len(o.trust) == 0 {
		if cfg, err = c.configured(o.config, nil); err != nil {
			return &exit{code: exitConfig, cause: err}
		}
	}
	anchors, vendor, err := inspect.Anchors(cfg)
	if err != nil {
		return &exit{code: exitConfig, cause: err}
	}
	for _, t := range o.trust {
		a, err := trustFlag(t)
		if err != nil {
			return err
		}
		anchors = append(anchors, a)
	}
	products := []string(cfg.Product)
	if vendor != "" {
		products = []string{vendor}
	}
	if o.product != "" {
		products = []string{o.product}
	}
	if o.hostFingerprint != "" {
		cfg.Host.Fingerprint = o.hostFingerprint
	}
	var on *enforcer.Host
	var agentKey string
	if o.fingerprint != "" {
		if on, agentKey, err = hostOf(o.fingerprint, cfg); err != nil {
			return err
		}
	}
	keys, err := c.licenseKeys(o.keyFile, path, cfg)
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	v, err := inspect.For(cfg).Judge(inspect.Question{Documents: []inspect.Document{{Name: name, Data: doc}},
		Anchors:     anchors,
		LicenseKeys: keys, Products: products, Host: on, AgentKey: agentKey, Now: now})
	if err != nil {
		return &exit{code: exitConfig, cause: err}
	}
	judged := v.Verdict.Licenses[0]
	shape := claimedShape(judged, name, doc, anchors)
	if c.json {
		err = c.printJSON(shape)
	} else {
		err = c.printDocument(shape, now)
	}
	for _, s := range unhelpful(judged.License) {
		fprintln(c.errs, "warning: "+s)
	}
	good := judged.License != nil && (judged.Code == enforcer.Valid || judged.Code == enforcer.ValidInGrace)
	if err == nil && !good {
		err = &exit{code: exitNotValid}
	}
	return err
}

// claimedShape returns the shape of a judged document. If it is not verified, its own claims, marked so, help to
// recognise it.
func claimedShape(judged enforcer.Judged, name string, doc []byte, anchors []plugin.Anchor) wire.Document {
	shape := api.DocumentShape(judged)
	if shape.Verified {
		return shape
	}
	doc = catalog.BuiltIn().Read(doc)
	f, err := catalog.BuiltIn().Recognise(doc)
	if err != nil {
		return shape
	}
	l, _ := f.Verify(doc, anchors)
	if l == nil {
		return shape
	}
	claimed := api.DocumentShape(enforcer.Judged{Document: name, License: l, Role: l.Role})
	claimed.Code, claimed.Reason, claimed.Findings, claimed.Hint, claimed.Verified = shape.Code, shape.Reason,
		shape.Findings, shape.Hint, false
	return claimed
}

// licenseKeys returns the licence keys that the command line, the configuration and a file beside the document name.
func (c *cli) licenseKeys(keyFile, document string, cfg *config.Config) (keys []string, err error) {
	read := func(what, path string) error {
		b, err := c.readFile(path)
		if err != nil {
			return err
		}
		more, err := plugin.LicenseKeys(b)
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, path, err)
		}
		keys = append(keys, more...)
		return nil
	}
	if keyFile != "" {
		err = read("--key-file", keyFile)
		return keys, err
	}
	if cfg.License.KeyFile != "" {
		err = read("license.key_file", cfg.License.KeyFile)
	}
	if beside := keyBeside(document); err == nil && document != "-" && document != beside && isRegular(beside) {
		err = read("licence key", beside)
	}
	return keys, err
}

// keyBeside returns the file of a document's licence key.
func keyBeside(document string) string {
	return strings.TrimSuffix(document, filepath.Ext(document)) + ".key"
}

func isRegular(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

func trustFlag(s string) (plugin.Anchor, error) {
	system, file, ok := strings.Cut(s, "=")
	if !ok {
		return plugin.Anchor{}, usage("--trust: %q is not SYSTEM[:KID][@ALG]=KEYFILE, such as usher=2026-a.pub", s)
	}
	system, alg, _ := strings.Cut(system, "@")
	system, kid, _ := strings.Cut(system, ":")
	if kid == "" {
		kid = issue.KeyIDOf(file)
	}
	b, err := readText(file)
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("--trust: %w", err)
	}
	a, err := catalog.Anchor(system, kid, b, alg)
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("--trust %s: %w", file, err)
	}
	return a, nil
}

// hostOf reads a host, and the thumbprint of its agent's key, from a request that `usher fingerprint --request` wrote.
func hostOf(path string, cfg *config.Config) (*enforcer.Host, string, error) {
	b, err := readText(path)
	if err != nil {
		return nil, "", fmt.Errorf("--fingerprint: %w", err)
	}
	var f wire.Fingerprint
	if err := json.Unmarshal(textual.JSON(b), &f); err != nil {
		return nil, "", fmt.Errorf("--fingerprint %s: it is not a file of `usher fingerprint --request`", path)
	}
	h := &enforcer.Host{Components: map[string][]string{}, Configured: map[string][]string{},
		Absent: map[string]string{}, Physical: f.Cores.Physical, Logical: f.Cores.Logical, Effective: f.Cores.Effective}
	for _, k := range f.Components {
		switch {
		case k.Configured:
			h.Configured[k.Name] = k.Values
		case len(k.Values) > 0:
			h.Components[k.Name] = k.Values
		default:
			h.Absent[k.Name] = k.Absent
		}
	}
	if f.Fingerprint != "" {
		cfg.Host.Fingerprint = cmp.Or(cfg.Host.Fingerprint, f.Fingerprint)
		maps.Copy(h.Components, catalog.HostComponents(cfg.Host.Fingerprint))
		return h, f.AgentKey, nil
	}
	for _, name := range catalog.HostComponentNames() {
		h.Absent[name] = "the request does not name the host by one text"
	}
	return h, f.AgentKey, nil
}

func (c *cli) printDocument(d wire.Document, now time.Time) error {
	verified := "verified"
	if !d.Verified {
		verified = "NOT VERIFIED: all that follows is the document's own claim"
	}
	fprintf(c.out, "%s: %s\n%s\n", d.Document, d.Code, d.Reason)
	if d.Hint != "" && !strings.Contains(d.Reason, d.Hint) {
		fprintf(c.out, "hint: %s\n", d.Hint)
	}
	for _, f := range d.Findings {
		if f.Reason != d.Reason {
			fprintf(c.out, "and: %s: %s\n", f.Code, f.Reason)
		}
	}
	switch {
	case d.ID == "" && d.Verified: // it is encrypted
		return c.table([]string{"", ""}, []string{"signature", verified}, []string{"system", d.System})
	case d.System == "" || d.ID == "":
		return nil
	}
	rows := [][]string{{"", ""}, {"signature", verified}, {"system", d.System}, {"licence", d.ID},
		{"product", dash(d.Product)}, {"licensee", dash(d.Licensee)}, {"issuer", dash(d.Issuer)},
		{"key", dash(d.KeyID)}, {"issued", timeText(d.IssuedAt)}}
	if d.NotBefore != nil {
		rows = append(rows, []string{"good from", timeText(d.NotBefore)})
	}
	expires := "never"
	if d.ExpiresAt != nil {
		expires = timeText(d.ExpiresAt) + ", " + away(*d.ExpiresAt, now)
	}
	rows = append(rows, []string{"expires", expires})
	var limits, features []string
	for name, n := range d.Limits {
		limits = append(limits, name+"="+limitText(n))
	}
	for name, f := range d.Features {
		features = append(features, name+"="+featureText(f))
	}
	slices.Sort(limits)
	slices.Sort(features)
	rows = append(rows, []string{"limits", dash(strings.Join(limits, ", "))},
		[]string{"features", dash(strings.Join(features, ", "))})
	rows = append(rows, conditionRows(d.Conditions)...)
	if err := c.table(rows...); err != nil || d.System == usher.System {
		return err
	}
	fprintln(c.out, "\nthe whole document:")
	for _, line := range flatten("", d.Terms) {
		fprintln(c.out, "  "+line)
	}
	return nil
}

// flatten writes terms as lines, one for each value: "data.attributes.maxMachines = 5".
func flatten(at string, v any) (out []string) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, flatten(strings.TrimPrefix(at+"."+k, "."), v[k])...)
		}
	case []any:
		for i, x := range v {
			out = append(out, flatten(fmt.Sprintf("%s[%d]", at, i), x)...)
		}
	case string:
		out = append(out, fmt.Sprintf("%s = %q", at, v))
	case float64:
		out = append(out, at+" = "+strconv.FormatFloat(v, 'f', -1, 64))
	case nil:
		out = append(out, at+" = none")
	default:
		out = append(out, fmt.Sprintf("%s = %v", at, v))
	}
	return out
}

func (c *cli) installCommand() *cobra.Command {
	var dryRun bool
	var name, key string
	cmd := &cobra.Command{Use: "install FILE|- [--dry-run] [--key FILE|-]",
		Short: "Put a licence into the agent's folder", Args: cobra.ExactArgs(1),
		Long: `Have the agent verify a licence and put it into its folder. With --dry-run only say what would
change. An encrypted document needs a licence key: --key has the agent keep it beside the document,
in a file that nobody else can read.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			if len(doc) == 0 {
				return emptyDocument(exitFailed, args[0])
			}
			if key != "" {
				if name == "" && args[0] != "-" {
					name = filepath.Base(args[0])
				}
				return c.installWithKey(cmd.Context(), doc, name, key)
			}
			r, err := c.client().Install(cmd.Context(), doc, name, dryRun)
			if err != nil {
				return err
			}
			return c.printInstalled(r)
		}}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would change, and change nothing")
	cmd.Flags().StringVar(&name, "name", "", "the file's name in the folder (default: made from the licence's id)")
	cmd.Flags().StringVar(&key, "key", "", "a file with the licence key that opens the document; - is standard input")
	cmd.MarkFlagsMutuallyExclusive("key", "dry-run")
	return cmd
}

// installWithKey installs a licence key and the document that it opens. It removes the key if that fails.
func (c *cli) installWithKey(ctx context.Context, doc []byte, name, keyFile string) error {
	if name == "" {
		return usage("--key: give the document's name in the folder too (--name)")
	}
	key, err := c.readFile(keyFile)
	if err != nil {
		return err
	}
	beside := keyBeside(name)
	if _, err := c.client().Install(ctx, key, beside, false); err != nil {
		return err
	}
	r, err := c.client().Install(ctx, doc, name, false)
	if err != nil {
		return errors.Join(err, c.client().Remove(ctx, beside))
	}
	return c.printInstalled(r)
}

func (c *cli) listCommand() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the documents in the folder, and the verdict on each",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := c.client().License(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(l.Licenses)
			}
			if len(l.Licenses) == 0 {
				fprintln(c.out, "there are no documents in the licence folder")
				return nil
			}
			rows := [][]string{{"DOCUMENT", "LICENCE", "ROLE", "IN FORCE", "EXPIRES", "CODE"}}
			for _, d := range l.Licenses {
				force := "no"
				if d.InForce {
					force = "yes"
				}
				expires := "-"
				if d.Verified && d.ID != "" { // the content of an encrypted one may be unknown
					if expires = "never"; d.ExpiresAt != nil {
						expires = d.ExpiresAt.UTC().Format(time.DateOnly)
					}
				}
				rows = append(rows, []string{d.Document, dash(d.ID), dash(d.Role), force, expires, d.Code})
			}
			if err := c.table(rows...); err != nil {
				return err
			}
			for _, d := range l.Licenses {
				if d.Code != "VALID" {
					fprintf(c.out, "\n%s", d.Reason)
					if d.Hint != "" && !strings.Contains(d.Reason, d.Hint) {
						fprintf(c.out, "; %s", d.Hint)
					}
					fprintln(c.out)
				}
			}
			return nil
		}}
}

func (c *cli) removeCommand() *cobra.Command {
	return &cobra.Command{Use: "remove FILE|ID",
		Short: "Remove a document from the folder, by its name or its licence's id", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := c.client().License(cmd.Context())
			if err != nil {
				return err
			}
			name := args[0]
			if !slices.ContainsFunc(l.Licenses, func(d wire.Document) bool { return d.Document == name }) {
				for _, d := range l.Licenses {
					if d.ID == args[0] {
						name = d.Document
					}
				}
			}
			if err := c.client().Remove(cmd.Context(), name); err != nil {
				return err
			}
			fprintf(c.out, "%s removed; `usher license rollback %s` brings it back\n", name, shellWord(name))
			return nil
		}}
}

func (c *cli) rollbackCommand() *cobra.Command {
	return &cobra.Command{Use: "rollback [FILE]", Short: "Undo the last install or remove", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			r, err := c.client().Rollback(cmd.Context(), name)
			if err != nil {
				return err
			}
			return c.printRolledBack(r)
		}}
}
