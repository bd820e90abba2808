package keygen_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

// leased returns a host of a licence that counts processes over all machines.
func leased(t *testing.T) *online {
	o := open(t, func(l *keygentest.License) {
		l.Policy.ProcessLeasing = "PER_LICENSE"
		l.Attributes.MaxProcesses = new(int64(5))
	}, keygen.Config{})
	o.good(o.client.Activate)
	return o
}

func (o *online) checkOut(n, least int64, token string) (*plugin.Block, error) {
	return o.client.CheckOut(context.Background(), &plugin.CheckOut{Request: *o.request(), Pool: keygen.PoolProcesses,
		Slots: n, AtLeast: least, For: time.Hour, Token: token})
}

func (o *online) extend(b *plugin.Block, n int64) (*plugin.Block, error) {
	return o.client.Extend(context.Background(),
		&plugin.Extend{Request: *o.request(), Block: b.ID, Slots: n, For: time.Hour})
}

func fault(t *testing.T, err error, code string) {
	t.Helper()
	var e *plugin.Error
	if !errors.As(err, &e) || e.SystemCode != code || e.Class == plugin.Refused {
		t.Errorf("got %v, want %s", err, code)
	}
}

// Each slot of a block is a process: made once even if answers are lost, kept alive, resized, and given back.
func TestBlocks(t *testing.T) {
	o := leased(t)
	count := func(want int) {
		t.Helper()
		if got := len(o.Processes()); got != want {
			t.Errorf("there are %d processes, want %d", got, want)
		}
	}
	b, err := o.checkOut(3, 0, "a")
	if err != nil || b.Slots != 3 || b.For != 10*time.Minute {
		t.Fatalf("got %+v, %v", b, err)
	}
	if again, err := o.checkOut(3, 0, "a"); err != nil || again.ID != b.ID || again.Slots != 3 {
		t.Errorf("again: %+v, %v", again, err)
	}
	count(3)
	second, err := o.checkOut(3, 1, "b")
	if err != nil || second.Slots != 2 || second.ID == b.ID {
		t.Errorf("what is left: %+v, %v", second, err)
	}
	_, err = o.checkOut(2, 1, "c")
	fault(t, err, "NO_SLOTS")
	_, err = o.checkOut(1000, 0, "d")
	fault(t, err, "NO_SLOTS")
	count(5)

	o.pass(9 * time.Minute)
	if b, err = o.extend(b, 0); err != nil || b.Slots != 3 {
		t.Errorf("extended: %+v, %v", b, err)
	}
	o.pass(9 * time.Minute)
	count(3) // the other block has died
	_, err = o.extend(second, 0)
	fault(t, err, "BLOCK_LAPSED")
	if b, err = o.extend(b, 1); err != nil || b.Slots != 1 {
		t.Errorf("fewer: %+v, %v", b, err)
	}
	count(1)
	if b, err = o.extend(b, 4); err != nil || b.Slots != 4 {
		t.Errorf("more: %+v, %v", b, err)
	}
	count(4)
	for range 2 {
		if err := o.client.Return(t.Context(), &plugin.Return{Request: *o.request(), Block: b.ID}); err != nil {
			t.Error(err)
		}
	}
	count(0)
	_, err = o.client.CheckOut(t.Context(),
		&plugin.CheckOut{Request: *o.request(), Pool: "users", Slots: 1, For: time.Hour, Token: "e"})
	fault(t, err, "NO_POOLS")
}

// If fewer slots are free than the least, none remain taken.
func TestNoHalfBlock(t *testing.T) {
	o := leased(t)
	if _, err := o.checkOut(4, 0, "a"); err != nil {
		t.Fatal(err)
	}
	_, err := o.checkOut(3, 2, "b")
	fault(t, err, "NO_SLOTS")
	if n := len(o.Processes()); n != 4 {
		t.Errorf("there are %d processes", n)
	}
}

// A pool that all machines share needs a budget.
func TestSharedTerms(t *testing.T) {
	a := newAccount(t)
	l := a.read(t, "MACHINE", machineOf(licence(nil, object{"processLeasingStrategy": "PER_LICENSE"}), nil))
	facts := enforcer.Facts{Documents: []enforcer.Document{{Name: "m.lic", License: l}},
		Host: enforcer.Host{Components: map[string][]string{keygen.Component: {keygen.Fingerprint("host-1")}},
			Logical: 8}}
	v := enforcer.Judge(facts, l.Issued)
	for pool, want := range map[string]enforcer.Limit{"machines": 1, "processes": 0, "cores": 0,
		"users": enforcer.Unlimited} {
		if g := v.Pools[pool]; g.Budget != want || (g.NotShared != "") != (want == 0) {
			t.Errorf("%s: %+v", pool, g)
		}
	}
	if g := v.Meters["uses"]; g.Budget != 0 || g.NotShared == "" {
		t.Errorf("uses: %+v", g)
	}
}
