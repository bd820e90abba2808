package main

import (
	"io"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

func (c *cli) leasesCommand() *cobra.Command {
	var f client.LeaseFilter
	var uid int64
	var waiting bool
	cmd := &cobra.Command{Use: "leases", Short: "List your own leases, or all for an admin", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("uid") {
				of := uint32(uid)
				f.UID = &of
			}
			if waiting {
				return c.listWaiting(cmd.Context())
			}
			leases := c.client().EachLease(cmd.Context(), f)
			if c.json {
				return c.printLeasesJSON(leases)
			}
			return c.printLeases(leases)
		}}
	cmd.Flags().BoolVar(&waiting, "waiting", false, "list the acquires that wait instead, and what each waits for")
	cmd.Flags().StringVar(&f.Pool, "pool", "", "of this pool only")
	numberVar(cmd.Flags(), &uid, "uid", 0, 0, math.MaxUint32, "of this user only; another's are for admins")
	cmd.MarkFlagsMutuallyExclusive("waiting", "pool")
	cmd.MarkFlagsMutuallyExclusive("waiting", "uid")
	return cmd
}

// rowsTogether is how many rows of a long table are laid out together, and kept.
const rowsTogether = 1000

// printLeases prints a list of leases as a table, while it is read.
func (c *cli) printLeases(leases iter.Seq2[*wire.Lease, error]) error {
	now := time.Now()
	rows := [][]string{{"LEASE", "SLOTS", "LIFETIME", "STATE", "HELD FOR", "ENDS", "HOLDER"}}
	any := false
	for l, err := range leases {
		if err != nil {
			return err
		}
		any = true
		ends := "-"
		if l.ExpiresAt != nil {
			ends = away(*l.ExpiresAt, now)
		}
		if l.Lifetime == "borrow" {
			ends = timeText(l.ExpiresAt)
		}
		rows = append(rows, []string{l.ID, itemsText(l.Items), l.Lifetime, l.State, span(now.Sub(l.AcquiredAt)), ends,
			holderText(l.Holder)})
		if len(rows) >= rowsTogether {
			if err := c.table(rows...); err != nil {
				return err
			}
			rows = rows[:0]
		}
	}
	if !any {
		return fprintln(c.out, "no leases are held")
	}
	return c.table(rows...)
}

// printLeasesJSON prints a list of leases as the API has it, while it is read: what printJSON prints of the whole.
func (c *cli) printLeasesJSON(leases iter.Seq2[*wire.Lease, error]) error {
	begin, end := "{\n  \"leases\": [", "]\n}\n"
	for l, err := range leases {
		if err != nil {
			return err
		}
		text, err := jsonText(l, "    ", "  ")
		if err == nil {
			_, err = io.WriteString(c.out, begin+"\n    "+strings.TrimSuffix(text, "\n"))
		}
		if err != nil {
			return err
		}
		begin, end = ",", "\n  ]\n}\n"
	}
	if begin != "," {
		end = begin + end
	}
	_, err := io.WriteString(c.out, end)
	return err
}
