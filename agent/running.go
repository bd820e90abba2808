package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// running is how far the agent is: its tasks, and how all that is open closes.
type running struct {
	ready  chan struct{} // closed once: listening, and a first verdict
	judged chan struct{} // closed once: a first verdict
	resume func()        // see pause

	life context.Context // over when the agent stops
	stop context.CancelFunc

	tasks   []task
	closers []func() error // the last one is closed first
}

// task is what runs for as long as the agent.
type task struct {
	name string
	run  func(context.Context) error
}

func newRunning() *running {
	r := &running{ready: make(chan struct{}), judged: make(chan struct{})}
	r.life, r.stop = context.WithCancel(context.Background())
	return r
}

// task has f run from run on, until the agent stops.
func (r *running) task(name string, f func(context.Context) error) {
	r.tasks = append(r.tasks, task{name, f})
}

// closing has f called when the agent ends: before all that were named earlier.
func (r *running) closing(f func() error) { r.closers = append(r.closers, f) }

// close closes in reverse what was opened, and forgets it.
func (r *running) close() error {
	r.stop()
	var errs []error
	for _, f := range slices.Backward(r.closers) {
		errs = append(errs, f())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// run runs the tasks until the agent stops, or one fails.
func (r *running) run() error {
	g, ctx := errgroup.WithContext(r.life)
	for _, t := range r.tasks {
		g.Go(func() error {
			if err := t.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				r.stop() // before any other task hears of it
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// pause takes what has garbage collected again, and calls it when there is no first verdict for a while, or the agent
// ends. An agent that is ready calls it itself.
func (r *running) pause(resume func()) {
	r.resume = resume
	r.closing(func() error { resume(); return nil })
	r.task("collector", func(ctx context.Context) error {
		select {
		case <-r.judged:
		case <-time.After(firstVerdict):
			resume()
		case <-ctx.Done():
		}
		return nil
	})
}

// firstVerdict is for how long callers wait for the first verdict: a licence folder that hangs keeps nobody from asking
// how the agent is.
const firstVerdict = 5 * time.Second

// afterVerdict delays f until there is a first verdict. A caller that connects meanwhile waits in the socket's queue,
// and is not told of a licence that is about to be read.
func (r *running) afterVerdict(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-r.judged:
		case <-time.After(firstVerdict):
		case <-ctx.Done():
		}
		return f(ctx)
	}
}
