package agent_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

func warns(code string) func(*wire.License) bool {
	return func(l *wire.License) bool {
		return l.State == "valid" && slices.ContainsFunc(l.Warnings, func(w wire.Warning) bool {
			return w.Code == code
		})
	}
}

// set sets the wall clock, which the kernel knows nothing of, and has the agent look.
func (h *house) set(d time.Duration) {
	h.t.Helper()
	h.skew.Store(int64(d))
	if _, err := h.Reload(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) clock() *wire.Clock {
	h.t.Helper()
	k, err := h.Client.Clock(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return k
}

// A box without a battery: it boots in 1970, and its first licence is in force all the same, for that has a date; the
// upstream tells it the time; what was seen is known after a restart; and nothing is left of it when the network has
// set the clock.
func TestBootIn1970(t *testing.T) {
	t.Parallel()
	o := openOnline(t)
	o.stop()
	if err := errors.Join(os.RemoveAll(o.path("state")), os.RemoveAll(o.path("run"))); err != nil {
		t.Fatal(err)
	}
	o.skew.Store(int64(time.Until(time.Unix(60, 0))))
	o.start()
	if k := o.clock(); k.Time.Year() != 1970 || k.From != "wall" || k.LearntAt != nil {
		t.Errorf("a first start in 1970: %+v", k)
	}
	issued := time.Now().Add(-30 * 24 * time.Hour)
	o.drop("a.lic", o.sign("L1", 2, func(c *usher.Claims) {
		c.Issued, c.NotBefore, c.Expires = issued.Unix(), issued.Unix(), time.Now().Add(time.Hour).Unix()
		c.Activation, c.CheckIn = &usher.Activation{}, &usher.CheckIn{Every: 7 * 24 * 3600, Grace: 60}
	}))
	o.until("activated, in 1970", func(l *wire.License) bool {
		return inForce("L1")(l) && warns("CLOCK_BEHIND")(l) && o.clock().LearntAt != nil
	})
	near := func(k *wire.Clock) {
		t.Helper()
		if d := time.Since(k.Time); d < -time.Minute || d > time.Minute || k.From != "mark" || k.LearntAt == nil ||
			k.BehindSeconds < 50*365*86400 || k.BehindSince == nil {
			t.Errorf("it is %v, and the agent says %+v", time.Now(), k)
		}
	}
	near(o.clock())
	if _, err := o.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
		t.Error(err)
	}
	o.away.Store(true)
	o.stop()
	o.start()
	if l := o.until("after a restart", inForce("L1")); !warns("CLOCK_BEHIND")(l) {
		t.Errorf("after a restart it says %s and warns %+v", l.Code, l.Warnings)
	}
	near(o.clock())
	o.set(0)
	o.until("the clock is right", func(l *wire.License) bool { return inForce("L1")(l) && !warns("CLOCK_BEHIND")(l) })
	if k := o.clock(); k.From != "wall" || k.BehindSeconds > 1 || k.AheadSeconds > 0 {
		t.Errorf("when the clock is right: %+v", k)
	}
}

// The clock leaps ahead by years, and is put right: the licence heals, and a lease goes on as if nothing had been.
func TestLeapOfTheClock(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, func(c *usher.Claims) {
		c.Expires, c.OnExpiry = time.Now().Add(time.Hour).Unix(), "keep"
	}))
	h.until("in force", inForce("a"))
	l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 600})
	if err != nil {
		t.Fatal(err)
	}
	h.set(4 * 365 * 24 * time.Hour)
	h.until("years ahead", code("EXPIRED"))
	k := h.clock()
	if k.From != "wall" || k.AheadSeconds < 4*364*86400 || k.BelievedAt == nil ||
		k.BelievedAt.Sub(k.Time) < 23*time.Hour {
		t.Errorf("years ahead: %+v", k)
	}
	if _, err := h.Renew(t.Context(), l.ID, 0); err != nil {
		t.Errorf("a lease that is kept is over: %v", err)
	}
	h.set(0)
	h.until("put right", inForce("a"))
	if k := h.clock(); k.AheadSeconds != 0 || k.BehindSeconds > 1 {
		t.Errorf("put right: %+v", k)
	}
	now, err := h.Client.Lease(t.Context(), l.ID)
	if err != nil || now.ExpiresAt == nil || time.Until(*now.ExpiresAt) > 10*time.Minute ||
		time.Until(*now.ExpiresAt) < 5*time.Minute {
		t.Errorf("the lease is now %+v, %v", now, err)
	}
}

// A document that does not count here, and a renewal that is dated ahead, end nothing: the good licence goes on with
// what it has lent, and the sentence about the others names them.
func TestDocumentDatedAhead(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("good.lic", h.sign("good", 3, func(c *usher.Claims) {
		c.Expires, c.MaxBorrow = time.Now().Add(90*24*time.Hour).Unix(), 30*24*3600
	}))
	h.until("in force", inForce("good"))
	until := time.Now().Add(20 * 24 * time.Hour)
	l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Until: &until})
	if err != nil {
		t.Fatal(err)
	}
	ahead := func(c *usher.Claims) {
		c.Issued, c.Expires = time.Now().Add(365*24*time.Hour).Unix(), time.Now().Add(2*365*24*time.Hour).Unix()
	}
	h.drop("other.lic", h.sign("other", 1, func(c *usher.Claims) {
		ahead(c)
		c.Product = "other"
	}))
	h.drop("next.lic", h.sign("good", 5, ahead))
	got := h.until("all three are judged", func(l *wire.License) bool { return len(l.Licenses) == 3 })
	if !inForce("good")(got) || warns("CLOCK_BEHIND")(got) || got.Limits["streams"] == nil ||
		*got.Limits["streams"] != 3 {
		t.Errorf("%s, %s: %+v", got.Code, got.Reason, got.Warnings)
	}
	for _, one := range got.Licenses {
		if one.Document == "next.lic" &&
			(one.Code != "NOT_YET_VALID" || !strings.Contains(one.Reason, "next.lic): it is dated")) {
			t.Errorf("the renewal: %s, %s", one.Code, one.Reason)
		}
	}
	if k := h.clock(); k.From != "wall" || k.BehindSeconds > 1 {
		t.Errorf("the time: %+v", k)
	}
	if _, err := h.Client.Lease(t.Context(), l.ID); err != nil {
		t.Errorf("the borrow is over: %v", err)
	}
}

// A first start by a clock that is years ahead ends no licence, once the clock is right: over a restart either.
func TestFirstClockAhead(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, func(c *usher.Claims) {
		c.Issued, c.Expires = time.Now().Add(-10*24*time.Hour).Unix(), time.Now().Add(90*24*time.Hour).Unix()
	}))
	h.until("in force", inForce("a"))
	for _, restart := range []bool{false, true} {
		h.stop()
		if err := errors.Join(os.RemoveAll(h.path("state")), os.RemoveAll(h.path("run"))); err != nil {
			t.Fatal(err)
		}
		h.skew.Store(int64(70 * 365 * 24 * time.Hour))
		h.start()
		h.until("years ahead", code("EXPIRED"))
		if k := h.clock(); k.FirstClock == nil || k.FirstClock.Since.After(k.Time) ||
			k.FirstClock.ProvedAt.Sub(k.FirstClock.Since) != 24*time.Hour {
			t.Errorf("a first clock: %+v", k)
		}
		if restart {
			h.stop()
			h.skew.Store(0)
			h.start()
		}
		h.set(0)
		h.until("put right", inForce("a"))
		if k := h.clock(); k.From != "wall" || k.BehindSeconds > 1 {
			t.Errorf("put right (restarted: %t): %+v", restart, k)
		}
	}
}
