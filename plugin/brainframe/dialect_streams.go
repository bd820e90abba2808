package brainframe

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/usher-agent/usher/enforcer"
)

// streamLabel is the label of a lease that says which stream it is for.
const streamLabel = "stream"

// streamID reads the id of a stream: a whole number.
func streamID(s string) (int64, bool) {
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil && id >= 0 && s[0] != '+'
}

// streams finds the leases of streams. The leases themselves are the truth: this is an index of them, made when a
// caller first asks. Its zero value is ready.
type streams struct {
	// busy is held while a stream's analysis begins or ends, so that it has one lease. Streams whose ids differ by no
	// multiple of its length do not meet.
	busy [64]sync.Mutex

	mu sync.Mutex // guards by
	by map[owner]map[int64]enforcer.LeaseID
}

// owner is a caller, as far as leases belong to it.
type owner struct {
	uid        uint32
	credential string
}

// lease returns the lease of a stream; nil: it is not analysed.
func (x *request) lease() *enforcer.Lease {
	id, ok := x.streams.find(x, x.stream)
	if !ok {
		return nil
	}
	l, ok := x.Lease(id, x.caller)
	if !ok { // it was released by force, or its grant never reached the caller
		x.streams.forget(x, x.stream, id)
		return nil
	}
	return l
}

// leases returns the index of a request's caller. s.mu is held.
func (s *streams) leases(x *request) map[int64]enforcer.LeaseID {
	who := owner{x.caller.UID, x.caller.Credential}
	if m := s.by[who]; m != nil {
		return m
	}
	m := map[int64]enforcer.LeaseID{}
	for _, l := range x.Leases(x.caller) {
		if id, ok := streamID(string(l.Data.Bytes)); ok {
			m[id] = l.ID
		}
	}
	if s.by == nil {
		s.by = map[owner]map[int64]enforcer.LeaseID{}
	}
	s.by[who] = m
	return m
}

func (s *streams) find(x *request, stream int64) (enforcer.LeaseID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.leases(x)[stream]
	return id, ok
}

func (s *streams) keep(x *request, stream int64, id enforcer.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases(x)[stream] = id
}

// forget takes a stream's lease out of the index, unless the stream has another one by now.
func (s *streams) forget(x *request, stream int64, id enforcer.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.leases(x); m[stream] == id {
		delete(m, stream)
	}
}

// analyzing answers whether a stream is analysed.
func (x *request) analyzing() *answer {
	return &answer{body: strconv.AppendBool(nil, x.lease() != nil)}
}

// analyze begins or ends the analysis of a stream. To begin what has begun, and to end what has ended, is no error.
func (x *request) analyze() *answer {
	b, err := io.ReadAll(x.r.Body)
	if large(err) {
		return failed(http.StatusRequestEntityTooLarge, InvalidFormat, "the body is too large: true or false is needed")
	}
	switch string(bytes.TrimSpace(b)) {
	case "true":
		return x.begin()
	case "false":
		return x.end()
	}
	return failed(http.StatusBadRequest, InvalidFormat, "the body must be true or false")
}

func (x *request) begin() *answer {
	busy := &x.streams.busy[x.stream%int64(len(x.streams.busy))]
	busy.Lock()
	defer busy.Unlock()
	if x.lease() != nil {
		return &answer{body: []byte("true")}
	}
	id := strconv.FormatInt(x.stream, 10)
	l, _, d := x.Acquire(x.r.Context(), &enforcer.Acquire{Caller: x.caller, Pool: PoolStreams, N: 1,
		Lifetime: enforcer.LifetimeHeld, Labels: map[string]string{streamLabel: id}}, []byte(id))
	if d == nil {
		x.streams.keep(x, x.stream, l.ID)
		d = x.Late(x.r)
	}
	if d != nil {
		return denied(d)
	}
	return &answer{body: []byte("true")}
}

func (x *request) end() *answer {
	busy := &x.streams.busy[x.stream%int64(len(x.streams.busy))]
	busy.Lock()
	defer busy.Unlock()
	l := x.lease()
	if l == nil {
		return &answer{body: []byte("false")}
	}
	if d := x.Release(&enforcer.Release{ID: l.ID, Caller: x.caller}); d != nil && d.Code != enforcer.LeaseUnknown {
		return denied(d)
	}
	x.streams.forget(x, x.stream, l.ID)
	return &answer{body: []byte("false")}
}
