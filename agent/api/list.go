package api

import (
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// getLeases writes a list of leases while the caller reads it, a portion at a time: a list may be long, and its reader
// slow. One user reads one list at a time.
func (s *Server) getLeases(c *call) {
	done, err := s.listings.take(c.req.Context(), c.peer.key())
	if err != nil {
		return // it has hung up
	}
	defer done()
	f := enforcer.Filter{Pool: c.req.URL.Query().Get("pool")}
	if !c.admin {
		u := c.peer.caller(false).Who()
		f.User = &u
	}
	rc := http.NewResponseController(c.ResponseWriter)
	c.Header().Set("Content-Type", "application/json")
	c.Header().Set("Cache-Control", "no-store")
	b, any := []byte(`{"leases":[`), false
	s.slots.List(f, enforcer.Cursor{}, func(some []*enforcer.Lease) bool {
		for _, l := range some {
			if !c.admin && !c.peer.sees(l.Holder) {
				continue
			}
			if any {
				b = append(b, ',')
			}
			any = true
			shape := s.leaseShape(l)
			b = appendLease(b, &shape)
		}
		if len(b) < listChunk {
			return true
		}
		rc.SetWriteDeadline(time.Now().Add(writeWithin))
		_, err = c.Write(b)
		b = b[:0]
		return err == nil
	})
	if err == nil {
		c.Write(append(b, ']', '}')) // a caller that has hung up wants no more
	}
}

// listChunk is how many bytes of a list are gathered before they are sent.
const listChunk = 32 << 10
