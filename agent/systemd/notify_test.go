package systemd

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

func TestServiceManagerIsToldReadyAliveAndStopping(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var told []string
		m := Manager{within: 10 * time.Second, tell: func(s string) error { told = append(told, s); return nil }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx, well, moving, func(err error) { t.Error(err) }) }()
		<-time.After(11 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []string{"READY=1\nSTATUS=well", "WATCHDOG=1\nSTATUS=well", "WATCHDOG=1\nSTATUS=well", "STOPPING=1"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

func TestServiceManagerIsNotFedByAnAgentThatHangs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var told []string
		m := Manager{within: 10 * time.Second, tell: func(s string) error { told = append(told, s); return nil }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		stands := func() bool { return false }
		go func() { done <- m.Run(ctx, well, stands, func(err error) { t.Error(err) }) }()
		<-time.After(time.Hour)
		if want := []string{"READY=1\nSTATUS=well"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		cancel()
		<-done
	})
}

func well() string { return "well" }
func moving() bool { return true }

// A service manager that cannot be told, or does not read, stops nothing.
func TestServiceManagerThatIsGoneStopsNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		failed := 0
		m := Manager{within: 10 * time.Second, tell: func(string) error { return errors.New("it is gone") }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx, well, moving, func(error) { failed++ }) }()
		<-time.After(11 * time.Second)
		cancel()
		if err := <-done; err != nil || failed != 4 {
			t.Errorf("%v, failed %d times", err, failed)
		}
	})
}
