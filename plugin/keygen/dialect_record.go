package keygen

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// record is the dialect's data on the lease of a machine or a process.
type record struct {
	Kind     string         `json:"kind"`          // recordMachine, recordProcess
	ID       string         `json:"id,omitzero"`   // empty: the lease's own number
	Made     time.Time      `json:"made,omitzero"` // zero: the time of the acquire
	Metadata jsontext.Value `json:"metadata,omitzero"`
	Interval int64          `json:"interval"` // seconds between signs of life
	Updated  time.Time      `json:"updated,omitzero"`
	// Unstarted says that the heartbeat begins with the first ping, and that there was none yet.
	Unstarted bool `json:"unstarted,omitzero"`
	// Beat is the last ping under a policy that keeps the dead, whose lease does not end; zero: there was none.
	Beat time.Time `json:"beat,omitzero"`

	// Of a machine.
	Fingerprint string  `json:"fingerprint,omitzero"`
	Name        *string `json:"name,omitzero"`
	IP          *string `json:"ip,omitzero"`
	Hostname    *string `json:"hostname,omitzero"`
	Platform    *string `json:"platform,omitzero"`
	Cores       *int64  `json:"cores,omitzero"`
	Memory      *int64  `json:"memory,omitzero"`
	Disk        *int64  `json:"disk,omitzero"`
	Components  []part  `json:"components,omitzero"`
	// Owner is a user's id or e-mail address, as it was given; empty: none.
	Owner      string    `json:"owner,omitzero"`
	CheckedOut time.Time `json:"checked_out,omitzero"`

	// Of a process.
	Pid     string `json:"pid,omitzero"`
	Machine string `json:"machine,omitzero"` // id
}

const (
	recordMachine = "machine"
	recordProcess = "process"
)

// part is a component of a machine.
type part struct {
	ID          string         `json:"id"`
	Fingerprint string         `json:"fingerprint"`
	Name        string         `json:"name"`
	Metadata    jsontext.Value `json:"metadata,omitzero"`
}

// kept is a record with its lease.
type kept struct {
	record
	lease *enforcer.Lease
	key   string // the store's, of a machine without a slot, whose lease is made up; empty: it has a lease
}

// open reads the record on a lease; nil: it is not of this kind.
func (x *request) open(l *enforcer.Lease, kind string) *kept {
	k := &kept{lease: l}
	if json.Unmarshal(l.Data.Bytes, &k.record) != nil || k.Kind != kind {
		return nil
	}
	k.ID = cmp.Or(k.ID, uuid(l.ID))
	if k.Made.IsZero() {
		k.Made = l.AcquiredAt
	}
	return k
}

// all returns the caller's machines or processes.
func (x *request) all(kind string) (out []*kept) {
	for _, l := range x.Leases(x.caller) {
		if k := x.open(l, kind); k != nil {
			out = append(out, k)
		}
	}
	if kind == recordMachine {
		for _, k := range x.slotless() {
			if !slices.ContainsFunc(out, func(o *kept) bool { return o.ID == k.ID }) { // it has just got its slot
				out = append(out, k)
			}
		}
	}
	return out
}

// get returns a machine or process of the caller by its id; nil: there is none.
func (x *request) get(kind, id string) *kept {
	if b, ok := parseUUID(id); ok {
		if l, ok := x.Lease(b, x.caller); ok {
			if k := x.open(l, kind); k != nil && k.ID == id {
				return k
			}
		}
	}
	for _, k := range x.all(kind) {
		if k.ID == id || kind == recordMachine && k.Fingerprint == id {
			return k
		}
	}
	return nil
}

// updated returns when the record was changed last.
func (k *kept) updated() time.Time {
	if k.Updated.IsZero() {
		return k.Made
	}
	return k.Updated
}

func (x *request) release(k *kept) *enforcer.Denial {
	if k.key != "" {
		return x.keepSlotless(k.key, nil)
	}
	return x.Release(&enforcer.Release{ID: k.lease.ID, Caller: x.caller})
}

// leastInterval is the least interval that SDKs are given, in seconds. They ping half a minute before its end, and
// never at intervals of 30 s or less.
const leastInterval = 60

// heartbeatSeconds returns the policy's heartbeat interval, in seconds.
func (x *request) heartbeatSeconds() int64 {
	n := int64(defaultHeartbeat / time.Second)
	if d := x.about.terms.Policy.HeartbeatDuration; d != nil {
		n = *d
	}
	return max(leastInterval, min(n, int64(enforcer.MaxTTL/time.Second)))
}

func number(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func metadata(v jsontext.Value) any {
	if len(v) == 0 || v.Kind() != '{' {
		return object{}
	}
	return v
}

// take acquires a lease that carries a record.
func (x *request) take(r *enforcer.Acquire, rec *record, limits map[string]string) (*kept, *response) {
	b, err := json.Marshal(rec)
	if err != nil {
		return nil, problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer", "/data")
	}
	if len(b) > plugin.MaxLeaseData {
		return nil, invalid("", "is too large: fingerprints, names and metadata together may have at most 4 KiB here",
			"/data/attributes")
	}
	x.limits = limits
	l, _, d := x.Acquire(x.r.Context(), r, b)
	if d != nil {
		return nil, denied(d, limits)
	}
	return x.open(l, rec.Kind), nil
}
