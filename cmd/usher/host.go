package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/host"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/textual"
)

func (c *cli) fingerprintCommand() *cobra.Command {
	var product, request string
	var short bool
	cmd := &cobra.Command{Use: "fingerprint [--product P] [--request FILE | --short]",
		Short: "Show this host's fingerprint", Args: cobra.NoArgs,
		Long: `Show what identifies this host: components, each as a hash that is keyed by product, so that no
serial number leaves the host. --request writes the file that a vendor binds a licence to, with the
running agent's key; --short prints a code to compare over the phone. Without an agent this command
measures the host itself, and the request bears no agent key.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := c.client().Fingerprint(cmd.Context(), product)
			switch {
			case errors.Is(err, client.ErrAgentAway) && !errors.Is(err, context.DeadlineExceeded):
				named, key := "", ""
				if cfg, err := c.configured("", os.Environ()); err == nil {
					product, named = cmp.Or(product, cfg.Product.Name()), cfg.Host.Fingerprint
					key = inspect.For(cfg).KeyID
				}
				if product == "" {
					return fail(exitUsage, "each product has its own fingerprint",
						"no agent answers on %s to name the product; give --product", c.client().Socket())
				}
				shape := host.Measure(cmd.Context(), host.Config{Product: product, Fingerprint: named,
					AgentKey: key}).Shape("")
				f = &shape
				if request != "" {
					fprintln(c.errs,
						"warning: no agent answers, so the request bears no agent key; start the agent first if the "+
							"licence is to be bound to it")
				}
			case err != nil:
				return err
			}
			switch {
			case request == "-":
				return c.printJSON(f)
			case request != "":
				return c.writeRequest(request, f)
			case short && f.Short == "":
				return fail(exitFailed,
					"start the agent, whose key tells the host from others, or give it a machine-id",
					"nothing that this user can read tells this host from others, so it has no code")
			case short:
				fprintln(c.out, f.Short)
				return nil
			case c.json:
				return c.printJSON(f)
			}
			return c.printFingerprint(f)
		}}
	cmd.Flags().StringVar(&product, "product", "", "the product (default: the agent's)")
	cmd.Flags().StringVar(&request, "request", "", "write a request for a vendor to this file; - is standard output")
	cmd.Flags().BoolVar(&short, "short", false, "print a short code, with a checksum, to read over the phone")
	cmd.MarkFlagsMutuallyExclusive("request", "short")
	return cmd
}

// isRequest reports whether a file is an earlier request, which a new one may replace.
func isRequest(file []byte) bool {
	var f wire.Fingerprint
	return json.Unmarshal(textual.JSON(file), &f) == nil && f.Product != ""
}

func (c *cli) writeRequest(path string, f *wire.Fingerprint) error {
	if was, err := readText(path); err == nil && len(was) > 0 && !isRequest(was) {
		return fail(exitFailed, "choose another name for --request", "%s exists, and is no request", path)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return unwritten("--request", path, err)
	}
	to := &cli{out: file}
	if err := errors.Join(to.printJSON(f), file.Close()); err != nil {
		return unwritten("--request", path, err)
	}
	fprintf(c.out, "%s  for product %s, code %s; send it to the vendor\n", path, f.Product, dash(f.Short))
	return nil
}

func (c *cli) printFingerprint(f *wire.Fingerprint) error {
	rows := [][]string{{"COMPONENT", "VALUE", "NOTE"}}
	for _, k := range f.Components {
		if len(k.Values) == 0 {
			rows = append(rows, []string{k.Name, "absent", k.Absent})
		}
		for _, v := range k.Values {
			note := k.Note
			if k.Configured {
				note = "stated by host.components"
			}
			rows = append(rows, []string{k.Name, v[:min(16, len(v))] + "…", note})
		}
	}
	if err := c.table(rows...); err != nil {
		return err
	}
	fprintln(c.out)
	return c.table([]string{"product", dash(f.Product)}, []string{"code", dash(f.Short)},
		[]string{"cores", fmt.Sprintf("%d physical, %d logical, %g effective", f.Cores.Physical, f.Cores.Logical,
			f.Cores.Effective)},
		[]string{"virtual machine", yesNo(f.Virtual)}, []string{"container", yesNo(f.Container)},
		[]string{"agent key", dash(f.AgentKey)}, []string{"fingerprint", dash(f.Fingerprint)})
}

func yesNo(s string) string {
	switch s {
	case "":
		return "no"
	case "unknown":
		return "yes, of an unknown kind"
	}
	return "yes, " + s
}
