package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/leaselog"
)

// historyLength is the number of events that history shows unless it is told another.
const historyLength = 50

// mostHistory is the most events that history shows.
const mostHistory = 1_000_000

func (c *cli) historyCommand() *cobra.Command {
	var dir string
	var n int
	var since string
	cmd := &cobra.Command{Use: "history [--number N] [--since T] [--config FILE | --dir DIR]",
		Short: "Show what has happened, from the event log", Args: cobra.NoArgs,
		Long: `Show the newest events of the log in the agent's state folder, the newest last: changes of the licence
and its documents, of the configuration and the upstream, what admins have done, and starts. It
needs no agent, and the right to read the folder. Denials are there, too: the first of a pool, code and
user, and then how many more there were, once an hour. Each grant and each end of a lease is there
where the configuration says events.leases: true; "usher events -f" shows leases as they come and
go. "usher events verify" says whether somebody has changed the log.`}
	src := c.configSource(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if since != "" && !cmd.Flags().Changed("number") {
			n = mostHistory
		}
		return c.showHistory(src, dir, since, n)
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the folder of the event log")
	numberVar(cmd.Flags(), &n, "number", historyLength, 1, mostHistory, "how many events to show")
	cmd.Flags().StringVar(&since, "since", "",
		"show only what happened since then: 1h and 3d ago, 2027-01-31, or 2027-01-31T18:00:00Z")
	return cmd
}

// showHistory prints the last n events of the log in a folder, or where the configuration has it, since a time.
func (c *cli) showHistory(src *source, dir, since string, n int) error {
	from, err := sinceTime("since", since, time.Now())
	if err != nil {
		return err
	}
	if dir == "" {
		cfg, err := src.load(c)
		if err != nil {
			return err
		}
		dir = filepath.Join(cfg.State.Dir, audit.Folder)
	}
	if _, err := os.ReadDir(dir); err != nil {
		return fail(exitFailed, "run it as the agent's user or root; --config or --dir says where the log lies",
			"event log: %w", err)
	}
	past, err := readPast(dir, from, n)
	for _, p := range past {
		switch {
		case c.json && p.event != nil:
			err = errors.Join(err, c.printLine(p.event))
		case c.json:
			err = errors.Join(err, c.printLine(p.lease))
		default:
			fprintln(c.out, p.text())
		}
	}
	var broken *eventlog.Broken
	if errors.As(err, &broken) {
		return fail(exitFailed, "`usher events verify` says more; the lines after that one are not shown",
			"the event log is broken: %w", err)
	}
	return err
}

// past is what has happened: an event, or something of a lease.
type past struct {
	event *eventlog.Event
	lease *leaselog.Entry
}

func (p past) at() time.Time {
	if p.event != nil {
		return p.event.At
	}
	return p.lease.At
}

func (p past) text() string {
	if p.event != nil {
		return pastText(p.event)
	}
	return p.at().UTC().Format(time.RFC3339) + " " + p.lease.Text()
}

// readPast returns the last n events since a time, of the event log in a folder and of the log of leases beside it.
// With an error it returns what comes before the fault.
func readPast(dir string, from time.Time, n int) ([]past, error) {
	var events, leases []past
	keep := func(all *[]past, p past) {
		if p.at().Before(from) {
			return
		}
		if *all = append(*all, p); len(*all) >= 2*n+100 {
			*all = append([]past(nil), (*all)[len(*all)-n:]...)
		}
	}
	_, err := eventlog.Verify(dir, nil, func(e eventlog.Event) { keep(&events, past{event: &e}) })
	err = errors.Join(err, leaselog.Read(filepath.Join(dir, "..", leaselog.Folder),
		func(e leaselog.Entry) { keep(&leases, past{lease: &e}) }))
	all := append(events, leases...)
	slices.SortStableFunc(all, func(a, b past) int { return a.at().Compare(b.at()) })
	return all[max(0, len(all)-n):], err
}

// sinceTime reads what a flag says of when something was: a time, or how long ago it was; zero: nothing.
func sinceTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	at, err := parseTime(s, now, false)
	if err != nil {
		return at, usage("--%s: %w", flag, err)
	}
	return at, nil
}

// pastText is an event of the log on one line.
func pastText(e *eventlog.Event) string {
	s := e.At.UTC().Format(time.RFC3339) + " " + e.Type
	for _, word := range []string{e.Code, e.Subject} {
		if word != "" {
			s += " " + word
		}
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	var more []string
	for k, v := range e.Fields {
		more = append(more, fmt.Sprintf("%s=%s", k, v))
	}
	if e.Actor != "" {
		more = append(more, "by "+e.Actor)
	}
	if slices.Sort(more); len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}
