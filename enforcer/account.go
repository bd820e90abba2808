package enforcer

import "fmt"

// Nobody is the uid of callers that the kernel does not tell apart: every user that the agent's user namespace does not
// map looks like this one (user_namespaces(7), the overflow uid). It is no identity: two such callers are never one
// user.
const Nobody = 65534

// User is the owner of a lease: a uid that the kernel vouches for, or a credential that a listener vouches for.
type User struct {
	UID        uint32
	Credential string
}

// Who returns the user that a caller is. Callers that are Nobody count as one user only in the limits on what a user
// may take.
func (c Caller) Who() User { return User{c.UID, c.Credential} }

// String names the user for people.
func (u User) String() string {
	switch {
	case u.Credential != "":
		return "credential " + u.Credential
	case u.UID == Nobody:
		return fmt.Sprintf("a caller without an identity (uid %d stands for several users)", u.UID)
	default:
		return fmt.Sprint("uid ", u.UID)
	}
}

func (u User) nobody() bool { return u.UID == Nobody && u.Credential == "" }

// SameUser reports whether two callers are one user, with the same leases. Nobody is never the same as Nobody.
func (c Caller) SameUser(o Caller) bool { return !c.Who().nobody() && c.Who() == o.Who() }

// SameProcess reports whether two callers are one process of one user, judged by what distinguishes that process from
// all others.
func (c Caller) SameProcess(o Caller) bool {
	return (c.PID != 0 && c.Start != 0 || c.Inode != 0) && c.is(o)
}

// MayAct reports whether a caller that shows the id of this holder's lease may act on it. A lease of Nobody's belongs
// to the callers that know its id, which only the answer to its acquire has told.
func (c Caller) MayAct(o Caller) bool { return c.mayAct(&o) }

func (c *Caller) mayAct(o *Caller) bool { return c.UID == o.UID && c.Credential == o.Credential }

// account is what one user has taken of the bounded resources.
type account struct {
	leases  series
	waiters int
	tokens  int
	bytes   int // of labels, data and co-holders of leases, and of requests that wait
}

// account returns a user's account, made where there is none.
func (e *Enforcer) account(u User) *account {
	a := e.accounts[u]
	if a == nil {
		if a = e.spare; a == nil {
			a = &account{}
		}
		e.spare = nil
		e.accounts[u] = a
	}
	return a
}

// settle drops an account that counts nothing any more.
func (e *Enforcer) settle(u User, a *account) {
	if a.leases.n == 0 && a.waiters == 0 && a.tokens == 0 && a.bytes == 0 {
		if e.accounts[u] == a {
			delete(e.accounts, u)
			e.spare = a // as empty as a new one
		}
	}
}

// OverShare reports whether n more of something are too many for one user. The user has own of it already, all users
// together have taken so many, and at most most may be taken. A user may have no more than is left free for all others.
// So one user can take half, two can take three quarters, and the next always finds a share.
func OverShare(own, taken, most, n int) bool {
	return own+n > most-taken-n && own+n > 1 || taken+n > most
}

// denyShare denies what exceeds a user's share; nil: it does not. what is the plural of what is counted.
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

// denyBytes denies a request that would make the agent keep too many bytes for one user.
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

// keep adds n to the bytes that are kept for a user; n may be negative.
func (e *Enforcer) keep(u User, n int) {
	if n == 0 {
		return
	}
	a := e.account(u)
	a.bytes += n
	e.bytes += n
	e.settle(u, a)
}

// holderBytes is how many bytes a co-holder counts as.
const holderBytes = 192

// bytes returns how many bytes a lease keeps beyond what every lease keeps.
func (l *Lease) bytes() int {
	n := labelBytes(l.Holder.Labels) + holderBytes*len(l.Others)
	if l.Data != nil {
		n += len(l.Data.Bytes)
	}
	return n
}

// bytes returns how many bytes a request keeps while it waits.
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
	s := h.shared
	if s == nil {
		e.account(h.Holder.Who()).leases.add(h)
	} else {
		if s.account == nil {
			s.account = e.account(s.Who())
		}
		s.account.leases.add(h)
	}
	if n := h.bytes(); n != 0 {
		e.keep(h.Holder.Who(), n)
	}
}

func (e *Enforcer) unhold(h *held) {
	a := e.accountOf(h)
	a.leases.remove(h)
	if n := h.bytes(); n != 0 {
		e.keep(h.Holder.Who(), -n)
	}
	if a.leases.n == 0 {
		e.settle(h.Holder.Who(), a)
	}
}

// accountOf returns the account of a lease's user.
func (e *Enforcer) accountOf(h *held) *account {
	if h.shared != nil {
		return h.shared.account
	}
	return e.accounts[h.Holder.Who()]
}

// countToken adds n to the client tokens of a user.
func (e *Enforcer) countToken(u User, n int) {
	a := e.account(u)
	a.tokens += n
	e.settle(u, a)
}

// denyLease denies a lease beyond the bounds. shared is as of sharedBy.
func (r *Acquire) denyLease(e *Enforcer, shared *sharedHolder) *Denial {
	u := r.Caller.Who()
	own := 0
	if shared != nil && shared.account != nil {
		own = shared.account.leases.n
	} else if a := e.accounts[u]; a != nil {
		own = a.leases.n
	}
	if own >= e.options.MaxLeasesPerUID {
		return &Denial{Code: RateLimited,
			Detail: fmt.Sprintf("%s holds %d leases already, the most one user may", u, own)}
	}
	if d := denyShare(u, "leases", own, e.leases.Len(), e.options.MaxLeases, 1); d != nil {
		return d
	}
	n := labelBytes(r.Labels)
	if r.Data != nil {
		n += len(r.Data.Bytes)
	}
	return e.denyBytes(u, n)
}

// denyWaiter denies a waiter beyond the bounds.
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
