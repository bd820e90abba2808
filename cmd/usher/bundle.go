package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/redact"
)

func (c *cli) bundleCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "support-bundle [--out FILE]",
		Short: "Write the facts that a vendor's support needs, without secrets", Args: cobra.NoArgs,
		Long: `Write a .tar.gz with the licence's state, pools, leases, configuration, metrics, fingerprint and the
doctor's findings. It leaves out keys, e-mail addresses, licensees' own terms, and the users and
labels of holders. Look into it before you send it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				out = naming.Program() + "-support-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
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
		"the file to write; - is standard output (default "+naming.Program()+"-support-TIME.tar.gz)")
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
			return 0, unwritten("--out", path, err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	z := gzip.NewWriter(to)
	t := tar.NewWriter(z)
	now := time.Now()
	add := func(name string, data []byte) {
		if err == nil {
			err = t.WriteHeader(&tar.Header{Name: naming.Program() + "-support/" + name, Mode: 0o644,
				Size:    int64(len(data)),
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
	part("doctor", func() (any, error) { return c.examine(cmd, &source{}, ""), nil })
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
