package systemd

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestServiceManagerIsToldReadyAliveAndStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		m := Manager{within: 10 * time.Second, tell: func(s string) error { told = append(told, s); return nil }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx, func() string { return "well" }, func() {}) }()
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
	synctest.Test(t, func(t *testing.T) {
		var told []string
		m := Manager{within: 10 * time.Second, tell: func(s string) error { told = append(told, s); return nil }}
		ctx, cancel := context.WithCancel(t.Context())
		hang := make(chan struct{})
		done := make(chan error)
		go func() { done <- m.Run(ctx, func() string { return "well" }, func() { <-hang }) }()
		<-time.After(time.Hour)
		if want := []string{"READY=1\nSTATUS=well"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		cancel()
		close(hang)
		<-done
	})
}
