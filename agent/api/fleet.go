package api

import (
	"net/http"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// EvictWithin bounds how long one call may wait for the fence of a host that it evicts.
const EvictWithin = 15 * time.Minute

func (s *Server) getFleet(c *call) {
	out, d := s.operations.Fleet(c.req.Context())
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) drainHost(c *call) {
	out, d := s.operations.DrainHost(c.req.Context(), c.peer.caller(c.admin), c.req.PathValue("host"),
		c.req.Method == http.MethodDelete)
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) evictHost(c *call) {
	var in wire.FleetEviction
	undo := c.req.Method == http.MethodDelete
	var d *enforcer.Denial
	var wait time.Duration
	if !undo {
		if d = decode(c, c.req, &in, true); d == nil {
			wait, d = seconds("wait_seconds", in.WaitSeconds)
		}
		if d == nil && wait > EvictWithin {
			d = badRequest("wait_seconds", "give up to 900", "wait_seconds is %v", in.WaitSeconds)
		}
		if d == nil {
			d = s.wait(c, wait+writeWithin)
		}
	}
	var out wire.FleetDone
	if d == nil {
		out, d = s.operations.EvictHost(c.req.Context(), c.peer.caller(c.admin), c.req.PathValue("host"), wait, undo)
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}
