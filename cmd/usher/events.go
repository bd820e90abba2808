package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/leaselog"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/plugin/usher"
)

func (c *cli) verifyEventsCommand() *cobra.Command {
	var dir, key string
	cmd := &cobra.Command{Use: "verify [--config FILE | --dir DIR --key agent.pub]",
		Short: "Check that nobody has changed the event log", Args: cobra.NoArgs,
		Long: `Check the event log in the agent's state folder, and the log of leases beside it where there is one:
that each line follows from the one before, and that the agent's key has signed it. Without --dir the
configuration says where it lies. The check then holds the end of each log against the seal of the state,
which knows the last line of ten seconds ago: so it sees that somebody cut newer lines off. With --dir it
cannot. Exits 1 when a log is broken or cut off.`}
	src := c.configSource(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		var public ed25519.PublicKey
		var sealed map[string]eventlog.Head
		switch {
		case (dir == "") != (key == ""):
			return usage(
				"--dir and --key go together: the key is in agent.pub; use your own copy of it")
		case dir == "":
			cfg, err := src.load(c)
			if err != nil {
				return err
			}
			private, err := identity.FileAt(cfg.Agent.KeyFile, cfg.State.Dir, cfg.ReadFile).Existing()
			if err != nil {
				return err
			}
			dir, public = filepath.Join(cfg.State.Dir, audit.Folder), private.Public().(ed25519.PublicKey)
			sealed, err = seals.LastLines(seals.Config{Dir: cfg.State.Dir, Key: private, Now: time.Now})
			if err != nil {
				return err
			}
		default:
			b, err := readText(key)
			if err != nil {
				return fmt.Errorf("--key: %w", err)
			}
			k, err := usher.ParsePublicKey(b)
			if err != nil {
				return fmt.Errorf("--key %s: %w", key, err)
			}
			var ok bool
			if public, ok = k.(ed25519.PublicKey); !ok {
				return fmt.Errorf("--key %s: it is not an Ed25519 key, so it is no agent's", key)
			}
		}
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("event log: %w", err)
		}
		return c.verifyEvents(dir, public, sealed)
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the folder of the event log")
	cmd.Flags().StringVar(&key, "key", "", "with --dir: the agent's public key")
	return cmd
}

// signedLog is a log that verifyEvents checks.
type signedLog struct {
	name, lines, dir string
	sealed           eventlog.Head // what the state's seal knows as its last line; zero: nothing
}

// verify checks a log.
func (l signedLog) verify(public ed25519.PublicKey) (eventlog.Report, error) {
	r, err := eventlog.Verify(l.dir, public, nil)
	var broken *eventlog.Broken
	if errors.As(err, &broken) {
		return r, fail(exitFailed, "the lines before that one hold; the lines after it are not proved",
			"the %s is broken: %w", l.name, err)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", l.name, err)
	}
	if r.Sealed = l.sealed.Sequence; r.Last < r.Sealed {
		return r, fail(exitFailed, "the lines that are there hold; look for who can write to the folder "+l.dir,
			"the %s is cut off: its last line is number %d, and the seal of the state knows number %d", l.name, r.Last,
			r.Sealed)
	}
	return r, nil
}

// verifyEvents checks the event log in a folder, and the log of leases beside it. sealed is what the state's seal knows
// of their ends, by their folders; nil: it is not at hand.
func (c *cli) verifyEvents(dir string, public ed25519.PublicKey, sealed map[string]eventlog.Head) error {
	logs := []signedLog{{"event log", "events", dir, sealed[audit.Folder]}}
	of := sealed[leaselog.Folder]
	if leases := filepath.Join(dir, "..", leaselog.Folder); isFolder(leases) || of.Sequence > 0 {
		logs = append(logs, signedLog{"log of leases", "lines", leases, of})
	}
	reports := make([]eventlog.Report, len(logs))
	for i, log := range logs {
		var err error
		if reports[i], err = log.verify(public); err != nil {
			return err
		}
	}
	if c.json {
		out := struct {
			eventlog.Report
			Leases *eventlog.Report `json:"leases,omitempty"`
		}{Report: reports[0]}
		if len(reports) > 1 {
			out.Leases = &reports[1]
		}
		return c.printJSON(out)
	}
	for i, log := range logs {
		r := reports[i]
		if r.Events == 0 {
			fprintf(c.out, "%s: there are no %s\n", log.dir, log.lines)
			continue
		}
		fprintf(c.out, "%s: %d %s (%d to %d), from %s to %s: unbroken, and signed by agent key %s\n", log.dir,
			r.Events, log.lines, r.First, r.Last,
			r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), identity.Thumbprint(public))
		if r.Missing > 0 {
			fprintf(c.out, "the log says that %d events could not be written\n", r.Missing)
		}
		if r.Gone > 0 {
			fprintf(c.out, "the log says that %d lines were cut off\n", r.Gone)
		}
		if r.Sealed > 0 {
			fprintf(c.out, "the seal of the state knows line %d: no line up to there was cut off\n", r.Sealed)
		}
		if r.Torn {
			fprintln(c.out, "the last line is cut off, as after a crash")
		}
	}
	return nil
}

func isFolder(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// bundledEvents is the number of events in the support bundle.
const bundledEvents = 200

// eventsTail returns the last events of the agent's log, without their authors.
func eventsTail(ctx context.Context, a *client.Client) ([]eventlog.Event, error) {
	settings, err := a.Config(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		if s.Key != "state.dir" {
			continue
		}
		events, err := eventlog.Tail(filepath.Join(s.Value, "events"), bundledEvents)
		for i := range events {
			events[i].Actor = ""
			delete(events[i].Fields, "holder")
			if events[i].Type == "emergency.started" {
				events[i].Detail = "(left out)" // the operator's own sentence
			}
		}
		return events, err
	}
	return nil, errors.New("the agent does not name its state folder")
}
