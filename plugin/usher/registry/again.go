package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Limits for hosts that start again without their state, or that gave their place up.
const (
	// doubledWithin is for how long a repeated request gets the same answer.
	doubledWithin = time.Minute
	// attemptWithin is for how long an activation whose answers are lost counts as one.
	attemptWithin = 24 * time.Hour
	// maxAhead is how far ahead of the server's clock a request may be dated.
	maxAhead = 24 * time.Hour
	// markEvery is how often the registry writes that a host was taken for a copy.
	markEvery = time.Hour
	// printsKept is how many fingerprints of a host are remembered.
	printsKept = 4
	// releasedFor is the least time for which the registry knows that a host has given its place up: far longer than a
	// request is fresh.
	releasedFor = 30 * 24 * time.Hour
	// releasedEarly is the same for a host whose clock had not learnt the time: its requests have no age.
	releasedEarly = 400 * 24 * time.Hour
)

// Again counts how often a key's host has started again, which tells a copy from a host that lost its state.
type Again struct {
	// Anew is when the host was activated without the chain of the last answer, or had an earlier fingerprint again;
	// seconds since 1970, the latest last.
	Anew      []int64   `json:"anew,omitempty"`
	Attempt   string    `json:"attempt,omitempty"` // of its last activation without a chain
	Attempted time.Time `json:"attempted,omitzero"`
	Prints    []Print   `json:"prints,omitempty"`  // its fingerprints, the latest first
	Copied    bool      `json:"copied,omitempty"`  // a copy of it was seen
	Marked    time.Time `json:"marked,omitzero"`   // when it was last noted that it may be a copy
	Barred    time.Time `json:"barred,omitzero"`   // when it was refused because it had started again too often
	Forgiven  time.Time `json:"forgiven,omitzero"` // by an operator
}

// Print is a fingerprint in short: the name of each component, and 16 hexadecimal digits of a hash over its values.
type Print map[string]string

// printOf shortens a fingerprint.
func printOf(components map[string][]string) Print {
	out := Print{}
	for name, values := range boundedComponents(components) {
		sum := sha256.Sum256([]byte(strings.Join(slices.Sorted(slices.Values(values)), "\x00")))
		out[name] = hex.EncodeToString(sum[:8])
	}
	return out
}

// same reports whether two fingerprints may be one host's: half of the components that both have are equal.
func (p Print) same(o Print) bool {
	both, equal := 0, 0
	for name, v := range p {
		if w, ok := o[name]; ok {
			if both++; v == w {
				equal++
			}
		}
	}
	return 2*equal >= both
}

// place returns where among the remembered fingerprints one is; -1: it is new.
func (a *Again) place(p Print) int { return slices.IndexFunc(a.Prints, p.same) }

// met puts a fingerprint first.
func (a *Again) met(p Print) {
	if len(p) == 0 {
		return
	}
	if i := a.place(p); i >= 0 {
		if i == 0 && maps.Equal(a.Prints[0], p) {
			return
		}
		a.Prints = slices.Delete(slices.Clone(a.Prints), i, i+1)
	}
	a.Prints = append([]Print{p}, a.Prints[:min(len(a.Prints), printsKept-1)]...)
}

// attempted reports whether a request repeats the activation whose answer was lost.
func (a *Again) attempted(q *question) bool {
	return q.Attempt != "" && q.Attempt == a.Attempt && q.now.Sub(a.Attempted) < attemptWithin
}

// reactivations returns how often the licence lets a host start again.
func reactivations(terms *enforcer.License) usher.Reactivations { return usher.ReactivationsOf(terms) }

// within drops what is older than the span that the licence counts.
func (a *Again) within(r usher.Reactivations, now time.Time) int64 {
	a.Anew = slices.DeleteFunc(a.Anew, func(at int64) bool { return now.Unix()-at >= r.Within })
	return int64(len(a.Anew))
}

// startAnew counts an activation without a chain of a host that had one, or says why it is one too many.
func (a *Activation) startAnew(q *question, r usher.Reactivations) *online.Refusal {
	if a.Copied {
		return cloned("a copy of this host was seen, and one that has lost its state cannot be told from it")
	}
	if p := printOf(q.Components); len(p) > 0 && a.place(p) > 0 {
		return cloned("two hosts with different fingerprints activate themselves by one key in turn")
	}
	if a.within(r, q.now) >= r.Max {
		a.Barred = q.now
		return &online.Refusal{Code: string(enforcer.AgentKeyMismatch), System: online.SystemAnew,
			Reason: fmt.Sprintf(
				"this host has lost what the upstream said and was activated again %d times in %d days, which is all "+
					"that the licence allows: it may be a copy", r.Max, r.Within/86400),
			Hint: "keep the agent's state folder; if the host was truly set up again, have the upstream's operator " +
				"forgive it: `usher upstream forgive`"}
	}
	a.Anew = append(a.Anew, q.now.Unix())
	return nil
}

// comeBack counts a return of a host to an earlier fingerprint, or says why it is one too many.
func (a *Activation) comeBack(q *question, r usher.Reactivations) *online.Refusal {
	p := printOf(q.Components)
	if len(p) == 0 || a.place(p) <= 0 {
		return nil
	}
	if a.within(r, q.now) >= r.Max {
		return cloned("two hosts with different fingerprints go on with one state and key in turn")
	}
	a.Anew = append(a.Anew, q.now.Unix())
	return nil
}

// Released is what the registry knows of a host that has given its place up. It keeps an old request of the host from
// taking a place again, and what is used up stays so.
type Released struct {
	License  string    `json:"license"`
	AgentKey string    `json:"agent_key"`
	Until    time.Time `json:"until"` // it is forgotten then
	Sequence
	Blocks   Sequence  `json:"blocks,omitzero"`
	Draws    Sequence  `json:"draws,omitzero"`
	ClonedAt time.Time `json:"cloned_at,omitzero"`
	Again
	Labels map[string]string `json:"labels,omitempty"` // that the host has again when it comes back
}

// release takes a host's record out, and keeps what must stay known of it.
func release(tx *bbolt.Tx, a *Activation, now time.Time, r usher.Reactivations) error {
	key := activationKey(a.License, a.AgentKey)
	keep := max(releasedFor, time.Duration(r.Within)*time.Second)
	if earlyClock(a.Issued) || earlyClock(a.Blocks.Issued) || earlyClock(a.Draws.Issued) {
		keep = max(keep, releasedEarly)
	}
	from := now // a request from a clock that is ahead is fresh for longer
	if at := time.Unix(max(a.Issued, a.Blocks.Issued, a.Draws.Issued), 0); at.After(from) &&
		at.Before(now.Add(releasedEarly)) {
		from = at
	}
	return errors.Join(tx.Bucket(activations).Delete(key),
		put(tx.Bucket(released), key,
			Released{a.License, a.AgentKey, from.Add(keep), a.Sequence, a.Blocks, a.Draws, a.ClonedAt,
				a.Again, a.Labels}))
}

// forgetReleased forgets what need not stay known.
func forgetReleased(tx *bbolt.Tx, now time.Time) error {
	var over [][]byte
	err := tx.Bucket(released).ForEach(func(k, v []byte) error {
		var r Released
		if json.Unmarshal(v, &r) == nil && r.Until.Before(now) {
			over = append(over, slices.Clone(k))
		}
		return nil
	})
	for _, k := range over {
		err = errors.Join(err, tx.Bucket(released).Delete(k))
	}
	return err
}
