package api

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

func (s *Server) getLicense(c *call) {
	s.answer(c, http.StatusOK, s.documents.License())
}

func (s *Server) putLicense(c *call) {
	dryRun, d := flag(c, "dry_run")
	if d == nil {
		var doc []byte
		if doc, d = body(c, c.req, plugin.MaxDocument); d == nil {
			if len(doc) == 0 {
				d = badRequest("document", "send the licence file as the body", "the body is empty")
			} else {
				var out wire.Installed
				if out, d = s.documents.Install(c.req.Context(), doc, c.req.URL.Query().Get("name"), dryRun); d == nil {
					s.answer(c, http.StatusOK, out)
					return
				}
			}
		}
	}
	s.answerDenial(c, d)
}

func (s *Server) rollback(c *call) {
	out, d := s.documents.Rollback(c.req.Context(), c.req.URL.Query().Get("name"))
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) returnLicense(c *call) {
	var in wire.ReturnRequest
	d := decode(c, c.req, &in, false)
	if d == nil && in.License == "" {
		d = badRequest("license", "give the licence's id", "license is missing")
	}
	if d == nil {
		d = s.wait(c, upstreamWithin)
	}
	var out wire.Returned
	if d == nil {
		out, d = s.documents.Return(c.req.Context(), c.peer.caller(c.admin), in.License)
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) getEmergencies(c *call) { s.answer(c, http.StatusOK, s.documents.Emergencies()) }

func (s *Server) beginEmergency(c *call) {
	var in wire.EmergencyRequest
	d := decode(c, c.req, &in, false)
	var out wire.Emergency
	if d == nil {
		out, d = s.documents.BeginEmergency(c.peer.caller(c.admin), in.Reason)
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) deleteDocument(c *call) {
	if d := s.documents.Remove(c.req.Context(), c.req.PathValue("name")); d != nil {
		s.answerDenial(c, d)
		return
	}
	c.WriteHeader(http.StatusNoContent)
}

func (s *Server) getFeatures(c *call) {
	s.answer(c, http.StatusOK, wire.Features{Features: s.documents.License().Features})
}

func (s *Server) getFeature(c *call) {
	name := c.req.PathValue("name")
	s.answer(c, http.StatusOK, wire.NamedFeature{Name: name, Feature: s.documents.License().Features[name]})
}

func (s *Server) getPools(c *call) {
	out := wire.Pools{Pools: []wire.Pool{}}
	for _, p := range s.slots.Pools() {
		out.Pools = append(out.Pools, poolShape(p, c.peer, c.admin))
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) getPool(c *call) {
	name := c.req.PathValue("name")
	p, ok := s.slots.Pool(name)
	if !ok {
		var known []string
		for _, p := range s.slots.Pools() {
			known = append(known, p.Name)
		}
		hint := "the licence in force grants no pools"
		if len(known) > 0 {
			hint = "known are: " + strings.Join(known, ", ")
		}
		s.answerDenial(c, &enforcer.Denial{Code: enforcer.PoolUnknown, Field: "name",
			Detail: "pool " + strconv.Quote(plugin.Short(name)) + " is not in the licence", Hint: hint})
		return
	}
	s.answer(c, http.StatusOK, poolShape(p, c.peer, c.admin))
}

func (s *Server) adjust(c *call) {
	var in wire.AdjustRequest
	d := decode(c, c.req, &in, false)
	if d == nil {
		d = s.slots.Adjust(&enforcer.Adjust{Pool: c.req.PathValue("name"), Drawn: in.Drawn,
			Caller: c.peer.caller(c.admin)})
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.getPool(c)
}

// poolShape is a pool as a caller may see it.
func poolShape(p enforcer.PoolStatus, to *peer, admin bool) wire.Pool {
	out := wire.Pool{Name: p.Name, Kind: "pool", Unit: p.Unit, Limit: count(p.Limit), Scope: string(p.Scope),
		Budget: count(p.Budget),
		InUse:  p.InUse, Available: count(p.Available()), Waiting: p.Waiting, Reserved: p.Reserved, Peak: p.Peak,
		Lingering: p.Lingering,
		Leases:    p.Leases, Quantum: p.Quantum, Parts: p.Parts}
	if p.Meter {
		out.Kind = "meter"
	}
	if p.CountBy != enforcer.CountLease {
		out.CountBy = string(p.CountBy)
	}
	for _, h := range p.HoldOffs {
		if admin || h.Concerns(to.caller(false)) {
			out.HoldOffs = append(out.HoldOffs, holdOffShape(h))
		}
	}
	return out
}

// flag reads a query parameter that is true or false.
func flag(c *call, name string) (bool, *enforcer.Denial) {
	if c.req.URL.RawQuery == "" || !c.req.URL.Query().Has(name) {
		return false, nil
	}
	v := c.req.URL.Query().Get(name)
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, badRequest(name, "use true or false", "%s is %q", name, plugin.Short(v))
	}
	return b, nil
}
