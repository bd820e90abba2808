package api

import (
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// UsageQuery says which usage is asked for.
type UsageQuery struct {
	Since, Until time.Time
	Pool         string // only of this pool; empty: of all
	Signed       bool   // as a JWS of the agent's key, too
	Nonce        string // that the JWS has in it
	ByUser       bool   // by user and day, too
}

// usagePeriod is what is told where no beginning is given.
const usagePeriod = 24 * time.Hour

// The longest period, and the length in bytes of the longest nonce of a report.
const (
	longestUsage   = 10 * 366 * 24 * time.Hour
	maxReportNonce = 256
)

func (s *Server) getUsage(c *call) {
	q, d := s.readUsage(c)
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	done, err := s.listings.take(c.req.Context(), c.peer.key())
	if err != nil {
		return // it has hung up
	}
	defer done()
	out, d := s.operations.Usage(c.req.Context(), q)
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	s.answer(c, http.StatusOK, out)
}

func (s *Server) readUsage(c *call) (out UsageQuery, d *enforcer.Denial) {
	q := c.req.URL.Query()
	out.Until = s.operations.Clock().Time
	for _, t := range []struct {
		name string
		to   *time.Time
	}{{"until", &out.Until}, {"since", &out.Since}} {
		text := q.Get(t.name)
		if text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return out, badRequest(t.name, "give a time such as 2027-01-31T18:00:00Z", "%s is %q", t.name,
				plugin.Short(text))
		}
		*t.to = at.UTC()
	}
	if out.Since.IsZero() {
		out.Since = out.Until.Add(-usagePeriod)
	}
	if !out.Since.Before(out.Until) {
		return out, badRequest("since", "give a since that is before until", "the period ends before it begins")
	}
	if out.Until.Sub(out.Since) > longestUsage {
		return out, badRequest("since", "give a later since", "the period is longer than ten years")
	}
	if out.Pool = q.Get("pool"); len(out.Pool) > enforcer.MaxName {
		return out, badRequest("pool", "", "pool has %d bytes, and the most is %d", len(out.Pool), enforcer.MaxName)
	}
	switch text := q.Get("by"); text {
	case "":
	case "user":
		out.ByUser = true
	default:
		return out, badRequest("by", "give user, or leave it out", "by is %q", plugin.Short(text))
	}
	switch text := q.Get("signed"); text {
	case "", "false":
	case "true":
		out.Signed = true
	default:
		return out, badRequest("signed", "give true or false", "signed is %q", plugin.Short(text))
	}
	if out.Nonce = q.Get("nonce"); len(out.Nonce) > maxReportNonce {
		return out, badRequest("nonce", "", "nonce has %d bytes, and the most is %d", len(out.Nonce), maxReportNonce)
	}
	if out.Signed && out.Pool != "" {
		return out, badRequest("pool", "leave out pool, or signed: a signed report has whole hours, or the chain of "+
			"hours could not be checked", "a signed report is not of one pool")
	}
	return out, nil
}
