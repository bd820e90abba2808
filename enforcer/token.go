package enforcer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// token returns the request's client token as the state keeps it; nil: it has none.
func (r *Acquire) token(items []Item) *ClientToken {
	if r.Token == "" {
		return nil
	}
	return &ClientToken{Key: r.tokenKey(items), Request: r.requestHash(items)}
}

// hash is SHA-256 over fields that cannot run into one another.
type hash struct{ b []byte }

func (h *hash) text(s string) {
	h.b = binary.AppendUvarint(h.b, uint64(len(s)))
	h.b = append(h.b, s...)
}
func (h *hash) number(n int64) { h.b = binary.AppendVarint(h.b, n) }
func (h *hash) sum() [32]byte  { return sha256.Sum256(h.b) }
func (h *hash) pools(i []Item) {
	h.number(int64(len(i)))
	for _, it := range i {
		h.text(it.Pool)
	}
}

// process distinguishes a caller's process from all others until the next boot; empty: nothing does.
func (c Caller) process() string {
	switch {
	case c.PID != 0 && c.Start != 0:
		return fmt.Sprint("pid ", c.PID, " since ", c.Start)
	case c.Inode != 0:
		return fmt.Sprint("inode ", c.Inode)
	default:
		return ""
	}
}

// denyToken denies a client token that no user and no process could be held to, and one beyond the bounds.
func (r *Acquire) denyToken(e *Enforcer) *Denial {
	u := r.Caller.Who()
	if u.nobody() && r.Caller.process() == "" {
		return bad("client_token",
			"the kernel tells the agent neither which user nor which process the caller is, so that nothing can be "+
				"remembered for it; acquire without a client_token")
	}
	own := 0
	if a := e.accounts[u]; a != nil {
		own = a.tokens
	}
	d := denyShare(u, "client tokens", own, len(e.tokens), e.options.MaxTokens, 1)
	if d != nil {
		d.Hint = "acquire without one, or later: each is remembered for a day"
	}
	return d
}

func (r *Acquire) owner() string {
	if r.Data == nil {
		return ""
	}
	return r.Data.Owner
}

func (r *Acquire) tokenKey(items []Item) TokenKey {
	var h hash
	h.number(int64(r.Caller.UID))
	if r.Caller.Who().nobody() { // a caller that is no user is a process
		h.text(r.Caller.process())
	}
	h.pools(items)
	h.text(r.Token)
	if r.Caller.Credential != "" || r.owner() != "" {
		h.text(r.Caller.Credential)
		h.text(r.owner())
	}
	return h.sum()
}

// requestHash is over everything that a retry must repeat. The process is not part of it: a retry may come from
// another.
func (r *Acquire) requestHash(items []Item) [32]byte {
	var h hash
	h.pools(items)
	for _, it := range items {
		h.number(it.N)
		if it.Of > 1 { // whole slots as they have always been
			h.number(-it.Of)
		}
	}
	h.number(r.MinN)
	h.text(string(r.lifetime()))
	h.number(int64(r.TTL))
	h.text(r.Version)
	if !r.Until.IsZero() {
		h.number(r.Until.UnixNano())
	}
	h.number(int64(len(r.Labels)))
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		h.text(k)
		h.text(r.Labels[k])
	}
	return h.sum()
}

// repeats reports whether a request repeats an earlier one. A lifetime that the caller did not state is the default of
// its API, and a retry may come through another API.
func (r *Acquire) repeats(items []Item, token *ClientToken, was [32]byte) bool {
	if token.Request == was {
		return true
	}
	if r.Lifetime != "" && !r.Implied && r.Lifetime != LifetimeDraw {
		return false
	}
	of := []Lifetime{LifetimeTTL, LifetimeDraw} // a meter has only draws, stated or not
	if r.Lifetime != LifetimeDraw {
		of = append(of, LifetimeProcess)
	}
	return slices.ContainsFunc(of, func(l Lifetime) bool {
		other := *r
		other.Lifetime = l
		return other.requestHash(items) == was
	})
}

// replay answers a request whose client token is known.
func (was *remembered) replay(r *Acquire, items []Item, token *ClientToken) Decision {
	switch {
	case !r.repeats(items, token, was.Request):
		return Decision{Denial: &Denial{Code: TokenReused, Field: "client_token",
			Detail: "client_token was used for another request before; use a new one for each request"}}
	case was.ended != "":
		return Decision{Denial: &Denial{Code: TokenReused, Field: "client_token",
			Detail: fmt.Sprintf("client_token belongs to lease %s, which is over (%s); use a new one", was.lease.ID,
				was.ended)}}
	case r.Named && !was.lease.heldBy(r.Caller):
		return Decision{Denial: &Denial{Code: TokenReused, Field: "client_token",
			Detail: fmt.Sprintf("client_token belongs to lease %s, which another process than the named one holds; "+
				"use a new one for each process", was.lease.ID)}}
	}
	return Decision{Lease: was.lease, Replayed: true}
}

// heldBy reports whether a process is known to be one of the lease's holders.
func (l *Lease) heldBy(c Caller) bool {
	return l.Holder.SameProcess(c) || slices.ContainsFunc(l.Others, func(o *Holder) bool { return o.SameProcess(c) })
}

// rememberLease remembers the client token of a lease that is granted, or drawn.
func (e *Enforcer) rememberLease(l *Lease) {
	if l.Token != nil {
		e.remember(&remembered{ClientToken: *l.Token, lease: l, until: l.AcquiredAt.Add(TokenKept)})
	}
}

// remember remembers a client token. The journal does not tell of its being forgotten, so that recovery may meet
// several leases of one token. It reads the journals one after the other, and the lease whose token is remembered for
// longest counts: a token was forgotten before it served another lease. The instants of the leases' acquires would not
// do: a clock that is set back gives the later lease the earlier instant.
func (e *Enforcer) remember(r *remembered) {
	if was := e.tokens[r.Key]; was != nil {
		if was.lease.ID != r.lease.ID && was.until.After(r.until) {
			return
		}
		e.forget(was)
	}
	e.countToken(r.lease.Holder.Who(), 1)
	e.tokens[r.Key] = r
	e.memory.add(r)
	r.mine, r.seen = e.listed.len(), e.taken
	e.listed.push(r)
}

// forget takes a client token out of what is remembered.
func (e *Enforcer) forget(r *remembered) {
	e.saveToken(r)
	e.memory.remove(r)
	delete(e.tokens, r.Key)
	e.countToken(r.lease.Holder.Who(), -1)
	if last := e.listed.pop(); last != r {
		*e.listed.at(r.mine), last.mine = last, r.mine
	}
}

// tokenOf returns what is remembered of the client token of a lease; nil: it has none, or a later lease has it.
func (e *Enforcer) tokenOf(l *Lease) *remembered {
	if l.Token == nil {
		return nil
	}
	if r := e.tokens[l.Token.Key]; r != nil && r.lease.ID == l.ID {
		return r
	}
	return nil
}
