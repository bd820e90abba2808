package api

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/redact"
)

// keepAlive is how often a quiet stream shows that it is alive.
const keepAlive = 15 * time.Second

// events streams what happens as server-sent events (WHATWG HTML, §9.2). The first event says which licence is in
// force.
func (s *Server) events(c *call) {
	if d := s.subscribe(c.peer); d != nil {
		s.answerDenial(c, d)
		return
	}
	defer s.subscribers.give(c.peer.key(), 1)
	rights, stop := s.while(c.req.Context(), c.peer, c.rights, c.rights.same)
	defer stop()
	events := s.feeds.Subscribe(visible(c.peer, c.admin))
	defer events.Cancel()
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
	l := s.documents.License()
	l.Reason = redact.Text(l.Reason)
	first := Event{Event: wire.Event{Type: "license.changed", At: s.now().UTC(), State: l.State, Code: l.Code,
		Reason: l.Reason}}
	var err error
	if first.JSON, err = marshal(first.Event); err != nil || !send(eventTexts([]*Event{&first})) {
		return
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-rights.Done():
			if lostRights(rights) {
				send(": the rules of who may call have changed; connect again\n\n")
			}
			return
		case <-s.ends.Done():
			return
		case _, open := <-events.C:
			if some := events.Take(); len(some) > 0 && rights.Err() == nil && !send(eventTexts(some)) || !open {
				return
			}
		case <-tick.C:
			if !send(": still here\n\n") {
				return
			}
		}
	}
}

// sees reports whether a caller may see a holder's leases without proof that it knows their ids: those of its own user
// or, where the caller's user is nobody, of its own process.
func (p *peer) sees(h *enforcer.Holder) bool {
	c := p.caller(false)
	return h.SameUser(c) || h.SameProcess(c)
}

// visible says whose leases' events a caller may see, and which of them: an admin sees all, another caller its own.
func visible(p *peer, admin bool) (*enforcer.User, func(*enforcer.Holder, *wire.Event) bool) {
	if admin {
		return nil, nil
	}
	u := p.caller(false).Who()
	return &u, func(h *enforcer.Holder, _ *wire.Event) bool { return p.sees(h) }
}

// Event is an event as all its subscribers get it.
type Event struct {
	wire.Event
	JSON []byte // the same, written once
}

func eventTexts(events []*Event) string {
	var b strings.Builder
	for _, ev := range events {
		b.WriteString("event: " + ev.Type + "\ndata: ")
		b.Write(ev.JSON)
		b.WriteString("\n\n")
	}
	return b.String()
}

// subscribe counts a subscriber in, or says why it is one too many.
func (s *Server) subscribe(p *peer) *enforcer.Denial {
	if s.subscribers.take(p.key(), 1) {
		return nil
	}
	return &enforcer.Denial{Code: enforcer.RateLimited,
		Detail: fmt.Sprintf(
			"uid %d has %d subscriptions to events, and one user may have no more than are left for all others, of %d",
			p.uid, s.subscribers.of(p.key()), maxSubscribers), Hint: "end some that nobody reads any more"}
}
