package external

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/remote"
)

// awayError reports that there is no answer, and why.
type awayError struct{ cause error }

func (e *awayError) Error() string { return e.cause.Error() }

// running returns the session. It waits for the first start of the plugin.
func (p *Process) running(ctx context.Context) (*session, error) {
	for {
		p.mu.Lock()
		s, failed, changed := p.session, p.failed, p.changed
		p.mu.Unlock()
		switch {
		case s != nil:
			return s, nil
		case failed != nil:
			return nil, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.New("it is still being started")
		}
	}
}

// call makes one call within a limit. With strict a plugin that exceeds the limit is restarted.
func call[T any](ctx context.Context, p *Process, limit time.Duration, strict bool,
	f func(context.Context, *remote.Client) (T, error)) (T, error) {
	var none T
	starting, cancel := context.WithTimeout(ctx, p.limits.Start)
	defer cancel()
	s, err := p.running(starting)
	if err != nil {
		return none, &awayError{err}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case p.calls <- struct{}{}:
		defer func() { <-p.calls }()
	case <-limited.Done():
		return none, &awayError{errors.New("it is busy with other calls")}
	}
	out, err := f(limited, s.client)
	if err == nil {
		return out, nil
	}
	if e := (*plugin.Error)(nil); errors.As(err, &e) {
		return none, err
	}
	switch st, _ := status.FromError(err); {
	// The plugin knows the limit, and its own timer may fire first.
	case (errors.Is(limited.Err(), context.DeadlineExceeded) || st.Code() == codes.DeadlineExceeded) &&
		ctx.Err() == nil:
		err = fmt.Errorf("it has not answered within %s", enforcer.Span(limit))
		if strict {
			s.accuse(err)
		}
	case st.Code() == codes.ResourceExhausted:
		err = fmt.Errorf("its answer is larger than %d bytes", remote.MaxMessage)
	case st.Code() == codes.Unavailable:
		err = errors.New("it has ended during the call")
	default:
		err = errors.New(short(err))
	}
	return none, &awayError{err}
}

// Format returns the plugin as a format.
func (p *Process) Format() *Format { return &Format{p} }

// Format is the plugin's format. While the plugin is away, Recognise says no and Verify's problem has the code
// Unavailable.
type Format struct{ process *Process }

var _ plugin.Format = (*Format)(nil)

// System returns the system's name.
func (f *Format) System() string { return f.process.config.Name }

// Serves reports whether the plugin is not known to lack a format.
func (f *Format) Serves() bool {
	f.process.mu.Lock()
	defer f.process.mu.Unlock()
	return f.process.known == nil || f.process.known.Format
}

// Recognise reports whether the plugin says that the document is its system's.
func (f *Format) Recognise(document []byte) bool {
	ok, _ := f.TryRecognise(document)
	return ok
}

// TryRecognise is Recognise with the reason why there is no answer.
func (f *Format) TryRecognise(document []byte) (bool, error) {
	if len(document) > plugin.MaxDocument || !f.Serves() {
		return false, nil
	}
	return call(context.Background(), f.process, f.process.limits.Format, true,
		func(ctx context.Context, c *remote.Client) (bool, error) {
			return c.Recognise(ctx, document)
		})
}

// Verify has the plugin verify the document. It does not check the answer: see [plugin.CheckVerified].
func (f *Format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	type answer struct {
		l *enforcer.License
		p *enforcer.Problem
	}
	a, err := call(context.Background(), f.process, f.process.limits.Format, true,
		func(ctx context.Context, c *remote.Client) (a answer, err error) {
			a.l, a.p, err = c.Verify(ctx, f.System(), document, anchors)
			return a, err
		})
	if err != nil {
		return nil, Away(f.System(), err)
	}
	return a.l, a.p
}

// Away is the problem of a document whose plugin cannot be asked.
func Away(system string, err error) *enforcer.Problem {
	return &enforcer.Problem{System: system, Code: enforcer.Unavailable,
		Reason: "the " + system + " plugin cannot say whether it is good: " + short(err),
		Hint:   "see the agent's log for what the plugin says; the document is tried again when the plugin runs"}
}

// Upstream returns the plugin as an upstream.
func (p *Process) Upstream() plugin.Budgeter { return upstream{p} }

// upstream is the plugin's upstream. It checks the answers; a fault of the plugin itself is transient.
type upstream struct{ process *Process }

func (u upstream) System() string { return u.process.config.Name }

// Capabilities returns the plugin's word at its last start, and nothing before the first.
func (u upstream) Capabilities() plugin.Capabilities {
	u.process.mu.Lock()
	defer u.process.mu.Unlock()
	if k := u.process.known; k != nil && k.Upstream != nil {
		return *k.Upstream
	}
	return plugin.Capabilities{}
}

// ask makes a call of the upstream and makes its error safe.
func ask[T any](ctx context.Context, u upstream, f func(context.Context, *remote.Client) (T, error),
	check func(T) error) (T, error) {
	var none T
	out, err := call(ctx, u.process, u.process.limits.Upstream, false, f)
	if err == nil {
		if err = check(out); err == nil {
			return out, nil
		}
		err = fmt.Errorf("its answer is impossible: %w", err)
	}
	if e := (*plugin.Error)(nil); errors.As(err, &e) {
		return none, e.Checked()
	}
	return none, plugin.Transiently("plugin %s: %s", u.System(), short(err))
}

func (u upstream) simple(ctx context.Context, call remote.Call, r *plugin.Request) (*plugin.Reply, error) {
	return ask(ctx, u, func(ctx context.Context, c *remote.Client) (*plugin.Reply, error) {
		return c.Ask(ctx, call, r)
	}, func(r *plugin.Reply) error { return r.Check(u.process.config.Now()) })
}

func (u upstream) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.simple(ctx, remote.Activate, r)
}

func (u upstream) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.simple(ctx, remote.Heartbeat, r)
}

func (u upstream) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.simple(ctx, remote.CheckIn, r)
}

func (u upstream) Deactivate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.simple(ctx, remote.Deactivate, r)
}

func (u upstream) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	return ask(ctx, u, func(ctx context.Context, c *remote.Client) (*plugin.Block, error) { return c.CheckOut(ctx, r) },
		func(b *plugin.Block) error {
			least := r.AtLeast
			if least == 0 {
				least = r.Slots
			}
			return b.Check(r.Pool, r.Slots, least, r.For)
		})
}

func (u upstream) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	return ask(ctx, u, func(ctx context.Context, c *remote.Client) (*plugin.Block, error) { return c.Extend(ctx, r) },
		func(b *plugin.Block) error {
			if b.ID != r.Block {
				return errors.New("the block is another one")
			}
			return b.Check("", r.Slots, 0, r.For)
		})
}

func (u upstream) Return(ctx context.Context, r *plugin.Return) error {
	_, err := ask(ctx, u, func(ctx context.Context, c *remote.Client) (struct{}, error) {
		return struct{}{}, c.Return(ctx, r)
	},
		func(struct{}) error { return nil })
	return err
}
