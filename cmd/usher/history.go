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
user, and then how many more there were, once an hour. Grants are not kept there: metrics count
them, and "usher events -f" shows leases as they come and go. "usher events verify" says whether
somebody has changed the log.`}
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
	events, err := eventlog.Tail(dir, n)
	for _, e := range events {
		if e.At.Before(from) {
			continue
		}
		if c.json {
			err = errors.Join(err, c.printLine(e))
			continue
		}
		fprintln(c.out, pastText(&e))
	}
	var broken *eventlog.Broken
	if errors.As(err, &broken) {
		return fail(exitFailed, "`usher events verify` says more; the lines after that one are not shown",
			"the event log is broken: %w", err)
	}
	return err
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
