package desk

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// What is kept on a lease is there after compactions and restarts, for what outlives the host after its reboot; nothing
// of it is left when the lease is over, however long its token is remembered.
func TestDataOutlivesCompaction(t *testing.T) {
	t.Parallel()
	for _, reboot := range []bool{false, true} {
		k := openKept(t)
		who := enforcer.Caller{UID: 65534, Credential: "token:1"}
		data := func(text string) *enforcer.Data { return &enforcer.Data{Owner: "toy", Bytes: []byte(text)} }
		var ids []enforcer.LeaseID
		for _, l := range []enforcer.Lifetime{enforcer.LifetimeHeld, enforcer.LifetimeBorrow, enforcer.LifetimeHeld,
			enforcer.LifetimeTTL} {
			r := enforcer.Acquire{Pool: "streams", Lifetime: l, Caller: who, Data: data("of " + string(l)),
				Token: fmt.Sprint(len(ids))}
			if l == enforcer.LifetimeBorrow {
				r.Until = k.wall.Add(time.Hour)
			}
			got, _, d := k.get(r)
			if d != nil {
				t.Fatal(d)
			}
			ids = append(ids, got.ID)
		}
		draw := enforcer.Acquire{Pool: "renders", Caller: who, Data: data("of the draw"), Token: "draw"}
		if _, _, d := k.get(draw); d != nil {
			t.Fatal(d)
		}
		if d := k.Do(&enforcer.SetData{ID: ids[0], Caller: who, Data: data("another")}).Denial; d != nil {
			t.Fatal(d)
		}
		if d := k.Release(&enforcer.Release{ID: ids[2], Caller: who, Owner: "toy"}); d != nil {
			t.Fatal(d)
		}
		left := 3
		if reboot {
			left = 2
		}
		for _, compacted := range []bool{false, true, true} {
			k.restart(compacted, reboot)
			own := k.OwnedBy("toy", who)
			if len(own) != left || len(k.OwnedBy("toy", enforcer.Caller{UID: 65534})) > 0 ||
				len(k.OwnedBy("other", who)) > 0 {
				t.Fatalf("reboot %t: %d leases", reboot, len(own))
			}
			for i, want := range []string{"another", "of borrow"} {
				if l, ok := k.Lease(ids[i]); !ok || l.Data == nil || string(l.Data.Bytes) != want ||
					l.Holder.Caller != who {
					t.Errorf("reboot %t: %+v, want %s", reboot, l, want)
				}
			}
			if l, replayed, d := k.get(draw); d != nil || !replayed || string(l.Data.Bytes) != "of the draw" {
				t.Errorf("reboot %t: the draw is answered %+v, %v", reboot, l, d)
			}
			if n, d := k.Shift(&enforcer.Shift{Pool: "renders", By: 1, Caller: enforcer.Caller{Admin: true}}); d !=
				nil || n != 2 {
				t.Errorf("%d, %v", n, d)
			}
			if n, d := k.Shift(&enforcer.Shift{Pool: "renders", By: -1, Caller: enforcer.Caller{Admin: true}}); d !=
				nil || n != 1 {
				t.Errorf("%d, %v", n, d)
			}
		}
	}
}

// What cannot be stored is denied and changes nothing.
func TestDataOnAFullDisk(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	held, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: enforcer.LifetimeHeld,
		Data: &enforcer.Data{Owner: "toy", Bytes: []byte("one")}})
	if d != nil {
		t.Fatal(d)
	}
	full := false
	dir := t.TempDir()
	j, _, err := journal.Open(journal.Config{Dir: dir, Name: seals.DurableJournal, Sync: true,
		File: func(name string, flag int) (journal.File, error) {
			f, err := os.OpenFile(name, flag, 0o600)
			return fullDisk{f, &full}, err
		}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	was := k.store.durable
	defer func() { j.Close(); k.store.durable = was }()
	k.store.durable = j
	full = true
	if d := k.Do(&enforcer.SetData{ID: held.ID, Data: &enforcer.Data{Owner: "toy", Bytes: []byte("two")}}).Denial; d ==
		nil || d.Code != enforcer.Storage {
		t.Errorf("on a full disk: %v", d)
	}
	if _, d := k.Shift(&enforcer.Shift{Pool: "renders", By: 1, Caller: enforcer.Caller{Admin: true}}); d == nil ||
		d.Code != enforcer.Storage {
		t.Errorf("on a full disk: %v", d)
	}
	if l, ok := k.Lease(held.ID); !ok || string(l.Data.Bytes) != "one" {
		t.Errorf("it has become %+v", l)
	}
	if p, _ := k.Pool("renders"); p.InUse != 0 {
		t.Errorf("it has become %+v", p)
	}
	full = false
	if d := k.Do(&enforcer.SetData{ID: held.ID, Data: &enforcer.Data{Owner: "toy", Bytes: []byte("two")}}).Denial; d !=
		nil {
		t.Error(d)
	}
}

// fullDisk is a file that cannot be written while it is full.
type fullDisk struct {
	*os.File
	full *bool
}

func (f fullDisk) WriteAt(b []byte, at int64) (int, error) {
	if *f.full {
		return 0, errors.New("no space left on device")
	}
	return f.File.WriteAt(b, at)
}
