package systemd

import (
	"context"
	"net"
	"os"
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
	return Manager{within: within, tell: notify}, err
}

// notify sends a message to the service manager, and waits for it no longer than notifyWithin: one that does not read
// stops nobody.
func notify(state string) error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyWithin)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return err
}

const notifyWithin = 2 * time.Second

// Run reports that the agent is ready, feeds the watchdog for as long as moving says that what decides moves, and
// reports that the agent stops when ctx ends. status is one line for people. failed is told of a message that could not
// be sent, which stops nothing. It returns nil.
func (m Manager) Run(ctx context.Context, status func() string, moving func() bool, failed func(error)) error {
	send := func(state string) {
		if err := m.tell(state); err != nil {
			failed(err)
		}
	}
	send(daemon.SdNotifyReady + "\nSTATUS=" + status())
	every := time.Minute
	if m.within > 0 {
		every = m.within / 2
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			send(daemon.SdNotifyStopping)
			return nil
		case <-t.C:
			if !moving() {
				continue // the watchdog bites; status might wait for what stands still
			}
			state := "STATUS=" + status()
			if m.within > 0 {
				state = daemon.SdNotifyWatchdog + "\n" + state
			}
			send(state)
		}
	}
}
