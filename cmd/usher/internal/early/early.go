// Package early asks for signals before anything else of the program is set up: a SIGHUP that comes while the agent
// starts has it read its configuration again, and does not end it. One that comes before Go's runtime is up is ignored
// where the entry of the program is this package's (linux/amd64, see start): the agent has not read its configuration
// then. Elsewhere it ends the agent.
//
// It also remembers which signals the program was started to ignore, as nohup(1) and background jobs of a shell do.
package early

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// HUP has a SIGHUP that came since the start, where the program is an agent.
var HUP = make(chan os.Signal, 1)

// ignored are the signals that this process was started to ignore, as far as is known: see [Inherited].
var ignored = map[os.Signal]bool{}

func init() {
	more, known := Inherited()
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		ignored[s] = signal.Ignored(s)
		if known { // what is ignored now may be the entry's doing
			ignored[s] = slices.Contains(more, s)
		}
	}
	if isAgent(os.Args) {
		signal.Notify(HUP, syscall.SIGHUP)
		return // it ends in order by SIGTERM, whoever has started it
	}
	heedHangUp()
	for _, s := range more {
		ignored[s] = true
	}
}

// isAgent reports whether a command line runs the agent.
func isAgent(args []string) bool {
	for i := 1; i < len(args); i++ {
		switch {
		case args[i] == "--socket":
			i++
		case !strings.HasPrefix(args[i], "-"):
			return args[i] == "agent"
		}
	}
	return false
}

// NotifyContext returns a context that ends with the first of the signals that this process was not started to ignore.
func NotifyContext(signals ...os.Signal) (context.Context, context.CancelFunc) {
	heeded := Heeded(signals...)
	if len(heeded) == 0 { // which would mean all
		return context.WithCancel(context.Background())
	}
	return signal.NotifyContext(context.Background(), heeded...)
}

// Heeded returns those of signals that this process was not started to ignore.
func Heeded(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(slices.Clone(signals), func(s os.Signal) bool { return ignored[s] })
}
