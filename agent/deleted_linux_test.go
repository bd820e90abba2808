package agent_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// The state folder is deleted beneath an agent, which is killed as soon as it grants what must last again. What was
// answered as granted is held after the next start, and so is what the runtime folder tells of: nothing in that window
// is answered and lost.
func TestKilledAfterTheStateWasDeleted(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 100, nil)
	c.meddled = true // by the deletions
	var want []string
	take := func(lifetime string) error {
		l, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: lifetime})
		if err == nil {
			want = append(want, l.ID)
		}
		return err
	}
	for range 3 {
		if err := errors.Join(take("held"), take("ttl")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(c.path("state")); err != nil {
			t.Fatal(err)
		}
		becomes(t, "a held lease is granted again", func() bool {
			if err := take("ttl"); err != nil && !errors.Is(err, client.ErrNoSlots) {
				t.Fatalf("what need not last: %v", err)
			}
			err := take("held")
			if err != nil && !errors.Is(err, client.ErrStorage) {
				t.Fatalf("what must last: %v", err)
			}
			return err == nil
		})
		c.kill()
		c.run()
		all, err := c.Leases(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range want {
			if !slices.ContainsFunc(all, func(l wire.Lease) bool { return l.ID == id }) {
				t.Errorf("lease %s was granted, and is lost", id)
			}
		}
		for _, l := range all[len(all)/2:] { // room for the next round
			if err := c.Release(t.Context(), l.ID, false); err != nil {
				t.Fatal(err)
			}
			want = slices.DeleteFunc(want, func(id string) bool { return id == l.ID })
		}
	}
}
