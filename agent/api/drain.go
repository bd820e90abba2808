package api

import (
	"net/http"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// upstreamWithin bounds how long giving places back may take, of as many licences as there are.
const upstreamWithin = 5 * time.Minute

// wait lets a call take longer than calls usually do. The caller sends nothing meanwhile, and the server notices when
// it hangs up.
func (s *Server) wait(c *call, d time.Duration) *enforcer.Denial {
	rc := http.NewResponseController(c.ResponseWriter)
	if rc.SetReadDeadline(time.Time{}) != nil || rc.SetWriteDeadline(time.Now().Add(d+writeWithin)) != nil {
		return &enforcer.Denial{Code: Internal, Detail: "this connection cannot wait"}
	}
	return nil
}

func (s *Server) releaseHost(c *call) {
	var in wire.ReleaseRequest
	d := decode(c, c.req, &in, true)
	if d == nil {
		d = s.wait(c, upstreamWithin)
	}
	var out wire.Releases
	if d == nil {
		out, d = s.operations.ReleaseHost(c.req.Context(), c.peer.caller(c.admin), in.License)
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) drain(c *call) {
	var in wire.DrainRequest
	d := decode(c, c.req, &in, true)
	var wait time.Duration
	if d == nil {
		wait, d = seconds("wait_seconds", in.WaitSeconds)
	}
	if d == nil && wait > 24*time.Hour {
		d = badRequest("wait_seconds", "give up to 86400", "wait_seconds is %v", in.WaitSeconds)
	}
	if d == nil {
		d = s.wait(c, wait+upstreamWithin)
	}
	var out wire.Drain
	if d == nil {
		out, d = s.operations.Drain(c.req.Context(), c.peer.caller(c.admin), wait, in.Release)
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) getDrain(c *call) { s.answer(c, http.StatusOK, s.operations.Drained()) }

func (s *Server) undrain(c *call) {
	if d := s.operations.Undrain(c.peer.caller(c.admin)); d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, s.operations.Drained())
}
