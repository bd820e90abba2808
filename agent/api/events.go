package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// keepAlive is how often a quiet stream says that it is still there.
const keepAlive = 15 * time.Second

// events streams what happens as server-sent events (WHATWG HTML, §9.2). The first says what licence is in force.
func (s *Server) events(c *call) {
	events, cancel := s.desk.Subscribe(visible(c.peer, c.admin))
	defer cancel()
	rc := http.NewResponseController(c.ResponseWriter)
	if err := rc.SetReadDeadline(time.Time{}); err != nil { // a listener sends nothing
		s.answerDenial(c, &enforcer.Denial{Code: Internal, Detail: "this connection cannot stream"})
		return
	}
	h := c.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	send := func(text string) bool {
		rc.SetWriteDeadline(time.Now().Add(writeWithin))
		_, err := fmt.Fprint(c, text)
		return err == nil && rc.Flush() == nil
	}
	l := s.desk.License()
	if !send(eventText(wire.Event{Type: "license.changed", At: time.Now().UTC(), State: l.State, Code: l.Code, Reason: l.Reason})) {
		return
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-c.req.Context().Done():
			return
		case <-s.ending:
			return
		case ev, ok := <-events:
			if !ok {
				send(": this stream was too slow and is cut off; connect again\n\n")
				return
			}
			if !send(eventText(ev)) {
				return
			}
		case <-tick.C:
			if !send(": still here\n\n") {
				return
			}
		}
	}
}

// sees reports whether a caller may see a holder's leases without showing their ids: those of its own user or, where it is nobody,
// of its own process.
func (p *peer) sees(h *enforcer.Holder) bool {
	c := p.caller(false)
	return h.SameUser(c) || h.SameProcess(c)
}

// visible says which leases' events a caller may see: its own, and an admin all.
func visible(p *peer, admin bool) func(*enforcer.Holder, *wire.Event) bool {
	if admin {
		return nil
	}
	return func(h *enforcer.Holder, _ *wire.Event) bool { return p.sees(h) }
}

func eventText(ev wire.Event) string {
	b, err := json.Marshal(ev)
	if err != nil {
		return ": an event could not be written\n\n"
	}
	return "event: " + ev.Type + "\ndata: " + string(b) + "\n\n"
}
