package agent

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// serviceManager is what the agent tells the service manager: sd_notify(3). Outside systemd it is silence.
type serviceManager struct {
	tell   func(state string) error
	within time.Duration // the watchdog's period; zero: none
}

// newServiceManager finds the service manager of this process.
func newServiceManager() (serviceManager, error) {
	within, err := daemon.SdWatchdogEnabled(false)
	return serviceManager{within: within, tell: func(state string) error {
		_, err := daemon.SdNotify(false, state)
		return err
	}}, err
}

// run says that the agent is ready, feeds the watchdog for as long as alive answers, and says that the agent stops when
// ctx ends. status is one line for people.
func (m serviceManager) run(ctx context.Context, status func() string, alive func()) error {
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
