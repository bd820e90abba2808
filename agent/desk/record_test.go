package desk

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
)

func instants() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.IntRange(0, 4).Draw(t, "zero") == 0 {
			return time.Time{}
		}
		return time.Unix(0, rapid.Int64Range(1, 1<<62).Draw(t, "nanoseconds")).UTC()
	})
}

func someHolder() *rapid.Generator[*enforcer.Holder] {
	return rapid.Custom(func(t *rapid.T) *enforcer.Holder {
		h := &enforcer.Holder{Caller: enforcer.Caller{UID: rapid.Uint32().Draw(t, "uid"),
			GID: rapid.Uint32().Draw(t, "gid"), Credential: rapid.String().Draw(t, "credential"),
			PID:   rapid.Int32().Draw(t, "pid"),
			Admin: rapid.Bool().Draw(t, "admin"), Start: rapid.Uint64().Draw(t, "start"),
			Inode: rapid.Uint64().Draw(t, "inode"), Exe: rapid.String().Draw(t, "exe"),
			User: rapid.String().Draw(t, "user"),
			Host: rapid.String().Draw(t, "host"), Pod: rapid.String().Draw(t, "pod")}}
		if rapid.Bool().Draw(t, "labels") {
			h.Labels = rapid.MapOfN(rapid.String(), rapid.String(), 1, 4).Draw(t, "label")
		}
		return h
	})
}

func someHoldOff() *rapid.Generator[*enforcer.HoldOff] {
	return rapid.Custom(func(t *rapid.T) *enforcer.HoldOff {
		h := &enforcer.HoldOff{Pools: rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "pools"),
			Since: instants().Draw(t, "since"), Until: instants().Draw(t, "until")}
		copy(h.Lease[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "lease"))
		for range rapid.IntRange(1, 3).Draw(t, "of") {
			h.Of = append(h.Of, enforcer.Caller{UID: rapid.Uint32().Draw(t, "uid"),
				Credential: rapid.String().Draw(t, "credential"), PID: rapid.Int32().Draw(t, "pid"),
				Start: rapid.Uint64().Draw(t, "start"), Inode: rapid.Uint64().Draw(t, "inode")})
		}
		return h
	})
}

func someLinger() *rapid.Generator[*enforcer.Linger] {
	return rapid.Custom(func(t *rapid.T) *enforcer.Linger {
		x := &enforcer.Linger{Item: enforcer.Item{Pool: rapid.String().Draw(t, "pool"),
			N: rapid.Int64Min(1).Draw(t, "n")}, Since: instants().Draw(t, "since"), Until: instants().Draw(t, "until"),
			Who:  enforcer.User{UID: rapid.Uint32().Draw(t, "uid"), Credential: rapid.String().Draw(t, "credential")},
			Rule: rapid.String().Draw(t, "rule")}
		if rapid.Bool().Draw(t, "in parts") {
			x.Item.Of = rapid.Int64Range(2, enforcer.MaxQuantum).Draw(t, "of")
		}
		copy(x.Lease[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "lease"))
		return x
	})
}

func someEvent() *rapid.Generator[enforcer.Event] {
	return rapid.Custom(func(t *rapid.T) enforcer.Event {
		ev := enforcer.Event{Kind: rapid.SampledFrom(recordKinds[1:]).Draw(t, "kind"), At: instants().Draw(t, "at")}
		draws := func() (out []enforcer.Draw) {
			for range rapid.IntRange(1, 3).Draw(t, "draws") {
				out = append(out, enforcer.Draw{Key: rapid.String().Draw(t, "key"),
					Drawn: rapid.Int64().Draw(t, "drawn"), Period: instants().Draw(t, "period")})
			}
			return out
		}
		lease := func() *enforcer.Lease {
			l := &enforcer.Lease{Lifetime: rapid.SampledFrom(recordLifetimes[1:]).Draw(t, "lifetime"),
				TTL:        time.Duration(rapid.Int64().Draw(t, "ttl")),
				AcquiredAt: instants().Draw(t, "acquired"), ExpiresAt: instants().Draw(t, "expires"),
				Unconfirmed: rapid.Bool().Draw(t, "unconfirmed"), Holder: someHolder().Draw(t, "holder")}
			copy(l.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
			for range rapid.IntRange(1, 3).Draw(t, "items") {
				it := enforcer.Item{Pool: rapid.String().Draw(t, "pool"), N: rapid.Int64Min(1).Draw(t, "n")}
				if rapid.Bool().Draw(t, "in parts") {
					it.Of = rapid.Int64Range(2, enforcer.MaxQuantum).Draw(t, "of")
				}
				l.Items = append(l.Items, it)
			}
			for range rapid.IntRange(0, 2).Draw(t, "others") {
				l.Others = append(l.Others, someHolder().Draw(t, "other"))
			}
			if rapid.Bool().Draw(t, "token") {
				l.Token = &enforcer.ClientToken{Key: enforcer.TokenKey{1, 2}, Request: [32]byte{3}}
			}
			if rapid.Bool().Draw(t, "data") {
				l.Data = &enforcer.Data{Owner: rapid.String().Draw(t, "owner"),
					Bytes: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")}
			}
			return l
		}
		switch ev.Kind {
		case enforcer.EventEnded:
			ev.Lease, ev.Cause = lease(), rapid.SampledFrom(recordCauses[1:]).Draw(t, "cause")
		case enforcer.EventForgot:
			ev.Token = enforcer.TokenKey{9, 8}
		case enforcer.EventHeldOff:
			ev.HoldOff = someHoldOff().Draw(t, "hold-off")
		case enforcer.EventLifted:
			ev.HoldOff, ev.Cause = &enforcer.HoldOff{Lease: enforcer.LeaseID{7}}, enforcer.CauseReleased
		case enforcer.EventLingers:
			ev.Linger = someLinger().Draw(t, "linger")
		case enforcer.EventLingerOver:
			ev.Linger = &enforcer.Linger{Lease: enforcer.LeaseID{7}, Item: enforcer.Item{Pool: "a"}}
			ev.Cause = rapid.SampledFrom(recordCauses[1:]).Draw(t, "cause")
		case enforcer.EventSet:
			ev.Draws = draws()
		case enforcer.EventDrawn:
			ev.Lease, ev.Draws = lease(), draws()
		case enforcer.EventRemembered:
			if ev.Lease = lease(); ev.Lease.Token == nil {
				ev.Lease.Token = &enforcer.ClientToken{Key: enforcer.TokenKey{4}}
			}
			if rapid.Bool().Draw(t, "over") {
				ev.Cause = rapid.SampledFrom(recordCauses[1:]).Draw(t, "cause")
			}
		default:
			ev.Lease = lease()
			if ev.Kind == enforcer.EventGranted && rapid.Bool().Draw(t, "terms") {
				ev.Terms = &enforcer.Terms{Issued: instants().Draw(t, "issued"), Free: rapid.Bool().Draw(t, "free"),
					Test:       rapid.Bool().Draw(t, "test"),
					OnExpiry:   rapid.SampledFrom(recordExpiries[1:]).Draw(t, "on_expiry"),
					Terminates: instants().Draw(t, "terminates")}
				copy(ev.Terms.ID[:], rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "licence"))
			}
		}
		return ev
	})
}

// Every event that is journalled is read back as it was, and the tables know all kinds, lifetimes and causes.
func TestRecords(t *testing.T) {
	same := newSameParts()
	rapid.Check(t, func(t *rapid.T) {
		ev := someEvent().Draw(t, "event")
		b := encodeEvent(nil, ev)
		for range 2 { // the second time every part is known
			got, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return ev.Lease }, same)
			if err != nil || !reflect.DeepEqual(got, ev) {
				t.Fatalf("%+v\nis read back, of parts that are known, as\n%+v, %v", ev, got, err)
			}
		}
		got, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return ev.Lease }, nil)
		if err != nil || !reflect.DeepEqual(got, ev) {
			t.Fatalf("%+v\nis read back as\n%+v, %v", ev, got, err)
		}
		for n := range b {
			if _, err := decodeEvent(b[:n], func(enforcer.LeaseID) *enforcer.Lease {
				return ev.Lease
			}, nil); err == nil {
				t.Fatalf("%d of %d bytes are read", n, len(b))
			}
		}
	})
	if len(recordCauses)-1 != len(enforcer.Causes()) {
		t.Error("not every cause has a number")
	}
}

// Journals of versions 1 to 3 are read; under which licence a lease was granted they do not say.
func TestRecordsOfEarlierVersions(t *testing.T) {
	at := time.Unix(1e9, 0).UTC()
	var b []byte
	for text, inode := range map[string]uint64{
		"01018080a0f6f4acdbe01b01020000000000000000000000000000010773747265616d730402008080a0f6f4acdbe01b" +
			"0000e807649a0100e724062f62696e2f78000000000000": 0,
		"02018080a0f6f4acdbe01b01020000000000000000000000000000010773747265616d730402008080a0f6f4acdbe01b" +
			"0000e807649a0100e724ac02062f62696e2f78000000000000": 300,
		"03018080a0f6f4acdbe01b01020000000000000000000000000000010773747265616d730402008080a0f6f4acdbe01b" +
			"0000e807649a0100e724ac0200062f62696e2f7800000000000000": 300,
	} {
		var err error
		if b, err = hex.DecodeString(text); err != nil {
			t.Fatal(err)
		}
		want := enforcer.Event{Kind: enforcer.EventGranted, At: at,
			Lease: &enforcer.Lease{ID: enforcer.LeaseID{1, 2}, Items: []enforcer.Item{{Pool: "streams", N: 2}},
				Lifetime: enforcer.LifetimeProcess, AcquiredAt: at,
				Holder: &enforcer.Holder{Caller: enforcer.Caller{UID: 1000, GID: 100, PID: 77, Start: 4711,
					Inode: inode, Exe: "/bin/x"}}}}
		got, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return nil }, nil)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	b[0] = recordVersionNewest + 1
	if _, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return nil }, nil); err == nil {
		t.Error("a record of a version to come is read")
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add(encodeEvent(nil, enforcer.Event{Kind: enforcer.EventGranted, At: time.Unix(1, 0),
		Lease: &enforcer.Lease{Items: []enforcer.Item{{Pool: "a", N: 1}},
			Lifetime: enforcer.LifetimeTTL, Holder: &enforcer.Holder{}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		held := &enforcer.Lease{Items: []enforcer.Item{{Pool: "a", N: 1}}, Lifetime: enforcer.LifetimeHeld,
			Holder: &enforcer.Holder{}}
		ev, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return held }, nil)
		if err != nil {
			return
		}
		once := encodeEvent(nil, ev)
		again, err := decodeEvent(once, func(enforcer.LeaseID) *enforcer.Lease { return held }, newSameParts())
		if err != nil || !reflect.DeepEqual(again, ev) {
			t.Fatalf("%+v\nis read back as\n%+v, %v", ev, again, err)
		}
		if twice := encodeEvent(nil, again); !bytes.Equal(twice, once) {
			t.Fatalf("%+v\nis written as %x, and then as %x", ev, once, twice)
		}
	})
}

// Parts of slots are in records of a version of their own, which an agent that knows no parts refuses to read, and
// nothing else is.
func TestRecordOfParts(t *testing.T) {
	for of, version := range map[int64]byte{0: recordVersion, 1: recordVersion, 64: recordVersionParts} {
		l := &enforcer.Lease{Items: []enforcer.Item{{Pool: "units", N: 3, Of: of}}, Lifetime: enforcer.LifetimeHeld,
			Holder: &enforcer.Holder{}}
		b := encodeEvent(nil, enforcer.Event{Kind: enforcer.EventGranted, Lease: l})
		if b[0] != version {
			t.Errorf("of %d: version %d, and not %d", of, b[0], version)
		}
		ev, err := decodeEvent(b, nil, nil)
		if want := (enforcer.Item{Pool: "units", N: 3, Of: of / 64 * 64}); err != nil || ev.Lease.Items[0] != want {
			t.Errorf("of %d: read back as %+v, %v", of, ev.Lease, err)
		}
	}
}
