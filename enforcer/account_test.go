package enforcer

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
)

// crowd is an enforcer that many users ask, one request after the other.
type crowd struct {
	*Enforcer
	now  time.Time
	next uint64
}

func newCrowd(o Options, pools ...PoolGrant) *crowd {
	c := &crowd{Enforcer: New(o), now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)}
	v := &Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{}}
	for _, p := range pools {
		v.Pools[p.Name] = p
	}
	c.ask(&SetVerdict{v})
	return c
}

func (c *crowd) ask(r Request) Decision {
	if a, ok := r.(*Acquire); ok {
		c.next++
		binary.BigEndian.PutUint64(a.ID[:], c.next)
	}
	d := c.Decide(r, c.now)
	for _, ev := range d.Events {
		c.Apply(ev)
	}
	return d
}

// fill asks as a user until it is refused, and returns how often it was not.
func (c *crowd) fill(t *testing.T, uid uint32, r Acquire) (n int) {
	t.Helper()
	for token := r.Token; ; n++ {
		q := r
		q.Caller = Caller{UID: uid, PID: int32(uid), Start: 1}
		if token != "" {
			q.Token = fmt.Sprint(token, n)
		}
		if d := c.ask(&q); d.Denial != nil {
			if d.Denial.Code != RateLimited || !strings.Contains(d.Denial.Detail, fmt.Sprint("uid ", uid)) ||
				!strings.Contains(d.Denial.Detail, "no more than is left for others") {
				t.Fatalf("uid %d is refused: %v", uid, d.Denial)
			}
			return n
		}
	}
}

// One user never takes what others need: of each bound it has half at most, the next half of what is left, and so on;
// and the last one's place is never another's.
func TestOneUserLeavesRoom(t *testing.T) {
	unlimited := PoolGrant{Name: "many", Limit: Unlimited, Budget: Unlimited}
	full := PoolGrant{Name: "full", Limit: 1, Budget: 1}
	label := map[string]string{"job": strings.Repeat("x", 97)}
	for _, test := range []struct {
		name string
		o    Options
		r    Acquire
		want int // the first user's
	}{
		{"leases", Options{MaxLeases: 64}, Acquire{Pool: "many", N: 1}, 32},
		{"client tokens", Options{MaxTokens: 64}, Acquire{Pool: "many", N: 1, Token: "t"}, 32},
		{"places in the queue", Options{MaxWaiters: 64}, Acquire{Pool: "full", N: 1, Wait: MaxWait}, 32},
		{"bytes of leases", Options{MaxBytes: 6400}, Acquire{Pool: "many", N: 1, Labels: label}, 32},
		{"bytes of requests that wait", Options{MaxBytes: 6400},
			Acquire{Pool: "full", N: 1, Wait: MaxWait, Labels: label}, 32},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCrowd(test.o, unlimited, full)
			c.ask(&Acquire{Pool: "full", N: 1, Lifetime: LifetimeHeld, Caller: Caller{UID: 1}})
			for uid, want := uint32(1000), test.want; want > 1; uid, want = uid+1, want/2 {
				// The holder of the full pool's slot is the one lease more.
				if n := c.fill(t, uid, test.r); n != want && n != want-1 {
					t.Fatalf("uid %d has %d, and is to have about %d", uid, n, want)
				}
			}
		})
	}
}

// A user may take again what it has returned: a client token a day later, a lease and a place in the queue at once.
func TestSharesComeBack(t *testing.T) {
	c := newCrowd(Options{MaxTokens: 8, MaxWaiters: 8, MaxLeases: 8},
		PoolGrant{Name: "many", Limit: Unlimited, Budget: Unlimited})
	if n := c.fill(t, 1000, Acquire{Pool: "many", N: 1, Token: "t", Lifetime: LifetimeTTL, TTL: time.Second}); n != 4 {
		t.Fatalf("%d tokens of 8", n)
	}
	c.now = c.now.Add(TokenKept)
	for at := c.NextTick(); !at.IsZero() && !at.After(c.now); at = c.NextTick() {
		c.ask(&Tick{})
	}
	if len(c.accounts) != 0 || c.bytes != 0 {
		t.Errorf("a day later there are accounts %v, %d bytes", c.accounts, c.bytes)
	}
	if n := c.fill(t, 1000, Acquire{Pool: "many", N: 1, Token: "u"}); n != 4 {
		t.Errorf("%d tokens the day after", n)
	}
}

// Users whom the kernel does not tell apart are nobody: they have no leases of each other's, count one by one, and
// share no client token.
func TestNobodyIsNoUser(t *testing.T) {
	c := newCrowd(Options{}, PoolGrant{Name: "p", Limit: 4, Budget: 4, CountBy: CountUser})
	one, other := Caller{UID: Nobody, PID: 5, Start: 7}, Caller{UID: Nobody, PID: 6, Start: 9}
	if one.SameUser(other) || one.SameUser(one) || !one.SameProcess(one) || one.SameProcess(other) ||
		(Caller{UID: Nobody}).SameProcess(Caller{UID: Nobody}) {
		t.Error("nobody is somebody")
	}
	if key := (Caller{UID: Nobody, Credential: "k"}); !key.SameUser(key) {
		t.Error("a credential is an identity")
	}
	a := c.ask(&Acquire{Pool: "p", N: 1, Caller: one, Token: "t"})
	b := c.ask(&Acquire{Pool: "p", N: 1, Caller: other, Token: "t"})
	again := c.ask(&Acquire{Pool: "p", N: 1, Caller: one, Token: "t"})
	if a.Denial != nil || b.Denial != nil || b.Replayed || a.Lease.ID == b.Lease.ID || !again.Replayed ||
		again.Lease.ID != a.Lease.ID {
		t.Errorf("two processes with one token: %+v, %+v, and again %+v", a, b, again)
	}
	if p, _ := c.Pool("p", c.now); p.InUse != 2 {
		t.Errorf("two it stands for several users count as %d", p.InUse)
	}
	if d := c.ask(&Acquire{Pool: "p", N: 1, Caller: Caller{UID: Nobody}, Token: "t"}).Denial; d == nil ||
		d.Code != BadRequest || d.Field != "client_token" {
		t.Errorf("a token of who knows whom: %v", d)
	}
	if d := c.ask(&Release{ID: a.Lease.ID, Caller: Caller{UID: 1000}}).Denial; d == nil || d.Code != NotHolder {
		t.Errorf("a user releases nobody's lease: %v", d)
	}
	if d := c.ask(&Release{ID: a.Lease.ID, Caller: other}).Denial; d != nil {
		t.Errorf("who knows the id of nobody's lease acts on it: %v", d)
	}
}
