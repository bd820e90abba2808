package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Bounds of calls that may take longer than an answer may.
const (
	looksApart = 3                // answers' time, between looks at an agent that has a call wait
	streamRest = 15 * time.Second // at least how often the agent sends something on a stream of events
	longest    = 35 * time.Minute // of a call that has the agent call its upstreams
	hasty      = 10               // by how much a call is shorter after one that was in vain
)

// AnswerWithin returns a client of the same agent whose calls end with [ErrAgentAway] when the agent is silent for d. A
// call that may wait (for slots, for leases to end, for an upstream, for events) goes on for as long as the agent
// answers a look at its health within d. After a call that was in vain the next ones end sooner, until the agent
// answers one.
func (c *Client) AnswerWithin(d time.Duration) *Client {
	out := New(c.socket)
	out.within = d
	out.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, out.socket)
	}
	return out
}

// silent is the error for an agent that is there, and does not answer.
func (c *Client) silent() error {
	return &Error{cause: context.DeadlineExceeded, Problem: wire.Problem{Code: string(ErrAgentAway),
		Title:  "Agent away",
		Hint:   "its process may be stopped, hang or lack descriptors: look at it, and start it again",
		Detail: fmt.Sprintf("the agent on %s does not answer within %v", c.socket, c.within)}}
}

// patience marks the context of a call that another watches.
type patience struct{}

// watched returns a context that ends when the agent is silent for as long as it may be, what is to be called when it
// has said something, and what ends the watch. From the first word on it may rest for longer.
func (c *Client) watched(ctx context.Context, rest time.Duration) (watched context.Context, heard, over func()) {
	if c.within <= 0 || ctx.Value(patience{}) != nil {
		return ctx, func() {}, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	within := c.within
	if c.inVain.Load() {
		within /= hasty
	}
	timer := time.AfterFunc(within, func() {
		c.inVain.Store(true)
		cancel(c.silent())
	})
	heard = func() {
		c.inVain.Store(false)
		timer.Reset(rest + c.within)
	}
	return ctx, heard, func() {
		timer.Stop()
		cancel(nil)
	}
}

// ended returns why a context has ended; nil: it has not.
func ended(ctx context.Context) error {
	var e *Error
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	return ctx.Err()
}

// heardBody tells of each part of an answer.
type heardBody struct {
	io.ReadCloser
	heard, over func()
}

func (b *heardBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.heard()
	}
	return n, err
}

func (b *heardBody) Close() error {
	b.over()
	return b.ReadCloser.Close()
}

// WhileAnswering makes a call that may wait, for at most atMost. While it waits, the agent is asked for its health;
// when it does not answer that within the time of [Client.AnswerWithin], the call's context ends, and the error is
// [ErrAgentAway]. Without AnswerWithin it only makes the call.
func (c *Client) WhileAnswering(ctx context.Context, atMost time.Duration, call func(context.Context) error) error {
	if c.within <= 0 {
		return call(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	over := time.AfterFunc(atMost, func() { cancel(c.silent()) })
	defer over.Stop()
	var looking sync.WaitGroup
	looking.Go(func() {
		for wait := c.within; ; wait = looksApart * c.within {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			_, err := c.Health(ctx)
			c.http.CloseIdleConnections()
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				cancel(err)
				return
			}
		}
	})
	err := call(context.WithValue(ctx, patience{}, true))
	if said := ended(ctx); err != nil && said != nil {
		err = said
	}
	cancel(nil)
	looking.Wait()
	return err
}

// waiting makes a call that has the agent wait for some seconds; 0: it does not wait.
func (c *Client) waiting(ctx context.Context, seconds float64, call func(context.Context) error) error {
	if seconds <= 0 {
		return call(ctx)
	}
	return c.WhileAnswering(ctx, time.Duration(seconds*float64(time.Second))+c.within, call)
}

// unheard returns the error for an agent that fell silent in an answer; nil: it did not.
func (c *Client) unheard(res *http.Response) error {
	if err := ended(res.Request.Context()); errors.Is(err, ErrAgentAway) {
		return err
	}
	return nil
}
