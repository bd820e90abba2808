package enforcer

import (
	"fmt"
	"maps"
	"slices"
)

// Nobody is the uid that stands for callers whom the kernel does not tell apart: users that the agent's user namespace
// does not map all look like this one (user_namespaces(7), the overflow uid). It is no identity: two such callers are
// never one user.
const Nobody = 65534

// User is whom a lease belongs to: a uid by the kernel's word, or a credential by a listener's.
type User struct {
	UID        uint32
	Credential string
}

// Who returns the user that a caller is. Callers that are Nobody are one only for what they may take together.
func (c Caller) Who() User { return User{c.UID, c.Credential} }

// String names the user for people.
func (u User) String() string {
	switch {
	case u.Credential != "":
		return "credential " + u.Credential
	case u.UID == Nobody:
		return fmt.Sprintf("uid %d (users that are not told apart)", u.UID)
	default:
		return fmt.Sprint("uid ", u.UID)
	}
}

func (u User) nobody() bool { return u.UID == Nobody && u.Credential == "" }

// SameUser reports whether two callers are one user, whose leases are the same. Nobody is the same as nobody.
func (c Caller) SameUser(o Caller) bool { return !c.Who().nobody() && c.Who() == o.Who() }

// SameProcess reports whether two callers are one process of one user, by what tells it from all others.
func (c Caller) SameProcess(o Caller) bool {
	return (c.PID != 0 && c.Start != 0 || c.Inode != 0) && c.is(o)
}

// MayAct reports whether a caller who shows the id of this holder's lease may act on it. A lease of nobody's belongs to
// the callers that know its id, which only its own acquire has told.
func (c Caller) MayAct(o Caller) bool { return c.Who() == o.Who() }

// account is what one user has taken of what there is for all.
type account struct {
	leases  []*held // each knows its place
	waiters int
	tokens  int
	bytes   int // of labels, data and co-holders of leases, and of requests that wait
}

// account returns a user's account, made where there is none.
func (e *Enforcer) account(u User) *account {
	a := e.accounts[u]
	if a == nil {
		a = &account{}
		e.accounts[u] = a
	}
	return a
}

// settle forgets an account of which nothing is left.
func (e *Enforcer) settle(u User, a *account) {
	if len(a.leases) == 0 && a.waiters == 0 && a.tokens == 0 && a.bytes == 0 {
		delete(e.accounts, u)
	}
}

// OverShare reports whether n more of something are too many for one user, who has own of it already, where all users
// together have taken so many and may have most: nobody may have more than is left free for all others. All that one
// user can take is thus half, two can take three quarters, and there is always a share for the next.
func OverShare(own, taken, most, n int) bool {
	return own+n > most-taken-n && own+n > 1 || taken+n > most
}

// denyShare says that what a user asks for is more than one may have of what there is; nil: it is not. what is the
// plural of what is counted.
func denyShare(u User, what string, own, taken, most, n int) *Denial {
	if !OverShare(own, taken, most, n) {
		return nil
	}
	return &Denial{Code: RateLimited,
		Detail: fmt.Sprintf(
			"%s has %d %s of the %d that all users have together, at most %d may be, and one user may have no more "+
				"than is left for others",
			u, own, what, taken, most), Hint: "give back what is no longer needed, or try again later"}
}

// denyBytes refuses what would have too much kept for one user.
func (e *Enforcer) denyBytes(u User, n int) *Denial {
	if n <= 0 {
		return nil
	}
	own := 0
	if a := e.accounts[u]; a != nil {
		own = a.bytes
	}
	return denyShare(u, "bytes of labels, data and waiting requests", own, e.bytes, e.options.MaxBytes, n)
}

// keep counts n more bytes of a user's; n may be negative.
func (e *Enforcer) keep(u User, n int) {
	if n == 0 {
		return
	}
	a := e.account(u)
	a.bytes += n
	e.bytes += n
	e.settle(u, a)
}

// holderBytes is what a co-holder is counted as.
const holderBytes = 192

// bytes is what a lease has kept beyond what every lease has.
func (l *Lease) bytes() int {
	n := labelBytes(l.Holder.Labels) + holderBytes*len(l.Others)
	if l.Data != nil {
		n += len(l.Data.Bytes)
	}
	return n
}

// bytes is what a request has kept while it waits.
func (r *Acquire) bytes() int {
	n := labelBytes(r.Labels) + len(r.Token) + len(r.Version)
	if r.Data != nil {
		n += len(r.Data.Bytes)
	}
	for _, it := range r.Items {
		n += len(it.Pool)
	}
	return n
}

func labelBytes(labels map[string]string) (n int) {
	for k, v := range labels {
		n += len(k) + len(v)
	}
	return n
}

// hold enters a lease into its holder's account; unhold takes it out.
func (e *Enforcer) hold(h *held) {
	u := h.Holder.Who()
	a := e.account(u)
	h.mine = int32(len(a.leases))
	a.leases = append(a.leases, h)
	e.keep(u, h.bytes())
}

func (e *Enforcer) unhold(h *held) {
	u := h.Holder.Who()
	a := e.accounts[u]
	last := len(a.leases) - 1
	a.leases[h.mine] = a.leases[last]
	a.leases[h.mine].mine = h.mine
	a.leases[last] = nil
	a.leases = a.leases[:last]
	e.keep(u, -h.bytes())
	e.settle(u, a)
}

// countToken counts a client token in or out.
func (e *Enforcer) countToken(u User, n int) {
	a := e.account(u)
	a.tokens += n
	e.settle(u, a)
}

// Users returns the users that hold leases, in order.
func (e *Enforcer) Users() []User {
	return slices.SortedFunc(maps.Keys(e.accounts), func(a, b User) int {
		if a.UID != b.UID {
			return int(int64(a.UID) - int64(b.UID))
		}
		return slices.Compare([]byte(a.Credential), []byte(b.Credential))
	})
}

// Portion returns at most so many leases of a user, and where the next portion begins; 0: there is none. The first
// begins at any number that is larger than the number of leases. Between two portions anything may change: a lease that
// is held all the while is in one of them, and may be in two.
func (e *Enforcer) Portion(u User, below, most int) (out []*Lease, next int) {
	a := e.accounts[u]
	if a == nil {
		return nil, 0
	}
	// From the last to the first: the place of one that ends is taken by the last, which has been returned already.
	below = min(below, len(a.leases))
	next = max(0, below-most)
	for i := below - 1; i >= next; i-- {
		out = append(out, e.view(a.leases[i]))
	}
	return out, next
}

// denyLease refuses one lease too many.
func (r *Acquire) denyLease(e *Enforcer) *Denial {
	u := r.Caller.Who()
	own := 0
	if a := e.accounts[u]; a != nil {
		own = len(a.leases)
	}
	if own >= e.options.MaxLeasesPerUID {
		return &Denial{Code: RateLimited,
			Detail: fmt.Sprintf("%s holds %d leases already, the most one user may", u, own)}
	}
	if d := denyShare(u, "leases", own, len(e.leases), e.options.MaxLeases, 1); d != nil {
		return d
	}
	n := labelBytes(r.Labels)
	if r.Data != nil {
		n += len(r.Data.Bytes)
	}
	return e.denyBytes(u, n)
}

// denyWaiter refuses one acquire too many that waits.
func (r *Acquire) denyWaiter(e *Enforcer) *Denial {
	u := r.Caller.Who()
	own := 0
	if a := e.accounts[u]; a != nil {
		own = a.waiters
	}
	if d := denyShare(u, "acquires that wait", own, len(e.waiters), e.options.MaxWaiters, 1); d != nil {
		return d
	}
	return e.denyBytes(u, r.bytes())
}
