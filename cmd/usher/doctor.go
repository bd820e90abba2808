package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/repair"
	"github.com/usher-agent/usher/cmd/usher/internal/doctor"
)

func (c *cli) doctorCommand() *cobra.Command {
	var repair bool
	var as string
	var src *source
	cmd := &cobra.Command{Use: "doctor [--repair]", Short: "Find faults, and say how to mend them",
		Args: cobra.NoArgs,
		Long: `Look at the configuration, the agent's folders, its socket, addresses, plugins and journals,
the way to its upstream, the clock and the host, and, where the agent runs, at what it says of itself and
its licence. The worst comes first, and a cause before what follows from it: the first line names the cause
and its mend. The command needs no running agent, and changes nothing. Run it as root to have everything
looked at as the agent's user would. Exits 1 when something is bad. docs/doctor.md has all findings.

With --repair, while no agent runs, mend damaged journals. Every record that its checksum proves stays, a record
with a single wrong bit is corrected, and the damaged file is set aside. The command replays the rest before it
takes the journal's place, so that the agent starts on it. It never undoes a draw. As root, it keeps the owner of
the files. It accepts state that is not as the agent left it, and the event log says so; draws, refusals and returns
stand as last known.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if repair {
				return c.repair(src)
			}
			if _, _, err := src.origin(c); err != nil {
				return err
			}
			found := c.examine(cmd, src, as)
			if c.json {
				if err := c.printJSON(found); err != nil {
					return err
				}
			} else {
				for _, f := range found {
					fprintln(c.out, f)
				}
			}
			if doctor.HasBad(found) {
				return &exit{code: exitFailed}
			}
			return nil
		}}
	src = c.configSource(cmd)
	cmd.Flags().BoolVar(&repair, "repair", false, "mend damaged journals, while no agent runs")
	cmd.Flags().StringVar(&as, "as", "", "try the socket as this user, the product's (as root)")
	return cmd
}

// examine makes every check that this command can make.
func (c *cli) examine(cmd *cobra.Command, src *source, as string) []doctor.Finding {
	o := doctor.Options{Version: version, Socket: c.socket, Usual: c.socketPath(), As: as, Within: c.timeout,
		Template: c.units.Template()}
	src.doctor = true
	file, _, located := src.origin(c) // that it cannot be found, Load says
	o.File, o.Unit = file, src.unit
	o.Load = func() (*config.Config, error) {
		if located != nil {
			return nil, located
		}
		return src.load(c)
	}
	if c.socket == "" && c.instance == "" {
		o.Exported = os.Getenv("USHER_SOCKET")
	}
	return doctor.Examine(cmd.Context(), o)
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
