// Command product stands for a vendor's product in a pod: it takes a slot of the pool that it is told, holds it, and
// gives it back when it is ended, which needs the agent for a moment longer.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/usher-agent/usher/client"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func run() error {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	ctx := context.Background()
	session, err := client.Open(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	lease, err := session.Acquire(ctx, client.Request{Pool: "streams", WaitSeconds: 20})
	for waits := time.NewTicker(100 * time.Millisecond); err != nil; {
		fmt.Println("waits:", err)
		select {
		case <-ended:
			return err
		case <-waits.C:
			lease, err = session.Acquire(ctx, client.Request{Pool: "streams", WaitSeconds: 20})
		}
	}
	fmt.Println("held", lease.ID(), lease.Info().Liveness)
	<-ended
	// The last of its work needs a slot of its own, and the agent.
	last, err := session.Acquire(ctx, client.Request{Pool: "streams", WaitSeconds: 5})
	for deadline := time.Now().Add(5 * time.Second); errors.Is(err, client.ErrAgentAway) &&
		time.Now().Before(deadline); { // the agent may have been restarted a moment ago
		<-time.After(100 * time.Millisecond)
		last, err = session.Acquire(ctx, client.Request{Pool: "streams", WaitSeconds: 5})
	}
	if err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	if err := errors.Join(last.Close(), lease.Close()); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	fmt.Println("ended well")
	return nil
}
