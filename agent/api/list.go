package api

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

const (
	// listChunk is how many bytes of a list are gathered before they are sent.
	listChunk = 32 << 10
	// mostListed is how many leases a page may have.
	mostListed = 1000
)

// listing is a list of leases as its caller asks for it.
type listing struct {
	filter enforcer.Filter
	after  enforcer.Cursor
	limit  int // of the leases of a page; 0: all of them in one answer
}

// readListing reads the query of a list.
func readListing(c *call) (in listing, d *enforcer.Denial) {
	q := c.req.URL.Query()
	in.filter.Pool = q.Get("pool")
	if !c.admin {
		u := c.peer.caller(false).Who()
		in.filter.User = &u
	}
	if d = in.of(q, c.admin); d != nil {
		return in, d
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostListed {
			return in, badRequest("limit", "leave it out for all leases in one answer",
				"limit is %q: give from 1 to %d",
				plugin.Short(text), mostListed)
		}
		in.limit = n
	}
	if text := q.Get("after"); text != "" {
		var ok bool
		if in.after, ok = parseCursor(text); !ok {
			return in, badRequest("after", "give the next of the page before as it is",
				"after is %q, which is no place "+
					"in a list of leases", plugin.Short(text))
		}
	}
	return in, nil
}

// of reads whose leases are listed.
func (in *listing) of(q url.Values, admin bool) *enforcer.Denial {
	text := q.Get("uid")
	if text == "" {
		return nil
	}
	uid, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return badRequest("uid", "give a user's number, as id -u prints it", "uid is %q", plugin.Short(text))
	}
	u := enforcer.User{UID: uint32(uid)}
	if !admin && *in.filter.User != u {
		return &enforcer.Denial{Code: enforcer.Forbidden, Detail: "the leases of other users are for admins",
			Hint: "ask as root, as the agent's user, or by a rule under socket.admin"}
	}
	in.filter.User = &u
	return nil
}

// A cursor on the wire is the second, the nanosecond and the id, big-endian, in base64url without padding.
const cursorSize = 8 + 4 + 16

func cursorText(at enforcer.Cursor) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, cursorSize), uint64(at.At.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(at.At.Nanosecond()))
	return base64.RawURLEncoding.EncodeToString(append(b, at.ID[:]...))
}

func parseCursor(text string) (at enforcer.Cursor, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != cursorSize {
		return at, false
	}
	at.At = time.Unix(int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint32(b[8:])))
	copy(at.ID[:], b[12:])
	return at, true
}

// listRoom is room to write a list in. A list of a million leases that made garbage of each would have the heap grow by
// all that the collector lets it.
type listRoom struct {
	b     []byte
	lease leaseRoom
}

var listRooms = sync.Pool{New: func() any { return &listRoom{b: make([]byte, 0, listChunk+listChunk/2)} }}

// getLeases writes a list of leases, or a page of one, while the caller reads it, a portion at a time: a list may be
// long, and its reader slow. One user reads one list at a time.
func (s *Server) getLeases(c *call) {
	in, d := readListing(c)
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	done, err := s.listings.take(c.req.Context(), c.peer.key())
	if err != nil {
		return // it has hung up
	}
	defer done()
	rc := http.NewResponseController(c.ResponseWriter)
	c.Header().Set("Content-Type", "application/json")
	c.Header().Set("Cache-Control", "no-store")
	room := listRooms.Get().(*listRoom)
	defer listRooms.Put(room)
	b, n, last, more := append(room.b[:0], `{"leases":[`...), 0, in.after, false
	defer func() { room.b = b[:0] }()
	s.slots.List(in.filter, in.after, func(some []*enforcer.Lease) bool {
		for _, l := range some {
			if !c.admin && !c.peer.sees(l.Holder) {
				continue
			}
			if more = in.limit > 0 && n == in.limit; more {
				return false
			}
			if n > 0 {
				b = append(b, ',')
			}
			n, last = n+1, enforcer.CursorOf(l)
			b = room.lease.append(b, s, l, "")
		}
		if len(b) < listChunk {
			return c.req.Context().Err() == nil
		}
		rc.SetWriteDeadline(time.Now().Add(writeWithin))
		_, err = c.Write(b)
		b = b[:0]
		return err == nil
	})
	if err != nil || c.req.Context().Err() != nil {
		return // a caller that has hung up wants no more
	}
	b = append(b, ']')
	if more {
		b = append(append(append(b, `,"next":"`...), cursorText(last)...), '"')
	}
	c.Write(append(b, '}'))
}
