package systemd

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager reports the agent's state to the service manager: sd_notify(3). Outside systemd it reports nothing.
type Manager struct {
	tell   func(state string) error
	within time.Duration // the watchdog's period; zero: none
}

// NewManager finds the service manager of this process. An error says that the period of its watchdog cannot be read.
// The Manager works without it.
func NewManager() (Manager, error) {
	within, err := daemon.SdWatchdogEnabled(false)
	return Manager{within: within, tell: func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}}, err
}

// Run reports that the agent is ready, feeds the watchdog for as long as alive answers, and reports that the agent
// stops when ctx ends. status is one line for people. It returns the error of a message that could not be sent.
func (m Manager) Run(ctx context.Context, status func() string, alive func()) error {
	if err := m.tell(daemon.SdNotifyReady + "\nSTATUS=" + status()); err != nil {
		return err
	}
	every := time.Minute
	if m.within > 0 {
		every = m.within / 2
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return m.tell(daemon.SdNotifyStopping)
		case <-t.C:
			alive() // hangs when the agent does, and then the watchdog bites
			state := "STATUS=" + status()
			if m.within > 0 {
				state = daemon.SdNotifyWatchdog + "\n" + state
			}
			if err := m.tell(state); err != nil {
				return err
			}
		}
	}
}
