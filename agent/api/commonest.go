package api

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"slices"

	"github.com/usher-agent/usher/enforcer"
)

// The commonest calls over HTTP are an acquire of slots of one pool, and the release of a lease. They make as little
// garbage as net/http lets them, and take no way through tables.

// commonest is room for such calls. A connection has it from its first acquire on: its calls come one after the other.
type commonest struct {
	ask      enforcer.Acquire
	giveUp   enforcer.Release
	room     enforcer.Room
	body     [shortBody]byte
	pool     string // that the last such acquire named
	shape    leaseRoom
	out      []byte
	location [1]string
	takeBack func(enforcer.LeaseID)
}

// shortBody is the longest body of such an acquire, in bytes.
const shortBody = 512

// shortAnswer is the longest answer, in bytes, that net/http writes at once with its header, and counts itself.
const shortAnswer = 1 << 10

const leasesPath = "/v1/leases"

// commonRoute returns the route of such a call, and the lease that it names; nil: it is none.
func commonRoute(req *http.Request) (r *route, id enforcer.LeaseID) {
	path := req.URL.Path
	if req.URL.RawPath != "" || len(path) < len(leasesPath) || path[:len(leasesPath)] != leasesPath {
		return nil, id
	}
	rest := path[len(leasesPath):]
	switch {
	case req.Method == http.MethodPost && rest == "":
		return acquireRoute, id
	case req.Method == http.MethodDelete && len(rest) == 1+2*len(id) && rest[0] == '/':
		var text [2 * len(id)]byte
		copy(text[:], rest[1:])
		if id, ok := enforcer.ReadLeaseID(text[:]); ok {
			return releaseRoute, id
		}
	}
	return nil, id
}

var acquireRoute, releaseRoute *route

func init() { // a literal would be a cycle: the handlers use functions that use it
	find := func(method, path string) *route {
		return &table[slices.IndexFunc(table, func(r route) bool { return r.method == method && r.path == path })]
	}
	acquireRoute, releaseRoute = find("POST", leasesPath), find("DELETE", leasesPath+"/{id}")
}

// commonest returns the room of a call's connection; nil: it has none.
func (c *call) commonest() *commonest {
	k := c.connection
	if k == nil {
		return nil
	}
	if k.commonest == nil {
		s, p := c.server, &k.peer
		k.commonest = &commonest{takeBack: func(id enforcer.LeaseID) { s.undoLease(id, p.caller(false)) }}
	}
	return k.commonest
}

// plainAcquire answers an acquire of the commonest form, and reports whether the call was one. If it was not, the
// call's body is as if nobody had read it.
func (s *Server) plainAcquire(c *call) bool {
	n := c.req.ContentLength
	if n <= 0 || n > shortBody {
		return false
	}
	x := c.commonest()
	if x == nil {
		return false
	}
	b := x.body[:n]
	if read, err := io.ReadFull(c.req.Body, b); err != nil {
		c.req.Body = readAgain{bytes.NewReader(bytes.Clone(b[:read])), c.req.Body}
		return false
	}
	a, plain := plainAcquire(bytes.TrimSpace(b))
	if !plain || !isJSON(first(c.req.Header["Content-Type"])) {
		c.req.Body = readAgain{bytes.NewReader(bytes.Clone(b)), c.req.Body}
		return false
	}
	if string(a.pool) != x.pool {
		x.pool = string(a.pool)
	}
	x.ask = enforcer.Acquire{Room: &x.room}
	c.peer.call(&x.ask.Caller, c.admin)
	a.request(&x.ask, x.pool)
	g, d := s.slots.Acquire(c.req.Context(), &x.ask)
	if d != nil {
		s.answerDenial(c, d)
		return true
	}
	x.out = append(x.shape.append(x.out[:0], s, g.Lease, ""), '\n')
	if g.Late != nil || len(x.out) > shortAnswer {
		s.answerAcquire(c, g, "", x.takeBack)
		return true
	}
	h := c.Header()
	h["Content-Type"] = jsonType
	var location [len(leasesPath) + 1 + 2*len(g.ID)]byte
	x.location[0] = string(hex.AppendEncode(append(location[:0], leasesPath+"/"...), g.ID[:]))
	h["Location"] = x.location[:]
	if undoable(g.Lease) {
		c.connection.answers(unread{g.ID, x.takeBack, true})
	}
	c.WriteHeader(http.StatusCreated)
	c.Write(x.out) // into a buffer, which net/http sends when the call has ended
	return true
}

// readAgain is a body of which a part has been read.
type readAgain struct {
	io.Reader
	rest io.ReadCloser
}

func (r readAgain) Read(p []byte) (int, error) {
	if n, err := r.Reader.Read(p); n > 0 || err != io.EOF {
		return n, err
	}
	return r.rest.Read(p)
}

func (r readAgain) Close() error { return r.rest.Close() }

// first returns the first of a header's values; empty: there is none.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
