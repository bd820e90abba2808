package agent_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// usedOf returns what an agent has counted of a pool in the last hours, and how often agents have begun to.
func (h *house) usedOf(pool string) (sum wire.PoolUsage, starts int64) {
	h.t.Helper()
	u, err := h.Usage(h.t.Context(), client.UsageFilter{})
	if err != nil {
		h.t.Fatal(err)
	}
	sum.Limit, sum.Budget = new(int64), new(int64)
	for _, x := range u.Hours {
		sum = usage.Sum(sum, x.Pools[pool])
		starts += x.Starts
	}
	return sum, starts
}

// What is in use is counted by the agent, over a restart; the agent signs it; and there is no user in any of it.
func TestUsage(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	ctx := t.Context()
	h.drop("a.lic", h.sign("L1", 2, func(c *usher.Claims) {
		c.Meters = map[string]usher.Meter{"renders": {Max: new(int64(9)), Scope: "host"}}
	}))
	h.until("valid", inForce("L1"))
	label := map[string]string{"job": "mary-louise"}
	one, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams", N: new(int64(2)), Lifetime: "held", Labels: label})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams", Labels: label}); !errors.Is(err,
			client.ErrNoSlots) {
			t.Fatal(err)
		}
	}
	if err := h.Release(ctx, one.ID, false); err != nil {
		t.Fatal(err)
	}
	again, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := h.usedOf("streams")
	if p.Peak != 2 || p.Grants != 2 || p.Denials["no_slots"] != 3 || p.FalseDenials != 3 || p.TrueDenials != 0 ||
		p.SlotSeconds <= 0 || *p.Limit != 2 {
		t.Errorf("counted is %+v", p)
	}
	h.stop()
	h.start()
	h.until("valid", inForce("L1"))
	if err := h.Release(ctx, again.ID, false); err != nil {
		t.Fatal(err)
	}
	q, starts := h.usedOf("streams")
	if q.SlotSeconds <= p.SlotSeconds || q.Peak != 2 || q.Grants != 2 || starts != 2 {
		t.Errorf("after a restart %+v, and %d starts", q, starts)
	}

	u, err := h.Usage(ctx, client.UsageFilter{Signed: true, Nonce: "today"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := usage.ReadReport([]byte(u.Report))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := h.Keys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r.AgentKey != keys.Keys[0].KeyID || r.Nonce != "today" || r.Product != "acme" || len(r.Licenses) != 1 ||
		r.Licenses[0].ID != "L1" || len(r.Hours) == 0 || r.Host == "" {
		t.Errorf("the report has %+v", r.Claims)
	}
	for _, place := range []string{"state/usage", "state/usage.json"} {
		h.namesNobody(place, "mary-louise", `"uid"`, `"pid"`)
	}
	if bytes.Contains([]byte(u.Report), []byte("mary-louise")) {
		t.Error("the report names a holder")
	}
}

// namesNobody wants that no file below a place has one of the words in it.
func (h *house) namesNobody(place string, words ...string) {
	h.t.Helper()
	err := filepath.WalkDir(h.path(place), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, w := range words {
			if bytes.Contains(b, []byte(w)) {
				h.t.Errorf("%s has %s in it", path, w)
			}
		}
		return err
	})
	if err != nil {
		h.t.Error(err)
	}
}

// A file of the usage that somebody has edited is told as any of the state, and takes nobody's slots.
func TestUsageEdited(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	ctx := t.Context()
	h.drop("a.lic", h.sign("L1", 2, nil))
	h.until("valid", inForce("L1"))
	if _, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams", N: new(int64(2)), Lifetime: "held"}); err != nil {
		t.Fatal(err)
	}
	h.stop()
	file := h.path("state/usage.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if edited := bytes.Replace(b, []byte(`"peak":2`), []byte(`"peak":1`), 1); bytes.Equal(edited, b) {
		t.Fatalf("there is no peak in %s", b)
	} else if err := os.WriteFile(file, edited, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.until("valid", inForce("L1"))
	health, err := h.Health(ctx)
	if err != nil || len(health.State) != 1 || health.State[0].File != "usage.json" ||
		health.State[0].Fault != "edited" {
		t.Errorf("found is %+v, %v", health.State, err)
	}
	if p, _ := h.usedOf("streams"); p.Peak != 2 {
		t.Errorf("the peak that stands is %d", p.Peak)
	}
	leases, err := h.Leases(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		if err := h.Release(ctx, l.ID, false); err != nil {
			t.Error(err)
		}
	}
	if _, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams"}); err != nil {
		t.Errorf("an acquire: %v", err)
	}
}

// Who used a pool and was denied is kept where privacy.users says so, under the name that it says; a stricter setting
// removes it, and the event log says so.
func TestUsageByUser(t *testing.T) {
	t.Parallel()
	h := open(t, "privacy: {users: pseudonym}\n")
	ctx := t.Context()
	h.drop("a.lic", h.sign("L1", 2, nil))
	h.until("valid", inForce("L1"))
	one, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams", N: new(int64(2)), Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrNoSlots) {
		t.Fatal(err)
	}
	if err := h.Release(ctx, one.ID, false); err != nil {
		t.Fatal(err)
	}
	users := func(f client.UsageFilter) *wire.Usage {
		t.Helper()
		f.ByUser = true
		u, err := h.Usage(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u := users(client.UsageFilter{})
	if len(u.Users) != 1 || u.UsersSetting != "pseudonym" || len(u.Users[0].Pools["streams"].Users) != 1 {
		t.Fatalf("kept is %+v, %q", u.Users, u.UsersSetting)
	}
	is := u.Users[0].Pools["streams"].Users[0]
	if !strings.HasPrefix(is.User, "p-") || is.Peak != 2 || is.Grants != 1 || is.Denials != 1 || is.SlotSeconds < 0 {
		t.Errorf("the user is %+v", is)
	}
	signed := users(client.UsageFilter{Signed: true})
	r, err := usage.ReadReport([]byte(signed.Report))
	if err != nil || len(r.Days) != 1 || len(signed.Users) > 0 {
		t.Errorf("the report has the days %+v, and the answer %+v beside it; %v", r.Days, signed.Users, err)
	}
	without, err := h.Usage(ctx, client.UsageFilter{Signed: true})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := usage.ReadReport([]byte(without.Report)); err != nil || r.Users != nil {
		t.Errorf("a report that does not ask for users has %+v, %v", r.Users, err)
	}
	h.stop()
	h.start()
	h.until("valid", inForce("L1"))
	if again := users(client.UsageFilter{}); again.Users[0].Pools["streams"].Users[0].User != is.User {
		t.Errorf("after a restart %+v", again.Users)
	}
	h.stop()
	h.config = strings.Replace(h.config, "users: pseudonym", "users: omit", 1)
	h.start()
	h.until("valid", inForce("L1"))
	if u := users(client.UsageFilter{}); len(u.Users) > 0 || u.UsersSetting != "omit" {
		t.Errorf("kept is %+v, %q", u.Users, u.UsersSetting)
	}
	h.stop()
	h.namesNobody("state/usage.json", is.User)
	if _, err := os.Stat(h.path("state/users")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if n := h.noted("usage.users_removed"); n != 1 {
		t.Errorf("the event log says %d times that it is removed", n)
	}
}
