package desk

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/journal/record"
	"github.com/usher-agent/usher/enforcer"
)

// The first byte of every record of the journal is its version. Earlier ones are still read: version 1 has no inode in
// a holder, 2 neither a credential there nor data on a lease, and 3 does not say under which licence a lease was
// granted. Versions 5 to 8 are of records with parts of slots alone, of hold-offs, of what the site's rules need or do
// (the profiles of holders, and leases that a rule has ended), and of slots that linger. An agent that knows no such
// thing must not read those, and reads all others.
const (
	recordVersion        = 4
	recordVersionParts   = 5
	recordVersionHoldOff = 6
	recordVersionRules   = 7
	recordVersionLingers = 8
	recordVersionNewest  = recordVersionLingers
)

// The kinds of events that are journalled, as records name them. A number is never used for anything else.
var recordKinds = []enforcer.EventKind{1: enforcer.EventGranted, 2: enforcer.EventRenewed, 3: enforcer.EventEnded,
	4: enforcer.EventForgot,
	5: enforcer.EventChanged, 6: enforcer.EventDrawn, 7: enforcer.EventSet, 8: enforcer.EventRemembered,
	9: enforcer.EventNoted, 10: enforcer.EventHeldOff, 11: enforcer.EventLifted,
	12: enforcer.EventLingers, 13: enforcer.EventLingerOver}

var recordLifetimes = []enforcer.Lifetime{1: enforcer.LifetimeConnection, 2: enforcer.LifetimeProcess,
	3: enforcer.LifetimeTTL, 4: enforcer.LifetimeHeld,
	5: enforcer.LifetimeDraw, 6: enforcer.LifetimeBorrow}

var recordCauses = []enforcer.Cause{1: enforcer.CauseReleased, 2: enforcer.CauseForced, 3: enforcer.CauseExpired,
	4: enforcer.CauseRevoked,
	5: enforcer.CauseHolderGone, 6: enforcer.CauseUndelivered, 7: enforcer.CauseMaxHold, 8: enforcer.CauseIdle}

// recordExpiries are what may become of a lease when its licence ends, as the lowest two bits of its terms have it; 0:
// not known.
var recordExpiries = []enforcer.OnExpiry{1: enforcer.Drain, 2: enforcer.Revoke, 3: enforcer.Keep}

// The further bits of terms.
const (
	termsFree  = 4 << iota // of a free tier
	termsTest              // of a test licence
	termsKnown             // the licence's id follows
)

// errNotHeld reports a record of a lease that is not held: what granted it is missing.
var errNotHeld = errors.New("a record of the journal does not follow from those before it")

// encodeEvent appends an event's record to b, without the profiles of holders.
func encodeEvent(b []byte, ev enforcer.Event) []byte { return encode(b, &ev, false) }

// encode appends an event's record to b. It has the profiles of holders where the site's rules may look at them.
func encode(b []byte, ev *enforcer.Event, profiles bool) []byte {
	version := byte(recordVersion)
	if l := ev.Lease; l != nil && slices.ContainsFunc(l.Items, func(it enforcer.Item) bool { return it.Of > 1 }) {
		version = recordVersionParts
	}
	switch {
	case ev.HoldOff != nil:
		version = recordVersionHoldOff
	case ev.Linger != nil:
		version = recordVersionLingers
	}
	has := func(h *enforcer.Holder) bool { return h.Profile != enforcer.ProfileRef{} }
	profiles = profiles && ev.Lease != nil && (has(ev.Lease.Holder) || slices.ContainsFunc(ev.Lease.Others, has))
	if profiles || ev.Linger == nil && (ev.Cause == enforcer.CauseMaxHold || ev.Cause == enforcer.CauseIdle) {
		version = recordVersionRules
	}
	w := recordWriter{profiles: version == recordVersionRules,
		Writer: record.Writer{Bytes: append(b, version, byte(slices.Index(recordKinds, ev.Kind)))}}
	w.Time(ev.At)
	switch ev.Kind {
	case enforcer.EventEnded:
		w.Bytes = append(w.Bytes, ev.Lease.ID[:]...)
		w.Uint(uint64(max(0, slices.Index(recordCauses, ev.Cause))))
	case enforcer.EventForgot:
		w.Bytes = append(w.Bytes, ev.Token[:]...)
	case enforcer.EventHeldOff:
		w.holdOff(ev.HoldOff)
	case enforcer.EventLifted:
		w.lifted(ev.HoldOff, ev.Cause)
	case enforcer.EventLingers:
		w.linger(ev.Linger)
	case enforcer.EventLingerOver:
		w.lingerOver(ev.Linger, ev.Cause)
	case enforcer.EventSet:
		w.draws(ev.Draws)
	case enforcer.EventDrawn:
		w.lease(ev.Lease)
		w.draws(ev.Draws)
	case enforcer.EventRemembered:
		w.lease(ev.Lease)
		w.Flag(ev.Cause != "")
		if ev.Cause != "" {
			w.Uint(uint64(max(0, slices.Index(recordCauses, ev.Cause))))
		}
	default:
		w.lease(ev.Lease)
		if ev.Kind == enforcer.EventGranted {
			w.terms(ev.Terms)
		}
	}
	return w.Bytes
}

// readRecord is what a record tells: an event, with little of what few events have. It takes two cache lines, for a
// start with many leases hands each from one processor to another.
type readRecord struct {
	kind  enforcer.EventKind
	at    time.Time
	lease *enforcer.Lease
	terms *enforcer.Terms
	cause enforcer.Cause
	ends  enforcer.LeaseID // of EventEnded
	draws []enforcer.Draw
	more  *further // nil: nothing
}

// further is what few records tell.
type further struct {
	token   enforcer.TokenKey
	holdOff *enforcer.HoldOff
	linger  *enforcer.Linger
	own     []byte // the record is the desk's own, and this is it; nil: it is an event
}

// event returns the event, but for a lease that it only names.
func (t *readRecord) event() enforcer.Event {
	ev := enforcer.Event{Kind: t.kind, At: t.at, Lease: t.lease, Terms: t.terms, Cause: t.cause, Draws: t.draws}
	if m := t.more; m != nil {
		ev.Token, ev.HoldOff, ev.Linger = m.token, m.holdOff, m.linger
	}
	return ev
}

// decodeEvent reads a record. lease finds the lease that an event of only an id is about; same may be nil.
func decodeEvent(b []byte, lease func(enforcer.LeaseID) *enforcer.Lease, same *sameParts) (enforcer.Event, error) {
	var t readRecord
	err := decodeRecord(b, same, &t)
	if err == nil {
		err = t.follows(lease)
	}
	return t.event(), err
}

// follows fills in the lease that an event ends, and looks whether the lease that an event changes is held.
func (t *readRecord) follows(lease func(enforcer.LeaseID) *enforcer.Lease) error {
	switch t.kind {
	case enforcer.EventEnded:
		if t.lease = lease(t.ends); t.lease == nil {
			return fmt.Errorf("%w: it ends lease %s, which is not held", errNotHeld, t.ends)
		}
	case enforcer.EventRenewed, enforcer.EventChanged, enforcer.EventNoted:
		if lease(t.lease.ID) == nil {
			return fmt.Errorf("%w: it changes lease %s, which is not held", errNotHeld, t.lease.ID)
		}
	default:
	}
	return nil
}

// decodeRecord reads a record alone into t.
func decodeRecord(b []byte, same *sameParts, t *readRecord) error {
	*t = readRecord{}
	var r *recordReader
	if same != nil {
		r = &same.reader
	} else {
		r = &recordReader{}
	}
	*r = recordReader{Reader: record.Reader{Bytes: b}, same: same}
	version, kind := r.Byte(), r.Byte()
	if !r.Bad && version > recordVersionNewest {
		return record.ErrNewer
	}
	r.profiles = version == recordVersionRules
	written := version
	version = min(version, recordVersion) // parts are told by the amounts themselves, hold-offs and lingers by the kind
	r.version = version
	if r.Bad || version == 0 || int(kind) >= len(recordKinds) || recordKinds[kind] == "" {
		return record.ErrUnreadable
	}
	if !r.profiles {
		written = version
	}
	if same != nil && same.version != written { // the same bytes mean another thing
		same.forget()
		same.version = written
	}
	t.kind, t.at = recordKinds[kind], r.Time()
	r.rest(t)
	if !r.Ended() {
		return record.ErrUnreadable
	}
	return nil
}

// rest reads what stands behind an event's kind and time.
func (r *recordReader) rest(t *readRecord) {
	switch t.kind {
	case enforcer.EventGranted:
		t.lease = r.lease()
		if r.version > 3 {
			t.terms = r.sameTerms()
		}
	case enforcer.EventEnded:
		r.Into(t.ends[:])
		t.cause = pick(r, recordCauses)
	case enforcer.EventForgot:
		t.more = &further{}
		r.Into(t.more.token[:])
	case enforcer.EventHeldOff:
		t.more = &further{holdOff: r.holdOff()}
	case enforcer.EventLifted:
		t.more = &further{}
		t.more.holdOff, t.cause = r.lifted()
	case enforcer.EventLingers:
		t.more = &further{linger: r.linger()}
	case enforcer.EventLingerOver:
		t.more = &further{}
		t.more.linger, t.cause = r.lingerOver()
	case enforcer.EventSet:
		t.draws = r.draws()
	case enforcer.EventDrawn:
		t.lease = r.lease()
		t.draws = r.draws()
	case enforcer.EventRemembered:
		t.lease = r.lease()
		if r.Flag() {
			t.cause = pick(r, recordCauses)
		}
		if t.lease.Token == nil {
			r.Fail() // nothing is remembered of it
		}
	default:
		t.lease = r.lease()
	}
}

type recordWriter struct {
	record.Writer
	profiles bool // of holders are written
}

// amount writes how much an item is: slots as they have always been written, and parts of slots as a negative number
// with their denominator behind it.
func (w *recordWriter) amount(it enforcer.Item) {
	if it.Of < 2 || it.N < 1 {
		w.Int(it.N)
		return
	}
	w.Int(-it.N)
	w.Int(it.Of)
}

func (w *recordWriter) lease(l *enforcer.Lease) {
	w.Bytes = append(w.Bytes, l.ID[:]...)
	w.Uint(uint64(len(l.Items)))
	for _, it := range l.Items {
		w.Text(it.Pool)
		w.amount(it)
	}
	w.Uint(uint64(max(0, slices.Index(recordLifetimes, l.Lifetime))))
	w.Int(int64(l.TTL))
	w.Time(l.AcquiredAt)
	w.Time(l.ExpiresAt)
	w.Flag(l.Unconfirmed)
	w.holder(l.Holder)
	w.Uint(uint64(len(l.Others)))
	for _, o := range l.Others {
		w.holder(o)
	}
	w.Flag(l.Token != nil)
	if l.Token != nil {
		w.Bytes = append(append(w.Bytes, l.Token.Key[:]...), l.Token.Request[:]...)
	}
	w.Flag(l.Data != nil)
	if l.Data != nil {
		w.Text(l.Data.Owner)
		w.Text(string(l.Data.Bytes))
	}
}

// terms writes what a lease was granted under: a byte that says what is known of it, and that; 0: nothing.
func (w *recordWriter) terms(t *enforcer.Terms) {
	if t == nil || t.OnExpiry == "" { // not known
		w.Bytes = append(w.Bytes, 0)
		return
	}
	flags := byte(max(0, slices.Index(recordExpiries, t.OnExpiry)))
	for i, set := range []bool{t.Free, t.Test, t.ID != [16]byte{}} {
		if set {
			flags |= termsFree << i
		}
	}
	w.Bytes = append(w.Bytes, flags)
	if flags&termsKnown != 0 {
		w.Bytes = append(w.Bytes, t.ID[:]...)
	}
	w.Time(t.Issued)
	w.Time(t.Terminates)
}

func (w *recordWriter) holder(h *enforcer.Holder) {
	w.Uint(uint64(h.UID))
	w.Uint(uint64(h.GID))
	w.Int(int64(h.PID))
	w.Flag(h.Admin)
	w.Uint(h.Start)
	w.Uint(h.Inode)
	w.Text(h.Credential)
	for _, s := range []string{h.Exe, h.User, h.Host, h.Pod} {
		w.Text(s)
	}
	if w.profiles {
		p := h.Profile.Profile()
		w.Text(p.Login)
		w.Text(p.Groups)
		w.Text(p.Cgroup)
	}
	w.Uint(uint64(len(h.Labels)))
	if len(h.Labels) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
		w.Text(k)
		w.Text(h.Labels[k])
	}
}

func (w *recordWriter) draws(draws []enforcer.Draw) {
	w.Uint(uint64(len(draws)))
	for _, d := range draws {
		w.Text(d.Key)
		w.Int(d.Drawn)
		w.Time(d.Period)
	}
}

// recordReader reads what recordWriter wrote; after the first thing that cannot be, all is bad.
type recordReader struct {
	record.Reader
	version  byte
	profiles bool // of holders are there
	dry      bool // only the end of what is read is looked for
	same     *sameParts
}

// Text reads a text, and makes none where only its end is looked for.
func (r *recordReader) Text() string {
	b := r.Raw()
	if r.dry {
		return ""
	}
	return string(b)
}

// pick reads an index into a table.
func pick[T comparable](r *recordReader, table []T) (v T) {
	i := r.Uint()
	if i >= uint64(len(table)) || table[i] == v {
		r.Fail()
		return v
	}
	return table[i]
}

func (r *recordReader) lease() *enforcer.Lease {
	l := &enforcer.Lease{}
	r.Into(l.ID[:])
	if r.same != nil {
		l.Items = remembered(r, &r.same.items, (*recordReader).items)
	} else {
		l.Items = r.items()
	}
	if len(l.Items) == 0 {
		r.Fail()
	}
	l.Lifetime = pick(r, recordLifetimes)
	l.TTL = time.Duration(r.Int())
	l.AcquiredAt, l.ExpiresAt = r.Time(), r.Time()
	l.Unconfirmed = r.Flag()
	if r.same != nil {
		l.Holder = remembered(r, &r.same.holders, (*recordReader).holder)
	} else {
		l.Holder = r.holder()
	}
	for range r.Count() {
		l.Others = append(l.Others, r.holder())
	}
	if r.Flag() {
		l.Token = &enforcer.ClientToken{}
		r.Into(l.Token.Key[:])
		r.Into(l.Token.Request[:])
	}
	if r.version > 2 && r.Flag() {
		l.Data = &enforcer.Data{Owner: r.Text(), Bytes: []byte(r.Text())}
	}
	return l
}

func (r *recordReader) terms() *enforcer.Terms {
	flags := r.Byte()
	if flags >= termsKnown<<1 || flags != 0 && flags&3 == 0 {
		r.Fail()
	}
	if flags == 0 || r.Bad {
		return nil
	}
	t := &enforcer.Terms{OnExpiry: recordExpiries[flags&3], Free: flags&termsFree != 0, Test: flags&termsTest != 0}
	if flags&termsKnown != 0 {
		r.Into(t.ID[:])
	}
	t.Issued, t.Terminates = r.Time(), r.Time()
	return t
}

func (r *recordReader) items() (out []enforcer.Item) {
	for range r.Count() {
		if it := r.item(); !r.dry {
			out = append(out, it)
		}
	}
	return out
}

func (r *recordReader) item() enforcer.Item {
	it := enforcer.Item{Pool: r.Text(), N: r.Int()}
	if it.N < 0 { // parts of slots: see recordWriter.amount
		it.N, it.Of = -it.N, r.Int()
	}
	return it
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
	h.UID, h.GID, h.PID = uint32(r.Uint()), uint32(r.Uint()), int32(r.Int())
	h.Admin = r.Flag()
	h.Start = r.Uint()
	if r.version > 1 {
		h.Inode = r.Uint()
	}
	if r.version > 2 {
		h.Credential = r.Text()
	}
	h.Exe, h.User, h.Host, h.Pod = r.Text(), r.Text(), r.Text(), r.Text()
	if r.profiles {
		if p := (enforcer.Profile{Login: r.Text(), Groups: r.Text(), Cgroup: r.Text()}); !r.dry && !r.Bad {
			h.Profile = enforcer.ProfileOf(p)
		}
	}
	for range r.Count() {
		k, v := r.Text(), r.Text()
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
	for range r.Count() {
		out = append(out, enforcer.Draw{Key: r.Text(), Drawn: r.Int(), Period: r.Time()})
	}
	return out
}
