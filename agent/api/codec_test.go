package api

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// The hand-written codec writes what the library would.
func TestAppendLease(t *testing.T) {
	at := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
	})
	text := rapid.String()
	holder := rapid.Custom(func(t *rapid.T) wire.Holder {
		h := wire.Holder{UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
			PID: rapid.Int32().Draw(t, "pid"), Exe: text.Draw(t, "exe"), User: text.Draw(t, "user"),
			Credential: text.Draw(t, "credential")}
		if rapid.Bool().Draw(t, "labels") {
			h.Labels = rapid.MapOfN(text, text, 0, 3).Draw(t, "label")
		}
		return h
	})
	rapid.Check(t, func(t *rapid.T) {
		l := wire.Lease{ID: text.Draw(t, "id"), Pool: text.Draw(t, "pool"), N: rapid.Int64().Draw(t, "n"),
			Of:    rapid.Int64Range(0, 2).Draw(t, "of of the first"),
			Items: []wire.Item{}, Lifetime: text.Draw(t, "lifetime"),
			Liveness: text.Draw(t, "liveness"), State: text.Draw(t, "state"), AcquiredAt: at.Draw(t, "at"),
			Token: text.Draw(t, "token")}
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			l.Items = append(l.Items, wire.Item{Pool: text.Draw(t, "pool"), N: rapid.Int64().Draw(t, "n"),
				Of: rapid.Int64Range(0, 2).Draw(t, "of")})
		}
		if rapid.Bool().Draw(t, "expires") {
			l.ExpiresAt = new(at.Draw(t, "expires at"))
		}
		if rapid.Bool().Draw(t, "revoked") {
			l.RevokeAt = new(at.Draw(t, "revoke at"))
		}
		if rapid.Bool().Draw(t, "held") {
			l.Holder = new(holder.Draw(t, "holder"))
		}
		for range rapid.IntRange(0, 2).Draw(t, "others") {
			l.Others = append(l.Others, holder.Draw(t, "other"))
		}
		want, err := json.Marshal(l, json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		if got := appendLease(nil, &l); string(got) != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
	// The path of an executable may be anything.
	if got := appendText(nil, "a\xffb"); !utf8.Valid(got) {
		t.Errorf("got %q", got)
	}
}

// The short way reads what the library reads, or leaves it to the library.
func FuzzPlainRequest(f *testing.F) {
	for _, s := range []string{`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"a"}}`,
		`{"jsonrpc":"2.0","id":01,"method":"a","params":{}}`,
		`{"jsonrpc":"2.0","id":1,"method":"a","params":{},"id":2}`,
		`{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":1,"a":2}}`,
		`{"jsonrpc":"2.0","id":1,"method":"","params":{} }`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var r rpcRequest
		if !plainRequest(line, &r) {
			return
		}
		var want rpcRequest
		if err := json.Unmarshal(line, &want, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("%q: the library refuses it: %v", line, err)
		}
		if r.Version != want.Version || r.Method != want.Method || string(r.ID) != string(want.ID) ||
			strings.TrimSpace(string(r.Params)) != string(want.Params) {
			t.Fatalf("%q is read as %+v, and by the library as %+v", line, r, want)
		}
	})
}

func FuzzPlainMember(f *testing.F) {
	f.Add([]byte(`{"id":"00112233445566778899aabbccddeeff"}`))
	f.Add([]byte(`{"id":"a\u0062"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, ok := plainMember(b, "id")
		if !ok {
			return
		}
		var want wire.LeaseRequest
		if err := json.Unmarshal(b, &want, json.RejectUnknownMembers(true)); err != nil || want.ID != string(text) {
			t.Fatalf("%q is read as %q, and by the library as %q, %v", b, text, want.ID, err)
		}
	})
}

// An acquire that is read the short way is the request that the library and its checks make of it.
func FuzzPlainAcquire(f *testing.F) {
	for _, s := range []string{`{"pool":"streams"}`, `{"pool":"streams","n":2}`, `{"ttl_seconds":60,"n":0,"pool":"a"}`,
		`{"pool":"a","n":01}`, `{"pool":"a","n":1,"n":2}`, `{"pool":"","n":1}`, `{"n":1}`,
		`{"pool":"a","ttl_seconds":0}`,
		`{"pool":"a\u0062"}`, `{"pool":"a","n":999999999999999}`, `{"pool":"a","n":-1}`, `{"pool":"a"}{`,
		`{"pool":"a",}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := plainAcquire(b)
		if !ok {
			return
		}
		got := enforcer.Acquire{Caller: enforcer.Caller{UID: 7}}
		a.request(&got, string(a.pool))
		var in wire.AcquireRequest
		if d := unmarshal(b, &in); d != nil {
			t.Fatalf("%q is read as %+v, and the library refuses it: %+v", b, got, d)
		}
		want, d := acquireRequest(&in, enforcer.Caller{UID: 7})
		if d != nil || !reflect.DeepEqual(got, *want) {
			t.Fatalf("%q is read as %+v, and by the library as %+v, %+v", b, got, want, d)
		}
	})
}
