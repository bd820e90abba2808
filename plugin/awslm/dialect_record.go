package awslm

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// How long and how many outcomes the store remembers that stand on no lease: draws, and checkouts of features alone. No
// caller has more of them than is left for all others ([enforcer.OverShare]). One that has its share forgets its own
// oldest draws, drawAtLeast after they were made.
const (
	drawKept    = 12 * time.Hour // less than enforcer.TokenKept, within which a draw's token draws nothing more
	drawAtLeast = 10 * time.Minute
	maxRecords  = 9000
	maxBytes    = plugin.MaxStore - 64<<10 // of all records, which leaves room for the signing key
	sweepAtOnce = 200                      // that one change takes with it
	recordKey   = "checkout/"
)

// record is what came of a checkout: it stands on the checkout's lease, or in the store where there is none.
type record struct {
	Client      string            `json:"c"` // hash of caller and ClientToken
	Request     string            `json:"r"` // hash of all that was asked
	Operation   string            `json:"o"`
	Type        string            `json:"t,omitzero"` // CheckoutType
	Arn         string            `json:"a"`
	Allowed     []EntitlementData `json:"e,omitzero"`
	Node        string            `json:"n,omitzero"`
	Beneficiary string            `json:"b,omitzero"`
	Metadata    []Metadata        `json:"m,omitzero"`
	Seconds     int64             `json:"s"` // from the issue to the expiration that was answered
	Signed      string            `json:"j,omitzero"`

	// What a lease says itself, of a record that has none.
	Who    string          `json:"w,omitzero"`
	Issued int64           `json:"i,omitzero"` // Unix seconds
	Until  int64           `json:"u,omitzero"` // Unix seconds; it is forgotten then
	Draws  []enforcer.Item `json:"d,omitzero"` // what is drawn, or to be

	size int // bytes in the store, its key included; 0: it is not there
}

// load is how much the store remembers.
type load struct{ records, bytes int }

// put has a record in the indices, in the place of what it was. value is it, as stored. h.mu is held.
func (h *counter) put(token string, r *record, value []byte) {
	h.drop(token)
	r.size = len(recordKey) + len(token) + len(value)
	h.records[token], h.byClient[r.Client] = r, token
	h.account(r, 1)
}

// account counts a record in, or out with -1. h.mu is held.
func (h *counter) account(r *record, n int) {
	own := h.kept[r.Who]
	own.records, own.bytes = own.records+n, own.bytes+n*r.size
	if h.kept[r.Who] = own; own.records == 0 {
		delete(h.kept, r.Who)
	}
	h.bytes += n * r.size
}

// overShare reports whether more records, and bytes of them, are too many for a caller, were those in gone forgotten.
// h.mu is held.
func (h *counter) overShare(who string, more load, gone []string) bool {
	own, taken := h.kept[who], load{len(h.records), h.bytes}
	for _, t := range gone {
		r := h.records[t]
		if taken.records, taken.bytes = taken.records-1, taken.bytes-r.size; r.Who == who {
			own.records, own.bytes = own.records-1, own.bytes-r.size
		}
	}
	return more.records > 0 && enforcer.OverShare(own.records, taken.records, maxRecords, more.records) ||
		more.bytes > 0 && enforcer.OverShare(own.bytes, taken.bytes, maxBytes, more.bytes)
}

// leaseRef is a lease, and whose it is.
type leaseRef struct {
	id     enforcer.LeaseID
	caller enforcer.Caller
}

func who(c enforcer.Caller) string { return strconv.FormatUint(uint64(c.UID), 10) + " " + c.Credential }

func digest(parts ...string) string {
	s := sha256.New()
	for _, p := range parts {
		s.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	return hex.EncodeToString(s.Sum(nil)[:16])
}

// asked is a hash of a request's members.
func asked(operation string, request any) string {
	b, err := json.Marshal(request, json.Deterministic(true))
	if err != nil { // of what was decoded just now
		panic(err)
	}
	return digest(operation, string(b))
}

// alone has one request of a ClientToken at a time.
func (h *counter) alone(client string) (unlock func()) {
	m := &h.one[client[0]%64]
	m.Lock()
	return m.Unlock
}

// prior returns what came of an earlier request with the same ClientToken, where that stands still, and the lease that
// it is on.
func (h *counter) prior(c enforcer.Caller, client, request string) (string, *record, *enforcer.Lease, *Fault) {
	token, r, l := h.priorLease(c, client)
	if r == nil {
		token, r = h.priorRecord(client)
	}
	if r != nil && r.Request != request {
		return "", nil, nil, invalid(
			"ClientToken was used for another request, which stands still; use a new one for each.")
	}
	return token, r, l, nil
}

func (h *counter) priorLease(c enforcer.Caller, client string) (string, *record, *enforcer.Lease) {
	h.learn(c)
	h.mu.Lock()
	ref, ok := h.leases[client]
	h.mu.Unlock()
	if !ok {
		return "", nil, nil
	}
	if l, held := h.Lease(ref.id, c); held {
		if r := recordOf(l); r != nil && r.Client == client {
			return l.ID.String(), r, l
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leases[client].id == ref.id {
		delete(h.leases, client)
	}
	return "", nil, nil
}

// learn finds a caller's leases of before the agent's start, once.
func (h *counter) learn(c enforcer.Caller) {
	h.mu.Lock()
	known := h.known[who(c)]
	h.mu.Unlock()
	if known {
		return
	}
	all := h.Leases(c)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known[who(c)] = true
	for _, l := range all {
		if r := recordOf(l); r != nil {
			if _, newer := h.leases[r.Client]; !newer {
				h.leases[r.Client] = leaseRef{l.ID, c}
			}
		}
	}
}

// note remembers the lease of a ClientToken, and forgets those that are over from time to time.
func (h *counter) note(client string, l *enforcer.Lease, c enforcer.Caller) {
	h.mu.Lock()
	h.leases[client] = leaseRef{l.ID, c}
	sweep := len(h.leases) > 2*h.swept+1000
	var all map[string]leaseRef
	if sweep {
		all = make(map[string]leaseRef, len(h.leases))
		for k, v := range h.leases {
			all[k] = v
		}
		h.swept = len(h.leases) // of two that come at once one sweeps
	}
	h.mu.Unlock()
	if !sweep {
		return
	}
	for k, ref := range all {
		if _, held := h.Lease(ref.id, ref.caller); held {
			delete(all, k)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, ref := range all {
		if h.leases[k].id == ref.id {
			delete(h.leases, k)
		}
	}
	h.swept = len(h.leases)
}

// recordOf returns what stands on a lease.
func recordOf(l *enforcer.Lease) *record {
	r := &record{}
	if l.Data == nil || json.Unmarshal(l.Data.Bytes, r) != nil || r.Client == "" {
		return nil
	}
	return r
}

func (r *record) encode() []byte {
	b, err := json.Marshal(r, json.Deterministic(true))
	if err != nil { // of what was decoded, or made here
		panic(err)
	}
	return b
}

// loadRecords reads what the store has.
func (h *counter) loadRecords() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Store().Range(recordKey, func(key string, value []byte) bool {
		r := &record{}
		if json.Unmarshal(value, r) == nil && r.Client != "" {
			h.put(key[len(recordKey):], r, value)
		}
		return true
	})
}

func (h *counter) priorRecord(client string) (string, *record) {
	now := h.Now().Unix()
	h.mu.Lock()
	defer h.mu.Unlock()
	token, ok := h.byClient[client]
	if r := h.records[token]; ok && r != nil && r.Until > now {
		c := *r
		return token, &c
	}
	return "", nil
}

// stored returns a caller's record by its consumption token.
func (h *counter) stored(c enforcer.Caller, token string) *record {
	now := h.Now().Unix()
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.records[token]
	if r == nil || r.Who != who(c) || r.Until <= now {
		return nil
	}
	out := *r
	return &out
}

// keep puts a record into the store, new or in the place of what it was, and takes out what is over.
func (h *counter) keep(token string, r *record) *Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	value := r.encode()
	if len(value) > plugin.MaxStoreValue {
		return invalid("The request is too long to be remembered: shorten NodeId, or ask for less at once.")
	}
	more := load{1, len(recordKey) + len(token) + len(value)}
	if was := h.records[token]; was != nil {
		more = load{0, more.bytes - was.size}
	}
	gone := h.over(token, r.Who, more)
	if h.overShare(r.Who, more, gone) {
		return storeFault(plugin.ErrStoreFull)
	}
	changes := []plugin.Change{{Key: recordKey + token, Value: value}}
	for _, t := range gone {
		changes = append(changes, plugin.Change{Key: recordKey + t})
	}
	if err := h.Store().Apply(changes...); err != nil {
		return storeFault(err)
	}
	for _, t := range gone {
		h.drop(t)
	}
	stands := *r
	h.put(token, &stands, value)
	return nil
}

// prolong sets anew until when a checkout stands that takes nothing. It is false where it is not there any more.
func (h *counter) prolong(token string, until time.Time) (bool, *Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.records[token] == nil {
		return false, nil
	}
	r := *h.records[token]
	r.Until = until.Unix()
	value := r.encode()
	if err := h.Store().Apply(plugin.Change{Key: recordKey + token, Value: value}); err != nil {
		return false, storeFault(err)
	}
	h.put(token, &r, value)
	return true, nil
}

// over returns records that can be forgotten: of any caller what is over, and of one that has its share its oldest
// draws. h.mu is held.
func (h *counter) over(but, who string, more load) (out []string) {
	now := h.Now().Unix()
	for t, r := range h.records {
		if len(out) == sweepAtOnce {
			return out
		}
		if t != but && r.Until <= now {
			out = append(out, t)
		}
	}
	if !h.overShare(who, more, out) {
		return out
	}
	var old []string
	for t, r := range h.records {
		if t != but && r.Who == who && len(r.Draws) > 0 && r.Until > now &&
			r.Issued+int64(drawAtLeast/time.Second) <= now {
			old = append(old, t)
		}
	}
	slices.SortFunc(old, func(a, b string) int { return cmp.Compare(h.records[a].Issued, h.records[b].Issued) })
	return append(out, old[:min(len(old), sweepAtOnce-len(out))]...)
}

// forget takes a record out. It is false where it is not there any more.
func (h *counter) forget(token string) (bool, *Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.records[token] == nil {
		return false, nil
	}
	if err := h.Store().Apply(plugin.Change{Key: recordKey + token}); err != nil &&
		!errors.Is(err, plugin.ErrConflict) {
		return false, storeFault(err)
	}
	h.drop(token)
	return true, nil
}

// drop takes a record out of the indices. h.mu is held.
func (h *counter) drop(token string) {
	r := h.records[token]
	if r == nil {
		return
	}
	if h.byClient[r.Client] == token {
		delete(h.byClient, r.Client)
	}
	delete(h.records, token)
	h.account(r, -1)
}

// newToken makes a consumption token, in the form that leases' ids have.
func newToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}
