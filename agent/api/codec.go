package api

import (
	"bytes"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/client/wire"
)

// plainRequest reads a request in the form that clients write, {"jsonrpc":"2.0","id":1,"method":"a.b","params":{…}}
// without spaces between, and reports whether it has that form. params is one valid JSON value. The request's ID and
// Params are parts of line. It is written where it is to stand: see [enforcer.Room].
func plainRequest(line []byte, r *rpcRequest) bool {
	*r = rpcRequest{}
	rest, ok := bytes.CutPrefix(line, []byte(`{"jsonrpc":"2.0","id":`))
	if !ok {
		return false
	}
	n := 0
	for n < len(rest) && n < 19 && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	if n == 0 || n > 1 && rest[0] == '0' {
		return false
	}
	id := rest[:n]
	if rest, ok = bytes.CutPrefix(rest[n:], []byte(`,"method":"`)); !ok {
		return false
	}
	for n = 0; n < len(rest) && (rest[n] >= 'a' && rest[n] <= 'z' || rest[n] == '.'); n++ {
	}
	method := rest[:n]
	if rest, ok = bytes.CutPrefix(rest[n:], []byte(`","params":`)); !ok || len(rest) < 3 || rest[len(rest)-1] != '}' {
		return false
	}
	params := jsontext.Value(rest[:len(rest)-1])
	r.Version, r.ID, r.Method, r.Params = "2.0", id, methodName(method), params
	var plain bool
	if r.acquire, plain = plainAcquire(params); plain {
		return true
	}
	r.acquire.pool = nil
	_, plain = plainMember(params, "id")
	return plain || params.IsValid()
}

// plainMember reads an object of one member whose value is a text without escapes: {"id":"…"}. The text is part of
// object.
func plainMember(object []byte, name string) (text []byte, ok bool) {
	n := len(`{"`) + len(name) + len(`":`)
	if len(object) < n || string(object[:2]) != `{"` || string(object[2:2+len(name)]) != name ||
		string(object[2+len(name):n]) != `":` {
		return nil, false
	}
	text, rest, ok := plainText(object[n:])
	return text, ok && len(rest) == 1 && rest[0] == '}'
}

// plainText reads a JSON string without escapes that b begins with. It returns the text, which is part of b, and what
// follows.
func plainText(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i, c := range b[1:] {
		if c == '"' {
			return b[1 : 1+i], b[2+i:], true
		}
		if c < ' ' || c == '\\' || c >= 0x7f {
			break
		}
	}
	return nil, nil, false
}

// plainNumber reads a whole number of at most so many digits, which is not negative, that b begins with.
func plainNumber(b []byte, most int) (v int64, rest []byte, ok bool) {
	n := 0
	for ; n < len(b) && n < most && b[n] >= '0' && b[n] <= '9'; n++ {
		v = 10*v + int64(b[n]-'0')
	}
	return v, b[n:], n == 1 || n > 1 && b[0] != '0'
}

// simpleAcquire is the commonest request for slots.
type simpleAcquire struct {
	pool    []byte // never empty
	n       int64  // 1 unless it says otherwise
	seconds int64  // ttl_seconds; 0: it says nothing
}

// plainAcquire reads an object of a pool, and at most n and ttl_seconds besides, in any order and without spaces:
// {"pool":"streams","n":1}. The pool is part of object.
func plainAcquire(object []byte) (a simpleAcquire, ok bool) {
	if len(object) == 0 || object[0] != '{' {
		return a, false
	}
	a.n = 1
	var hasN bool
	for rest := object[1:]; ; rest = rest[1:] {
		name, after, ok := plainText(rest)
		if !ok || len(after) == 0 || after[0] != ':' {
			return a, false
		}
		after = after[1:]
		switch string(name) {
		case "pool":
			if a.pool != nil {
				return a, false
			}
			if a.pool, rest, ok = plainText(after); len(a.pool) == 0 {
				return a, false
			}
		case "n":
			if hasN {
				return a, false
			}
			hasN = true
			a.n, rest, ok = plainNumber(after, 15)
		case "ttl_seconds":
			if a.seconds != 0 {
				return a, false
			}
			if a.seconds, rest, ok = plainNumber(after, 9); a.seconds == 0 {
				return a, false
			}
		default:
			return a, false
		}
		switch {
		case !ok || len(rest) == 0:
			return a, false
		case len(rest) == 1:
			return a, rest[0] == '}' && a.pool != nil
		case rest[0] != ',':
			return a, false
		}
	}
}

// appendParts appends of how many parts of a slot an n is; 0: of slots.
func appendParts(b []byte, of int64) []byte {
	if of == 0 {
		return b
	}
	return strconv.AppendInt(append(b, `,"of":`...), of, 10)
}

// appendLease appends a lease's JSON, the very bytes that the library would write, at a third of the cost. It is a
// session's commonest answer.
func appendLease(b []byte, l *wire.Lease) []byte {
	return appendTerms(appendText(append(b, `{"id":`...), l.ID), l)
}

// appendTerms appends the rest of a lease's JSON, after its id.
func appendTerms(b []byte, l *wire.Lease) []byte {
	b = append(b, `,"pool":`...)
	b = appendText(b, l.Pool)
	b = append(b, `,"n":`...)
	b = appendParts(strconv.AppendInt(b, l.N, 10), l.Of)
	b = append(b, `,"items":[`...)
	for i, it := range l.Items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"pool":`...)
		b = appendText(b, it.Pool)
		b = append(b, `,"n":`...)
		b = append(appendParts(strconv.AppendInt(b, it.N, 10), it.Of), '}')
	}
	b = append(b, `],"lifetime":`...)
	b = appendText(b, l.Lifetime)
	b = append(b, `,"liveness":`...)
	b = appendText(b, l.Liveness)
	b = append(b, `,"state":`...)
	b = appendText(b, l.State)
	b = append(b, `,"acquired_at":`...)
	b = appendTime(b, &l.AcquiredAt)
	b = append(b, `,"expires_at":`...)
	b = appendTime(b, l.ExpiresAt)
	if l.RevokeAt != nil {
		b = append(b, `,"revoke_at":`...)
		b = appendTime(b, l.RevokeAt)
	}
	if l.Token != "" {
		b = append(b, `,"token":`...)
		b = appendText(b, l.Token)
	}
	if l.Holder != nil {
		b = append(b, `,"holder":`...)
		b = appendHolder(b, l.Holder)
	}
	if len(l.Others) > 0 {
		b = append(b, `,"others":[`...)
		for i := range l.Others {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendHolder(b, &l.Others[i])
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendHolder(b []byte, h *wire.Holder) []byte {
	b = append(b, `{"uid":`...)
	b = strconv.AppendUint(b, uint64(h.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(h.GID), 10)
	b = append(b, `,"pid":`...)
	b = strconv.AppendInt(b, int64(h.PID), 10)
	if h.Exe != "" {
		b = append(b, `,"exe":`...)
		b = appendText(b, h.Exe)
	}
	if h.User != "" {
		b = append(b, `,"user":`...)
		b = appendText(b, h.User)
	}
	if h.Credential != "" {
		b = append(b, `,"credential":`...)
		b = appendText(b, h.Credential)
	}
	if len(h.Labels) > 0 {
		b = append(b, `,"labels":`...)
		labels, err := json.Marshal(h.Labels, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
		if err != nil {
			labels = []byte("{}")
		}
		b = append(b, labels...)
	}
	return append(b, '}')
}

// appendText appends a JSON string. An executable's path may not be UTF-8; invalid bytes are replaced.
func appendText(b []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(b, '"'), s...), '"')
	}
	out, _ := jsontext.AppendQuote(b, s) // invalid UTF-8 is replaced, and the error says so
	return out
}

func appendTime(b []byte, t *time.Time) []byte {
	if t == nil {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}
