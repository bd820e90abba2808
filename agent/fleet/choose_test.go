package fleet

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/usher-agent/usher/agent/bubble"
)

// A call that has no answer is sent to another member, and the first answer counts, with when that was sent. A change
// that one member has not done, and of which another says nothing, is told as such.
func TestAsk(t *testing.T) {
	type said struct {
		after time.Duration // 0: never
		done  bool
		err   error
	}
	space, lost := rpctypes.ErrNoSpace, rpctypes.ErrLeaderChanged
	for name, c := range map[string]struct {
		members []said
		pace    time.Duration
		sent    int
		late    time.Duration
		done    bool
		err     error
	}{
		"at once":           {members: []said{{1, true, nil}, {}}, sent: 1, done: true},
		"not done, at once": {members: []said{{1, false, nil}, {}}, sent: 1},
		"one hangs":         {members: []said{{}, {1, true, nil}}, sent: 2, late: leastPatience, done: true},
		"two hang": {members: []said{{}, {}, {1, true, nil}}, sent: 3, late: 3 * leastPatience,
			done: true},
		"one is late": {members: []said{{time.Second, true, nil}, {}}, sent: 2, done: true},
		"all is slow": {members: []said{{time.Second, true, nil}, {}}, pace: time.Second,
			sent: 1, done: true},
		"all hang": {members: []said{{}, {}},
			sent: mostSendings, err: context.DeadlineExceeded},
		"one alone hangs": {members: []said{{}}, sent: 1, err: context.DeadlineExceeded},
		"all hung": {members: []said{{}, {}, {}, {1, true, nil}},
			sent: 4, late: 5 * leastPatience, done: true},
		"one hangs, another has not done it": {members: []said{{}, {1, false, nil}}, sent: 2, err: errUnsure},
		"one fails, another has not done it": {members: []said{{time.Second, false, lost}, {time.Second, false, nil}},
			sent: 2, err: errUnsure},
		"one fails, another does it": {members: []said{{time.Second, false, lost}, {time.Minute / 2, true, nil}},
			sent: 2, late: leastPatience, done: true},
		"one fails, another refuses": {members: []said{{time.Second, false, lost}, {time.Second, false, space}},
			sent: 2, err: errUnsure},
		"one refuses, another fails": {members: []said{{time.Second, false, space}, {time.Second, false, lost}},
			sent: 2, err: errUnsure},
		"refused": {members: []said{{1, false, space}, {}}, sent: 1, err: space},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var p patience
				if c.pace > 0 {
					p.note(c.pace)
				}
				var sent atomic.Int32
				done, late, err := ask(ctx, len(c.members), &p, func(done bool) bool { return done },
					func(ctx context.Context) (bool, error) {
						is := said{}
						if n := int(sent.Add(1)); n <= len(c.members) {
							is = c.members[n-1]
						}
						if is.after > 0 {
							select {
							case <-time.After(is.after):
								return is.done, is.err
							case <-ctx.Done():
							}
						}
						<-ctx.Done()
						return false, ctx.Err()
					})
				if int(sent.Load()) != c.sent || late != c.late || !errors.Is(err, c.err) || done != c.done {
					t.Errorf("sent %d times: %v, after %v, %v", sent.Load(), done, late, err)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}
