package main

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/eventlog"
	inuse "github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/textual"
)

// reportFlags say how usage is printed.
type reportFlags struct {
	hours, csv bool
	by         string // user; empty: by pool
	out        string
	force      bool
}

func (o *reportFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.hours, "hours", false, "a row for each hour, instead of one for the period")
	cmd.Flags().BoolVar(&o.csv, "csv", false, "print CSV, with a row for each hour or, by user, each day")
	cmd.Flags().StringVar(&o.by, "by", "", "user: what each user had in use, as far as privacy.users allows")
}

func (c *cli) reportCommand() *cobra.Command {
	var o reportFlags
	var since, until, nonce, pool string
	var sign bool
	cmd := &cobra.Command{
		Use: "report [--since T] [--until T] [--pool P] [--by user] [--hours | --csv | --json | --sign [--nonce N]] " +
			"[--out FILE]",
		Short: "Show what was in use, by pool and hour, or by user", Args: cobra.NoArgs,
		Long: `Show what was in use of each pool: the peak, slot-hours, time over the budget, waits, denials and
draws. Hours are UTC. No user is in it but with --by user, which says what each user had in use by whole
days, where privacy.users is pseudonym or plain. With --sign the agent signs the report with its key, for a vendor
to check with "usher vendor verify-report". Admins only.`,
		Example: `  usher report --since 30d
  usher report --since 30d --by user
  usher report --since 2027-01-01 --until 2027-02-01 --sign --out january.jws`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := client.UsageFilter{Pool: pool, Signed: sign, Nonce: nonce, ByUser: o.by != ""}
			if err := o.checkBy(); err != nil {
				return err
			}
			switch {
			case sign && (o.hours || o.csv || pool != ""):
				return usage("--sign goes without --hours, --csv and --pool: a signed report has every hour and pool")
			case nonce != "" && !sign:
				return usage("--nonce goes with --sign")
			}
			now := time.Now()
			for _, t := range []struct {
				flag, text string
				to         *time.Time
			}{{"since", cmp.Or(since, "1d"), &f.Since}, {"until", until, &f.Until}} {
				var err error
				if *t.to, err = sinceTime(t.flag, t.text, now); err != nil {
					return err
				}
			}
			u, err := c.client().Usage(cmd.Context(), f)
			if err != nil {
				return err
			}
			if u.UsersSetting == eventlog.UsersOmit {
				return errNoUsers()
			}
			if sign {
				return c.writeReport(u.Report, o)
			}
			if c.json {
				return c.printJSON(u)
			}
			m, err := inuse.Merge([]wire.Usage{*u}, now)
			if err != nil {
				return err
			}
			return c.printUsage(m, o)
		}}
	o.add(cmd)
	cmd.Flags().StringVar(&since, "since", "", "from then on: 30d and 1h ago, 2027-01-31, or 2027-01-31T18:00:00Z "+
		"(default 1d)")
	cmd.Flags().StringVar(&until, "until", "", "until then, in the same forms (default now)")
	cmd.Flags().StringVar(&pool, "pool", "", "of this pool only")
	cmd.Flags().BoolVar(&sign, "sign", false, "print a report that the agent has signed, a JWS")
	cmd.Flags().StringVar(&nonce, "nonce", "", "with --sign: a word of the vendor's, so that it is no older report")
	cmd.Flags().StringVar(&o.out, "out", "", "with --sign: the file to write to")
	cmd.Flags().BoolVar(&o.force, "force", false, "with --out: overwrite the file if it exists")
	cmd.AddCommand(c.mergeCommand())
	return cmd
}

// writeReport writes a signed report to a file, or to standard output.
func (c *cli) writeReport(report string, o reportFlags) error {
	if o.out == "" {
		return fprintln(c.out, report)
	}
	return writeOut(o.out, []byte(report+"\n"), o.force)
}

func (c *cli) mergeCommand() *cobra.Command {
	var o reportFlags
	cmd := &cobra.Command{Use: "merge FILE… [--by user] [--hours | --csv | --json]", Args: cobra.MinimumNArgs(1),
		Short: "Add up the reports of several hosts",
		Long: `Add up the reports of several hosts, signed ones (usher report --sign) and those in JSON
(usher report --json). An hour that two reports of one agent have counts once. The peaks of different
hosts need not have been at one time: their sum is the most that can have been in use together, and
AT LEAST is the largest of one host. With --by user a name is taken for one user at all hosts; pseudonyms of
different hosts are alike only where the hosts share their keys. The signature of a signed report must
match; whose key it is, "usher vendor verify-report" checks.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := o.checkBy(); err != nil {
				return err
			}
			var all []wire.Usage
			for _, name := range args {
				u, err := c.readUsage(name)
				if err != nil {
					return err
				}
				all = append(all, *u)
			}
			m, err := inuse.Merge(all, time.Now())
			if err != nil {
				return err
			}
			if c.json {
				return c.printMerged(m, o)
			}
			return c.printUsage(m, o)
		}}
	o.add(cmd)
	return cmd
}

// readUsage reads a report of either form.
func (c *cli) readUsage(name string) (*wire.Usage, error) {
	b, err := c.readFile(name)
	if err != nil {
		return nil, fmt.Errorf("report %s: %w", name, err)
	}
	if !strings.HasPrefix(strings.TrimSpace(string(b)), "{") {
		r, err := inuse.ReadReport(b)
		if err != nil {
			return nil, fmt.Errorf("report %s: %w", name, err)
		}
		u := r.Usage()
		return &u, nil
	}
	var u wire.Usage
	if err := json.Unmarshal(b, &u); err != nil {
		return nil, fmt.Errorf("report %s: it is not what usher report --json writes: %w", name, err)
	}
	if u.Report != "" {
		return nil, fmt.Errorf("report %s: it has a signed report in it; write that alone, with usher report --sign",
			name)
	}
	return &u, nil
}

// mergedReport is a merge in JSON.
type mergedReport struct {
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to"`
	Agents   []inuse.Source `json:"agents"`
	Rows     []mergedRow    `json:"rows"`
	Users    []userRow      `json:"users,omitempty"` // with --by user
	Warnings []string       `json:"warnings"`
}

type mergedRow struct {
	Hour time.Time `json:"hour"`
	Pool string    `json:"pool"`
	wire.PoolUsage
	LeastPeak int64 `json:"peak_at_least"` // the largest of one host; peak is the sum of the hosts' peaks
	Hosts     int   `json:"hosts"`
}

// printMerged prints a merge in JSON.
func (c *cli) printMerged(m *inuse.Merged, o reportFlags) error {
	out := mergedJSON(m)
	if o.by != "" {
		if err := hasUsers(m); err != nil {
			return err
		}
		for _, r := range m.Users {
			out.Users = append(out.Users, userRow(r))
		}
	}
	return c.printJSON(out)
}

func mergedJSON(m *inuse.Merged) mergedReport {
	out := mergedReport{From: m.From, To: m.To, Agents: m.Agents, Rows: []mergedRow{}, Warnings: m.Warnings}
	for _, r := range m.Rows {
		out.Rows = append(out.Rows, mergedRow(r))
	}
	return out
}

// printUsage prints usage for people, or as CSV.
func (c *cli) printUsage(m *inuse.Merged, o reportFlags) error {
	if o.by != "" {
		return c.printUsers(m, o)
	}
	if o.csv {
		return c.usageCSV(m)
	}
	several := len(m.Agents) > 1
	head := []string{"POOL", "LIMIT", "PEAK", "SLOT-HOURS", "OVER", "WAITS", "LONGEST", "DENIED", "TRUE", "FALSE",
		"DRAWN"}
	if several {
		head = slices.Insert(head, 3, "AT LEAST")
	}
	var rows [][]string
	if o.hours {
		rows = append(rows, append([]string{"HOUR"}, head...))
		for _, r := range m.Rows {
			rows = append(rows, append([]string{hourText(r.Hour)}, usageCells(r, several)...))
		}
	} else {
		totals, busiest := m.Totals()
		rows = append(rows, append(head, "BUSIEST"))
		for _, r := range totals {
			rows = append(rows, append(usageCells(r, several), hourText(busiest[r.Pool])))
		}
	}
	fprintf(c.out, "from %s to %s\n", hourText(m.From), hourText(m.To))
	if len(rows) == 1 {
		fprintln(c.out, "nothing was in use")
	} else if err := c.table(rows...); err != nil {
		return err
	}
	if several {
		fprintf(c.out, "PEAK is the sum of the peaks of %d agents, which need not have been at one time\n",
			len(m.Agents))
	}
	c.sayGaps(m)
	return nil
}

// sayGaps says what the figures leave out.
func (c *cli) sayGaps(m *inuse.Merged) {
	for _, a := range m.Agents {
		var total float64
		for _, g := range a.Gaps {
			total += g.Seconds
		}
		if total == 0 {
			continue
		}
		fprintf(c.out, "agent %s on host %s: for %s of the period nobody counted:\n", short(a.AgentKey), dash(a.Host),
			span(time.Duration(total*float64(time.Second))))
		for i, g := range a.Gaps {
			if i == 10 {
				fprintf(c.out, "  and %d stretches more\n", len(a.Gaps)-i)
				break
			}
			fprintf(c.out, "  %s of %s to %s\n", span(time.Duration(g.Seconds*float64(time.Second))), hourText(g.From),
				g.To.UTC().Format("2006-01-02 15:04"))
		}
	}
	for _, w := range m.Warnings {
		fprintf(c.errs, "warning: %s\n", w)
	}
}

func hourText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// usageCells are the cells of a row.
func usageCells(r inuse.Row, several bool) []string {
	pool := r.Pool
	if pool == "" {
		pool = "(others)"
	}
	out := []string{pool, limitText(r.Limit), peakText(r.Peak, r.Meter)}
	if several {
		out = append(out, peakText(r.LeastPeak, r.Meter))
	}
	over := "-"
	if r.OverSeconds > 0 {
		over = fmt.Sprintf("%d for %s", r.OverPeak, span(time.Duration(r.OverSeconds*float64(time.Second))))
	}
	longest := "-"
	if r.Waits > 0 {
		longest = enforcer.Span(time.Duration(r.LongestWait * float64(time.Second)).Round(time.Second))
	}
	var denied int64
	for _, n := range r.Denials {
		denied += n
	}
	count := func(n int64) string { return dash(strings.TrimPrefix(strconv.FormatInt(n, 10), "0")) }
	return append(out, strconv.FormatFloat(r.SlotSeconds/3600, 'f', 2, 64), over, count(r.Waits), longest,
		count(denied),
		count(r.TrueDenials), count(r.FalseDenials), count(r.Drawn))
}

func peakText(n int64, meter bool) string {
	if meter {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

// csvText is a foreign text for a cell: no spreadsheet takes it as a formula.
func csvText(s string) string {
	if s = textual.Printable(s); s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}

// usageCSV prints a row for each hour and pool (RFC 4180).
func (c *cli) usageCSV(m *inuse.Merged) error {
	var text strings.Builder
	w := csv.NewWriter(&text)
	rows := [][]string{{"hour", "pool", "hosts", "limit", "budget", "peak", "peak_at_least", "slot_seconds",
		"over_peak",
		"over_seconds", "over_slot_seconds", "grants", "drawn", "waits", "wait_seconds", "longest_wait_seconds",
		"true_denials", "false_denials", "denials"}}
	for _, r := range m.Rows {
		var denied []string
		for _, code := range enforcer.DenialCodes() {
			if n := r.Denials[string(code)]; n > 0 {
				denied = append(denied, fmt.Sprintf("%s=%d", code, n))
			}
		}
		whole := func(n int64) string { return strconv.FormatInt(n, 10) }
		part := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
		rows = append(rows, []string{r.Hour.Format(time.RFC3339), csvText(r.Pool), strconv.Itoa(r.Hosts),
			limitText(r.Limit),
			limitText(r.Budget), whole(r.Peak), whole(r.LeastPeak), part(r.SlotSeconds), whole(r.OverPeak),
			part(r.OverSeconds), part(r.OverSlotSeconds), whole(r.Grants), whole(r.Drawn), whole(r.Waits),
			part(r.WaitSeconds), part(r.LongestWait), whole(r.TrueDenials), whole(r.FalseDenials),
			strings.Join(denied, " ")})
	}
	if err := w.WriteAll(rows); err != nil {
		return err
	}
	return lines(c.out, text.String())
}
