package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// livenessDesk says how a lease is watched.
type livenessDesk struct {
	echo
	says *string
}

func (d livenessDesk) Liveness(*enforcer.Lease) string { return *d.says }

// Whatever a session has written before, an answer that is a lease is what a session writes that has written nothing.
func TestALeaseWrittenAgain(t *testing.T) {
	second := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	holders := []*enforcer.Holder{{Caller: enforcer.Caller{UID: 7, PID: 8, Exe: "/usr/bin/a"}},
		{Caller: enforcer.Caller{UID: 7, PID: 8, Exe: "/usr/bin/a"}}, {Caller: enforcer.Caller{UID: 7, PID: 9}},
		{Caller: enforcer.Caller{UID: 7, PID: 8, Exe: "/usr/bin/a"}, Labels: map[string]string{"a": "b"}},
		{Caller: enforcer.Caller{UID: 7, PID: 8, Exe: `","acquired_at":"`}}}
	rare := func(t *rapid.T, what string) bool { return rapid.IntRange(0, 15).Draw(t, what) == 11 }
	rapid.Check(t, func(t *rapid.T) {
		says, other := "peerpidfd", 0
		server := &Server{slots: livenessDesk{says: &says}}
		x := &session{server: server, pen: new(writing)}
		for range rapid.IntRange(1, 20).Draw(t, "answers") {
			l := &enforcer.Lease{Lifetime: enforcer.LifetimeProcess, AcquiredAt: second,
				Items:  []enforcer.Item{{Pool: "streams", N: rapid.Int64Range(1, 2).Draw(t, "n")}},
				Holder: holders[max(0, rapid.IntRange(-9, len(holders)-1).Draw(t, "holder"))]}
			copy(l.ID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "lease"))
			l.AcquiredAt = second.Add(time.Duration(rapid.IntRange(0, 1_100_000_000).Draw(t, "time")))
			if rare(t, "expires") {
				l.ExpiresAt = second.Add(time.Hour)
			}
			if rare(t, "revoked") {
				l.RevokeAt = second.Add(time.Minute)
			}
			if rare(t, "others") {
				l.Others = holders[:1]
			}
			if rare(t, "lifetime") {
				l.Lifetime = enforcer.LifetimeConnection
			}
			if rare(t, "pools") {
				l.Items = append(l.Items, enforcer.Item{Pool: "other", N: 1})
			}
			if rare(t, "pool") {
				l.Items[0].Pool = `x","acquired_at":"`
			}
			if rare(t, "way") {
				other++
				says = fmt.Sprint("pidfd", other%2)
			}
			l.Unconfirmed = rare(t, "unconfirmed")
			token := ""
			if rare(t, "token") {
				token = "signed"
			}
			id := jsontext.Value(fmt.Sprint(rapid.IntRange(8, 11).Draw(t, "request")))
			fresh := &session{server: server, pen: new(writing)}
			if x.pen.out = x.pen.out[:0]; rapid.Bool().Draw(t, "another session") {
				x = &session{server: server, pen: x.pen}
			}
			for _, s := range []*session{x, fresh} {
				s.writeLease(id, Grant{Lease: l}, token, false)
			}
			if string(x.pen.out) != string(fresh.pen.out) {
				t.Fatalf("got  %s\nwant %s", x.pen.out, fresh.pen.out)
			}
			switch x.pen.out = x.pen.out[:0]; rapid.IntRange(0, 4).Draw(t, "then") {
			case 0:
				x.notify(&Event{Event: wire.Event{Type: "license.changed"}, JSON: []byte(`{}`)})
			case 1, 2:
				x.reply(id, struct{}{}, nil)
				if want := fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{}}`+"\n", id); string(x.pen.out) != want {
					t.Fatalf("got %q, want %q", x.pen.out, want)
				}
			default:
			}
		}
	})
}
