package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/cmd/usher/internal/options"
)

type importFlags struct {
	from, out string
	force     bool
	pools     []string // FEATURE=POOL
	all       []string
}

func (c *cli) importOptionsCommand() *cobra.Command {
	var o importFlags
	cmd := &cobra.Command{Use: "import-options FILE",
		Short: "Turn an options file of FlexNet or RLM into policies", Args: cobra.ExactArgs(1),
		Long: `Read the options file of a FlexNet vendor daemon or of an RLM ISV server, and write the groups and
policies that do the same, for usher.yaml. Each line of the file stands there as a comment, above the
rule that it became, or above what was not carried over, why, and what to do instead. A line that
cannot be right is an error, and then nothing is written.

FILE may be - for standard input. Without --from the file tells what it is for.`,
		Example: "  usher import-options acme.opt --out policies.yaml\n  usher import-options acme.opt --from rlm " +
			"--pool CAD_Pro=cad --pools cad,render",
		RunE: func(_ *cobra.Command, args []string) error { return c.importOptions(args[0], &o) }}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "the system that the file is for: flexnet or rlm (default: found out)")
	f.StringVar(&o.out, "out", "", "the file to write (default standard output)")
	f.BoolVar(&o.force, "force", false, "overwrite the file if it exists")
	f.StringArrayVar(&o.pools, "pool", nil,
		"FEATURE=POOL: the pool of a feature that has another name there; may be repeated")
	f.StringSliceVar(&o.all, "pools", nil,
		"the names of all pools of the licence, for lines that are for all features but some")
	return cmd
}

// settings returns what the flags say of pools.
func (o *importFlags) settings() (s options.Settings, err error) {
	s.All = o.all
	s.Pools = map[string]string{}
	for _, p := range o.pools {
		// A feature may have = in it: f1:VERSION=2.0=POOL.
		at := strings.LastIndexByte(p, '=')
		if at <= 0 || at == len(p)-1 {
			return s, usage("--pool: %q is not FEATURE=POOL", p)
		}
		s.Pools[p[:at]] = p[at+1:]
	}
	if slices.Contains(o.all, "") {
		return s, usage("--pools has an empty name; leave it out")
	}
	return s, nil
}

func (c *cli) importOptions(path string, o *importFlags) error {
	from := options.System(strings.ToLower(o.from))
	if from != "" && from != options.FlexNet && from != options.RLM {
		return fail(exitUsage, "it is flexnet or rlm", "--from: there is no system %q whose options files are read",
			o.from)
	}
	settings, err := o.settings()
	if err != nil {
		return err
	}
	data, err := c.readBounded(path, options.MaxFile)
	if err != nil {
		return err
	}
	name := path
	if path == "-" {
		name = "standard input"
	}
	file, err := options.Parse(name, data, from)
	if err != nil {
		return err
	}
	made, err := options.Carry(file, settings)
	if err != nil {
		return err
	}
	text := made.Write(naming.Program())
	switch {
	case o.out != "" && o.out != "-":
		if err := writeOut(o.out, []byte(text), o.force); err != nil {
			return err
		}
	case !c.json:
		// As it is: the names in it are none of the program's.
		if err := lines(c.childOut, text); err != nil {
			return err
		}
	}
	return c.sayImported(made, text, o)
}

// sayImported tells what was carried over, and what not.
func (c *cli) sayImported(m *options.Import, text string, o *importFlags) error {
	not, partly := m.Count(options.Not), m.Count(options.Partly)
	if c.json {
		v := map[string]any{"system": m.File.System, "options": m.Options, "groups": len(m.Groups),
			"rules":        len(m.Rules),
			"carried_over": m.Options - not - partly, "in_part": partly, "not_carried_over": not, "remarks": m.Remarks}
		if o.out == "" || o.out == "-" {
			v["yaml"] = text
		} else {
			v["file"] = o.out
		}
		return c.printJSON(v)
	}
	for _, r := range m.Remarks {
		fprintf(c.errs, "%s:%d: %s\n", m.File.Name, r.Line, r.Text())
	}
	if m.File.Guessed {
		fprintf(c.errs, "read as an options file of %s; --from says otherwise\n", m.File.System.Title())
	}
	var err error
	if o.out != "" && o.out != "-" {
		err = errors.Join(err, fprintf(c.out, "%s  %s\n", o.out, m.Summary()))
	} else {
		fprintf(c.errs, "%s\n", m.Summary())
	}
	return err
}
