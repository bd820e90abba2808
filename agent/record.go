package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// recordVersion is the first byte of every record of the journal. Earlier ones are still read: version 1 has no inode
// in a holder, 2 neither a credential there nor data on a lease, and 3 does not say under which licence a lease was
// granted.
const recordVersion = 4

// The kinds of events that are journalled, as records name them. A number is never used for anything else.
var recordKinds = []enforcer.EventKind{1: enforcer.EventGranted, 2: enforcer.EventRenewed, 3: enforcer.EventEnded,
	4: enforcer.EventForgot,
	5: enforcer.EventChanged, 6: enforcer.EventDrawn, 7: enforcer.EventSet, 8: enforcer.EventRemembered,
	9: enforcer.EventNoted}

var recordLifetimes = []enforcer.Lifetime{1: enforcer.LifetimeConnection, 2: enforcer.LifetimeProcess,
	3: enforcer.LifetimeTTL, 4: enforcer.LifetimeHeld,
	5: enforcer.LifetimeDraw, 6: enforcer.LifetimeBorrow}

var recordCauses = []enforcer.Cause{1: enforcer.CauseReleased, 2: enforcer.CauseForced, 3: enforcer.CauseExpired,
	4: enforcer.CauseRevoked,
	5: enforcer.CauseHolderGone, 6: enforcer.CauseUndelivered}

// recordExpiries are what may become of a lease when its licence ends, as the lowest two bits of its terms have it; 0:
// not known.
var recordExpiries = []enforcer.OnExpiry{1: enforcer.Drain, 2: enforcer.Revoke, 3: enforcer.Keep}

// The further bits of terms.
const (
	termsFree  = 4 << iota // of a free tier
	termsTest              // of a test licence
	termsKnown             // the licence's id follows
)

// errRecord reports a record that no version of this program has written.
var errRecord = errors.New("a record of the journal cannot be read: it was written by another version, or is not one")

// errNotHeld reports a record of a lease that is not held: what granted it is missing.
var errNotHeld = errors.New("a record of the journal does not follow from those before it")

// errNewer reports a record of a later version.
var errNewer = errors.New("a record of the journal was written by a newer usher: use that one")

// encodeEvent appends an event's record to b.
func encodeEvent(b []byte, ev enforcer.Event) []byte {
	w := recordWriter{append(b, recordVersion, byte(slices.Index(recordKinds, ev.Kind)))}
	w.time(ev.At)
	switch ev.Kind {
	case enforcer.EventEnded:
		w.b = append(w.b, ev.Lease.ID[:]...)
		w.uint(uint64(max(0, slices.Index(recordCauses, ev.Cause))))
	case enforcer.EventForgot:
		w.b = append(w.b, ev.Token[:]...)
	case enforcer.EventSet:
		w.draws(ev.Draws)
	case enforcer.EventDrawn:
		w.lease(ev.Lease)
		w.draws(ev.Draws)
	case enforcer.EventRemembered:
		w.lease(ev.Lease)
		w.flag(ev.Cause != "")
		if ev.Cause != "" {
			w.uint(uint64(max(0, slices.Index(recordCauses, ev.Cause))))
		}
	default:
		w.lease(ev.Lease)
		if ev.Kind == enforcer.EventGranted {
			w.terms(ev.Terms)
		}
	}
	return w.b
}

// decodeEvent reads a record. lease finds the lease that an event of only an id is about; same may be nil.
func decodeEvent(b []byte, lease func(enforcer.LeaseID) *enforcer.Lease, same *sameParts) (enforcer.Event, error) {
	r := recordReader{b: b, same: same}
	version, kind := r.byte(), r.byte()
	r.version = version
	if !r.bad && version > recordVersion {
		return enforcer.Event{}, errNewer
	}
	if r.bad || version == 0 || int(kind) >= len(recordKinds) || recordKinds[kind] == "" {
		return enforcer.Event{}, errRecord
	}
	if same != nil && same.version != version { // the same bytes mean another thing
		clear(same.holders)
		clear(same.items)
		same.version = version
	}
	ev := enforcer.Event{Kind: recordKinds[kind], At: r.time()}
	switch ev.Kind {
	case enforcer.EventEnded:
		var id enforcer.LeaseID
		r.into(id[:])
		ev.Cause = pick(&r, recordCauses)
		if ev.Lease = lease(id); ev.Lease == nil && !r.bad {
			return ev, fmt.Errorf("%w: it ends lease %s, which is not held", errNotHeld, id)
		}
	case enforcer.EventForgot:
		r.into(ev.Token[:])
	case enforcer.EventSet:
		ev.Draws = r.draws()
	case enforcer.EventDrawn:
		ev.Lease = r.lease()
		ev.Draws = r.draws()
	case enforcer.EventRemembered:
		ev.Lease = r.lease()
		if r.flag() {
			ev.Cause = pick(&r, recordCauses)
		}
		if ev.Lease.Token == nil {
			r.fail() // nothing is remembered of it
		}
	default:
		ev.Lease = r.lease()
		if ev.Kind != enforcer.EventGranted && !r.bad && len(r.b) == 0 && lease(ev.Lease.ID) == nil {
			return ev, fmt.Errorf("%w: it changes lease %s, which is not held", errNotHeld, ev.Lease.ID)
		}
		if ev.Kind == enforcer.EventGranted && version > 3 {
			ev.Terms = r.terms()
		}
	}
	if r.bad || len(r.b) > 0 {
		return ev, errRecord
	}
	return ev, nil
}

type recordWriter struct{ b []byte }

func (w *recordWriter) uint(n uint64) { w.b = binary.AppendUvarint(w.b, n) }
func (w *recordWriter) int(n int64)   { w.b = binary.AppendVarint(w.b, n) }
func (w *recordWriter) text(s string) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *recordWriter) flag(b bool)   { w.b = append(w.b, map[bool]byte{true: 1}[b]) }
func (w *recordWriter) time(t time.Time) {
	if t.IsZero() {
		w.int(0)
		return
	}
	w.int(t.UnixNano())
}

func (w *recordWriter) lease(l *enforcer.Lease) {
	w.b = append(w.b, l.ID[:]...)
	w.uint(uint64(len(l.Items)))
	for _, it := range l.Items {
		w.text(it.Pool)
		w.int(it.N)
	}
	w.uint(uint64(max(0, slices.Index(recordLifetimes, l.Lifetime))))
	w.int(int64(l.TTL))
	w.time(l.AcquiredAt)
	w.time(l.ExpiresAt)
	w.flag(l.Unconfirmed)
	w.holder(l.Holder)
	w.uint(uint64(len(l.Others)))
	for _, o := range l.Others {
		w.holder(o)
	}
	w.flag(l.Token != nil)
	if l.Token != nil {
		w.b = append(append(w.b, l.Token.Key[:]...), l.Token.Request[:]...)
	}
	w.flag(l.Data != nil)
	if l.Data != nil {
		w.text(l.Data.Owner)
		w.text(string(l.Data.Bytes))
	}
}

// terms writes what a lease was granted under: a byte that says what is known of it, and that; 0: nothing.
func (w *recordWriter) terms(t *enforcer.Terms) {
	if t == nil || t.OnExpiry == "" { // not known
		w.b = append(w.b, 0)
		return
	}
	flags := byte(max(0, slices.Index(recordExpiries, t.OnExpiry)))
	for i, set := range []bool{t.Free, t.Test, t.ID != [16]byte{}} {
		if set {
			flags |= termsFree << i
		}
	}
	w.b = append(w.b, flags)
	if flags&termsKnown != 0 {
		w.b = append(w.b, t.ID[:]...)
	}
	w.time(t.Issued)
	w.time(t.Terminates)
}

func (w *recordWriter) holder(h *enforcer.Holder) {
	w.uint(uint64(h.UID))
	w.uint(uint64(h.GID))
	w.int(int64(h.PID))
	w.flag(h.Admin)
	w.uint(h.Start)
	w.uint(h.Inode)
	w.text(h.Credential)
	for _, s := range []string{h.Exe, h.User, h.Host, h.Pod} {
		w.text(s)
	}
	w.uint(uint64(len(h.Labels)))
	for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
		w.text(k)
		w.text(h.Labels[k])
	}
}

func (w *recordWriter) draws(draws []enforcer.Draw) {
	w.uint(uint64(len(draws)))
	for _, d := range draws {
		w.text(d.Key)
		w.int(d.Drawn)
		w.time(d.Period)
	}
}

// recordReader reads what recordWriter wrote; after the first thing that cannot be, all is bad.
type recordReader struct {
	b       []byte
	version byte
	bad     bool
	dry     bool // only the end of what is read is looked for
	same    *sameParts
}

// sameParts are the parts that many records have alike, by their bytes: the leases of one holder share it, and those of
// as many slots of one pool their items. Both are never changed.
type sameParts struct {
	version byte // of the records that they are of
	holders map[string]*enforcer.Holder
	items   map[string][]enforcer.Item
	terms   *enforcer.Terms // the last
	ahead   recordReader    // what follows is room to look ahead in
	holder  enforcer.Holder
}

// mostSame bounds how many of each are remembered.
const mostSame = 1 << 16

func newSameParts() *sameParts {
	return &sameParts{holders: map[string]*enforcer.Holder{}, items: map[string][]enforcer.Item{}}
}

// remembered returns the part that r is at, as read makes it of r the first time.
func remembered[T any](r *recordReader, known map[string]T, read func(*recordReader) T) T {
	ahead := &r.same.ahead
	*ahead = *r
	ahead.dry = true
	read(ahead)
	if ahead.bad {
		return read(r)
	}
	raw := r.b[:len(r.b)-len(ahead.b)]
	if v, ok := known[string(raw)]; ok {
		r.b = ahead.b
		return v
	}
	v := read(r)
	if len(known) == mostSame {
		clear(known)
	}
	known[string(raw)] = v
	return v
}

func (r *recordReader) fail() { r.bad, r.b = true, nil }

func (r *recordReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *recordReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *recordReader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads how many things follow, each of at least one byte.
func (r *recordReader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *recordReader) into(to []byte) {
	if len(r.b) < len(to) {
		r.fail()
		return
	}
	copy(to, r.b)
	r.b = r.b[len(to):]
}

func (r *recordReader) text() string {
	n := r.count()
	b := r.b[:n]
	r.b = r.b[n:]
	if r.dry {
		return ""
	}
	return string(b)
}

func (r *recordReader) flag() bool {
	v := r.byte()
	if v > 1 {
		r.fail()
	}
	return v == 1
}

func (r *recordReader) time() time.Time {
	n := r.int()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// pick reads an index into a table.
func pick[T comparable](r *recordReader, table []T) (v T) {
	i := r.uint()
	if i >= uint64(len(table)) || table[i] == v {
		r.fail()
		return v
	}
	return table[i]
}

func (r *recordReader) lease() *enforcer.Lease {
	l := &enforcer.Lease{}
	r.into(l.ID[:])
	if r.same != nil {
		l.Items = remembered(r, r.same.items, (*recordReader).items)
	} else {
		l.Items = r.items()
	}
	if len(l.Items) == 0 {
		r.fail()
	}
	l.Lifetime = pick(r, recordLifetimes)
	l.TTL = time.Duration(r.int())
	l.AcquiredAt, l.ExpiresAt = r.time(), r.time()
	l.Unconfirmed = r.flag()
	if r.same != nil {
		l.Holder = remembered(r, r.same.holders, (*recordReader).holder)
	} else {
		l.Holder = r.holder()
	}
	for range r.count() {
		l.Others = append(l.Others, r.holder())
	}
	if r.flag() {
		l.Token = &enforcer.ClientToken{}
		r.into(l.Token.Key[:])
		r.into(l.Token.Request[:])
	}
	if r.version > 2 && r.flag() {
		l.Data = &enforcer.Data{Owner: r.text(), Bytes: []byte(r.text())}
	}
	return l
}

func (r *recordReader) terms() *enforcer.Terms {
	flags := r.byte()
	if flags >= termsKnown<<1 || flags != 0 && flags&3 == 0 {
		r.fail()
	}
	if flags == 0 || r.bad {
		return nil
	}
	t := &enforcer.Terms{OnExpiry: recordExpiries[flags&3], Free: flags&termsFree != 0, Test: flags&termsTest != 0}
	if flags&termsKnown != 0 {
		r.into(t.ID[:])
	}
	t.Issued, t.Terminates = r.time(), r.time()
	if r.same != nil && r.same.terms != nil && *r.same.terms == *t {
		return r.same.terms
	}
	if r.same != nil {
		r.same.terms = t
	}
	return t
}

func (r *recordReader) items() (out []enforcer.Item) {
	for range r.count() {
		it := enforcer.Item{Pool: r.text(), N: r.int()}
		if !r.dry {
			out = append(out, it)
		}
	}
	return out
}

func (r *recordReader) holder() *enforcer.Holder {
	if r.dry {
		r.holderInto(&r.same.holder)
		return nil
	}
	h := &enforcer.Holder{}
	r.holderInto(h)
	return h
}

func (r *recordReader) holderInto(h *enforcer.Holder) {
	h.UID, h.GID, h.PID = uint32(r.uint()), uint32(r.uint()), int32(r.int())
	h.Admin = r.flag()
	h.Start = r.uint()
	if r.version > 1 {
		h.Inode = r.uint()
	}
	if r.version > 2 {
		h.Credential = r.text()
	}
	h.Exe, h.User, h.Host, h.Pod = r.text(), r.text(), r.text(), r.text()
	for range r.count() {
		k, v := r.text(), r.text()
		if r.dry {
			continue
		}
		if h.Labels == nil {
			h.Labels = map[string]string{}
		}
		h.Labels[k] = v
	}
}

func (r *recordReader) draws() (out []enforcer.Draw) {
	for range r.count() {
		out = append(out, enforcer.Draw{Key: r.text(), Drawn: r.int(), Period: r.time()})
	}
	return out
}
