package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// Three agents of one site, with the time of blocks that is the default: one has slots that lie idle, and another's
// callers get them long before a block ends, while none is ever handed out twice. What nobody has idle is denied, and
// the denial says where the slots are. The minute only tells that from a block that ends, on a machine however busy:
// how soon idle slots move is exact in the simulations of both sides, agent/shares.TestIdleSlotsMove and
// agent/fleet.TestIdleSlotsMove.
func TestIdleSlotsMove(t *testing.T) {
	t.Parallel()
	s := openSiteServer(t, 50, 2*time.Minute)
	all := s.agents(3)
	a, b, c := all[0], all[1], all[2]
	a.take(30)
	var held []string
	for range 20 { // a has all of the site, and holds 30
		l, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 600, WaitSeconds: 50})
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l.ID)
	}
	for _, id := range held {
		if err := a.Release(t.Context(), id, false); err != nil {
			t.Fatal(err)
		}
	}
	fifteen := int64(15)
	began := time.Now()
	if _, err := b.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &fifteen, TTLSeconds: 600,
		WaitSeconds: 30}); err != nil {
		t.Fatalf("20 lie idle elsewhere, and 15 are denied: %v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("15 idle slots came after %v", took)
	} else {
		t.Logf("15 idle slots came after %v", took)
	}
	if _, sum := s.blocks(); sum > 50 {
		t.Errorf("%d of 50 slots are out", sum)
	}
	// The last five are in use now: a caller elsewhere waits in vain, and is told where the slots are.
	a.take(5)
	two := int64(2)
	_, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &two, WaitSeconds: 2})
	if !errors.Is(err, client.ErrNoSlots) || !strings.Contains(err.Error(), "other hosts have 50") {
		t.Errorf("all 50 are in use elsewhere: %v", err)
	}
	// One that waits long gets what is released elsewhere, without asking again and again.
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
		defer cancel()
		_, err := c.Acquire(ctx, wire.AcquireRequest{Pool: "streams", N: &two, TTLSeconds: 600, WaitSeconds: 300})
		got <- err
	}()
	for c.share().Waiting == 0 {
		<-time.After(5 * time.Millisecond)
	}
	for until := time.Now().Add(2 * time.Minute); ; <-time.After(20 * time.Millisecond) { // its agent asks in vain
		_, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
		if errors.Is(err, client.ErrNoSlots) && strings.Contains(err.Error(), "other hosts have 50, and use them") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the denial says after two minutes: %v", err)
		}
	}
	leases, err := b.Leases(t.Context(), "streams")
	if err != nil || len(leases) != 1 {
		t.Fatalf("leases of b: %v, %v", leases, err)
	}
	if err := b.Release(t.Context(), leases[0].ID, false); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	if err := <-got; err != nil {
		t.Errorf("15 were released elsewhere: %v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("released slots came after %v", took)
	} else {
		t.Logf("released slots came after %v", took)
	}
}
