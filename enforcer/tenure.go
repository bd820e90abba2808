package enforcer

import (
	"crypto/sha256"
	"slices"
	"time"
)

// Terms are what a licence says of the leases that it grants, and which licence that is. They stay with a lease: when
// that licence ends, its word is carried out on its leases, whatever licence is in force by then. They never change
// once made.
type Terms struct {
	// ID names the base licence: SHA-256, cut short, over its Ref; zero: not known.
	ID         [16]byte
	Issued     time.Time
	Free, Test bool // a free tier; a test licence
	OnExpiry   OnExpiry
	Terminates time.Time // when the product must stop; zero: never
}

// tenure is the leases that were granted under one licence.
type tenure struct {
	*Terms
	leases   int       // of it, and of those whose heir it is
	granted  series    // of it alone
	heir     *tenure   // the one that has taken its place, and its leases with it; nil: none has
	turnedAt time.Time // when the licence ended; zero: it has not
	revokeAt time.Time // when the leases are revoked; zero: never
}

// base returns the base licence in force; nil: there is none.
func (v *Verdict) base() *License {
	if len(v.Licenses) == 0 || !v.Licenses[0].InForce {
		return nil
	}
	return v.Licenses[0].License
}

// terms returns what the verdict says of the leases that are granted under it.
func (v *Verdict) terms() *Terms {
	t := &Terms{OnExpiry: v.OnExpiry, Terminates: v.TerminatesAt}
	if l := v.base(); l != nil {
		t.ID, t.Issued, t.Free, t.Test = l.termsID(), l.Issued, l.Role == RoleFree, l.IsTest()
	}
	return t
}

func (l *License) termsID() (id [16]byte) {
	var h hash
	h.text(string(l.Ref()))
	sum := sha256.Sum256(h.b)
	copy(id[:], sum[:])
	return id
}

// What becomes of the leases of a licence when another is the base in force.
type succession int

const (
	ended    succession = iota // the licence has ended: its word is carried out
	stands                     // it is as good as before, and only comes after another
	replaced                   // the one in force has taken its place, and its leases with it
)

// succession says what became of the licence that granted other leases. A licence is replaced by one that was issued
// later, or that says so. A free tier or a test licence replaces only its like. Nothing replaces a licence that was
// withdrawn.
func (v *Verdict) succession(t *Terms) succession {
	by := v.base()
	if by == nil {
		return ended
	}
	weaker := by.Role == RoleFree && !t.Free || by.IsTest() && !t.Test
	stronger := by.Role != RoleFree && t.Free || !by.IsTest() && t.Test
	later := !weaker && (stronger || by.Issued.After(t.Issued))
	known, out := false, ended
	for _, j := range v.Licenses {
		if j.License == nil || j.License.termsID() != t.ID {
			continue
		}
		known = true
		names := !weaker && by.MayActOn(j.License) && slices.Contains(by.Supersedes, j.License.ID)
		switch {
		case j.Spare && later:
			return replaced
		case j.Spare:
			out = stands
		case j.Code == Superseded && (later || names), (j.Code == Expired || j.Code == NotYetValid) && later:
			return replaced
		}
	}
	if !known && later {
		return replaced
	}
	return out
}

// intern returns the place of a licence's tenure, and makes one if need be.
func (e *Enforcer) intern(t *Terms) uint32 {
	if t == nil {
		t = &Terms{}
	}
	if t == e.tenures[e.current].Terms {
		return e.current
	}
	if x := e.tenures[e.interned]; x.Terms == t && x.heir == nil { // as for most records of a journal
		return e.interned
	}
	free := -1
	for i, x := range e.tenures {
		if x.ID == t.ID && x.heir == nil {
			if !t.Issued.Before(x.Issued) { // read from a journal: the latest word holds
				x.Terms = t
			}
			e.interned = uint32(i)
			return e.interned
		}
		if x.leases+x.granted.n == 0 && uint32(i) != e.current {
			free = i
		}
	}
	if free < 0 {
		free = len(e.tenures)
		e.tenures = append(e.tenures, nil)
	}
	e.tenures[free] = &tenure{Terms: t}
	e.interned = uint32(free)
	return e.interned
}

// tenureOf returns the tenure that a lease is of by now.
func (e *Enforcer) tenureOf(h *held) *tenure {
	t := e.tenures[h.terms]
	if t.heir != nil {
		return t.heir
	}
	return t
}

// add counts a lease that is granted, and untenure counts one out.
func (t *tenure) add(h *held) {
	t.granted.add(h)
	t.leases++
}

func (e *Enforcer) untenure(h *held) {
	e.tenures[h.terms].granted.remove(h)
	e.tenureOf(h).leases--
}

// applyTerms decides under a new verdict whether the leases of each licence go on, or the word of a licence that has
// ended is carried out. It reports whether leases that their licence says are revoked have come under another.
func (e *Enforcer) applyTerms(v *Verdict, at time.Time) (revoke bool) {
	if v.Good() {
		t := v.terms()
		e.current = e.intern(t)
		now := e.tenures[e.current]
		now.Terms, now.turnedAt, now.revokeAt = t, zeroTime, zeroTime
	}
	for i, t := range e.tenures {
		if v.Good() && uint32(i) == e.current || t.heir != nil {
			continue
		}
		if t.leases == 0 && uint32(i) != e.current {
			t.turnedAt, t.revokeAt = zeroTime, zeroTime
			continue
		}
		became := ended
		if v.Good() && t.ID == [16]byte{} { // neither their licence is known, nor that it has ended
			became = replaced
		} else if v.Good() {
			became = v.succession(t.Terms)
		}
		switch became {
		case replaced:
			revoke = revoke || t.OnExpiry == Revoke
			e.move(uint32(i), e.current)
		case stands:
			t.turnedAt, t.revokeAt = zeroTime, zeroTime
		default:
			if t.OnExpiry == "" { // no licence was good since the start: the closest one's word holds
				said := *t.Terms
				said.OnExpiry, said.Terminates = v.OnExpiry, v.TerminatesAt
				t.Terms = &said
			}
			if t.turnedAt.IsZero() {
				t.turnedAt = at
			}
			t.revokeAt = t.whenToRevoke()
		}
	}
	return revoke
}

// move gives the leases of one licence to another. Where they are many, none is looked at: they stay together, and
// their tenure has the other's for an heir.
func (e *Enforcer) move(from, to uint32) {
	was, is := e.tenures[from], e.tenures[to]
	is.leases += was.leases
	for i, t := range e.tenures {
		if t != was && t.heir != was {
			continue
		}
		t.leases, t.heir, t.turnedAt, t.revokeAt = 0, is, zeroTime, zeroTime
		if t.granted.n > e.options.batch {
			continue
		}
		for h := range t.granted.all {
			e.save(h)
			h.terms = to
			is.granted.add(h)
		}
		e.tenures[i] = &tenure{Terms: &Terms{ID: t.ID}}
	}
}

// isOver reports whether the leases are revoked by now.
func (t *tenure) isOver(now time.Time) bool { return !t.revokeAt.IsZero() && !now.Before(t.revokeAt) }

// whenToRevoke returns when the leases are revoked, their licence having ended at turnedAt; zero: never.
func (t *tenure) whenToRevoke() time.Time {
	switch t.OnExpiry {
	case Keep:
		return zeroTime
	case Revoke:
		return t.turnedAt.Add(RevokeDelay)
	default:
		if t.Terminates.IsZero() {
			return zeroTime
		}
		return later(t.turnedAt.Add(RevokeDelay), t.Terminates)
	}
}

// Granted is a lease that is held, and the terms that it was granted under.
type Granted struct {
	Lease *Lease
	Terms *Terms
}
