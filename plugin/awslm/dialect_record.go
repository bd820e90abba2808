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

// The store's bounds for records without a lease: draws, and checkouts of features alone. No caller has more of them
// than is left for all others ([enforcer.OverShare]). A caller that has its share loses its own oldest draws, but no
// draw younger than drawAtLeast.
const (
	drawKept    = 12 * time.Hour // less than enforcer.TokenKept: until then a repeated token draws nothing more
	drawAtLeast = 10 * time.Minute
	maxRecords  = 9000
	maxBytes    = plugin.MaxStore - 64<<10 // of all records; the rest is room for the signing key
	sweepAtOnce = 200                      // records over that one change removes
	recordKey   = "checkout/"
)

// record is the outcome of a checkout. It is the data of the checkout's lease, or an entry of the store if there is no
// lease.
type record struct {
	Client      string            `json:"c"` // hash of caller and ClientToken
	Request     string            `json:"r"` // hash of the request
	Operation   string            `json:"o"`
	Type        string            `json:"t,omitzero"` // CheckoutType
	Arn         string            `json:"a"`
	Allowed     []EntitlementData `json:"e,omitzero"`
	Node        string            `json:"n,omitzero"`
	Beneficiary string            `json:"b,omitzero"`
	Metadata    []Metadata        `json:"m,omitzero"`
	Seconds     int64             `json:"s"` // from the issue to the expiration in the answer
	Signed      string            `json:"j,omitzero"`

	// For records without a lease, in place of the lease's own fields.
	Who    string          `json:"w,omitzero"`
	Issued int64           `json:"i,omitzero"` // Unix seconds
	Until  int64           `json:"u,omitzero"` // Unix seconds; the record ends then
	Draws  []enforcer.Item `json:"d,omitzero"` // draws made, or about to be made

	size int // bytes in the store with the key; 0: not stored
}

// load is a number of stored records and their bytes.
type load struct{ records, bytes int }

// put adds a record to the indices, or replaces it. value is its stored form. h.mu is held.
func (h *local) put(token string, r *record, value []byte) {
	h.drop(token)
	r.size = len(recordKey) + len(token) + len(value)
	h.records[token], h.byClient[r.Client] = r, token
	h.account(r, 1)
}

// account adds a record to its caller's load, or subtracts it if n is -1. h.mu is held.
func (h *local) account(r *record, n int) {
	own := h.kept[r.Who]
	own.records, own.bytes = own.records+n, own.bytes+n*r.size
	if h.kept[r.Who] = own; own.records == 0 {
		delete(h.kept, r.Who)
	}
	h.bytes += n * r.size
}

// overShare reports whether more would exceed a caller's share once the records in gone are removed. h.mu is held.
func (h *local) overShare(who string, more load, gone []string) bool {
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

// leaseRef is a lease with its caller.
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

// asked returns a hash of a request's members.
func asked(operation string, request any) string {
	b, err := json.Marshal(request, json.Deterministic(true))
	if err != nil { // never for a decoded request
		panic(err)
	}
	return digest(operation, string(b))
}

// alone admits one request of a ClientToken at a time.
func (h *local) alone(client string) (unlock func()) {
	m := &h.one[client[0]%64]
	m.Lock()
	return m.Unlock
}

// prior returns the token, record and lease of an earlier request with the same ClientToken that is still in force.
func (h *local) prior(c enforcer.Caller, client, request string) (string, *record, *enforcer.Lease, *Fault) {
	token, r, l := h.priorLease(c, client)
	if r == nil {
		token, r = h.priorRecord(client)
	}
	if r != nil && r.Request != request {
		return "", nil, nil, invalid(
			"Another request that is still in force has this ClientToken; use a new one for each request.")
	}
	return token, r, l, nil
}

func (h *local) priorLease(c enforcer.Caller, client string) (string, *record, *enforcer.Lease) {
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

// learn finds, once, a caller's leases from before the agent's start.
func (h *local) learn(c enforcer.Caller) {
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

// note records the lease of a ClientToken, and removes those that are over from time to time.
func (h *local) note(client string, l *enforcer.Lease, c enforcer.Caller) {
	h.mu.Lock()
	h.leases[client] = leaseRef{l.ID, c}
	sweep := len(h.leases) > 2*h.swept+1000
	var all map[string]leaseRef
	if sweep {
		all = make(map[string]leaseRef, len(h.leases))
		for k, v := range h.leases {
			all[k] = v
		}
		h.swept = len(h.leases) // so that one of two concurrent calls sweeps
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

// recordOf returns the record on a lease; nil: it has none.
func recordOf(l *enforcer.Lease) *record {
	r := &record{}
	if l.Data == nil || json.Unmarshal(l.Data.Bytes, r) != nil || r.Client == "" {
		return nil
	}
	return r
}

func (r *record) encode() []byte {
	b, err := json.Marshal(r, json.Deterministic(true))
	if err != nil { // never for decoded or own texts
		panic(err)
	}
	return b
}

// loadRecords reads the store.
func (h *local) loadRecords() {
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

func (h *local) priorRecord(client string) (string, *record) {
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
func (h *local) stored(c enforcer.Caller, token string) *record {
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

// keep stores a record, new or changed, and removes records that are over.
func (h *local) keep(token string, r *record) *Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	value := r.encode()
	if len(value) > plugin.MaxStoreValue {
		return invalid("The request is too long to be stored: shorten NodeId, or ask for less at once.")
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

// prolong sets the end of a checkout without a lease. It is false if the checkout is gone.
func (h *local) prolong(token string, until time.Time) (bool, *Fault) {
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

// over returns records that can be removed: those that are over, and the oldest draws of a caller that has its share.
// h.mu is held.
func (h *local) over(but, who string, more load) (out []string) {
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

// forget removes a record. It is false if the record is gone.
func (h *local) forget(token string) (bool, *Fault) {
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

// drop removes a record from the indices. h.mu is held.
func (h *local) drop(token string) {
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

// newToken makes a consumption token in the form of a lease id.
func newToken() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}
