package enforcer

import (
	"slices"
	"time"
)

// Change is one that the licences in force make by themselves: one begins, another ends.
type Change struct {
	At     time.Time
	Begins []Successor // in force from then on
	Ends   []Successor // in force until then
	Losses []Loss      // what is granted no more, or less of
}

// Successor names a licence in a [Change].
type Successor struct {
	License  string // its id
	Document string
	Expires  time.Time // zero: never
}

// stage is what the licences permit from an instant on, as long as every upstream answers in time.
type stage struct {
	at      time.Time
	verdict *Verdict
	inForce []*ruling
}

// has reports whether a document is in force.
func (s *stage) has(document string) bool {
	return slices.ContainsFunc(s.inForce, func(r *ruling) bool { return r.Name == document })
}

// outlook is the stages of one state of the duties, from an instant to the first stage that is not good, which is not
// among them.
type outlook struct {
	from, end time.Time // end: zero for never
	stages    []stage
}

// kept returns the judge as it is while every upstream answers in time. A duty that is missed already stays missed. A
// trial that is still to begin begins with its licence.
func (j *judge) kept(now time.Time) (k *judge, state string) {
	k = &judge{Facts: j.Facts, docs: slices.Clone(j.docs)}
	said := make([]byte, 0, 4*len(k.docs))
	for i := range k.docs {
		c := &k.docs[i]
		if c.license == nil {
			continue
		}
		waits, trial := now.Before(c.begins()), c.license.Trial > 0 && c.seen.IsZero()
		c.met = map[Code]bool{}
		said = append(said, bit(waits))
		for _, x := range j.docs[i].lapses() {
			if x.code != Expired {
				c.met[x.code] = waits || now.Before(x.ends)
				said = append(said, bit(c.met[x.code]))
			}
		}
		if c.owed = slices.DeleteFunc(slices.Clone(j.docs[i].lapses()), func(x lapse) bool {
			return c.met[x.code]
		}); waits && trial {
			c.seen, c.owed = c.begins(), nil
		}
	}
	return k, string(said)
}

func bit(b bool) byte {
	if b {
		return '1'
	}
	return '0'
}

// outlook returns what is to come, as the documents are at hand at the instant now.
func (j *judge) outlook(now time.Time) outlook {
	k, state := j.kept(now)
	if o, ok := j.outlooks[state]; ok && !now.Before(o.from) && (o.end.IsZero() || now.Before(o.end)) {
		o.stages = o.stages[max(0, o.indexAt(now)):]
		return o
	}
	o := outlook{from: now}
	for _, t := range append([]time.Time{now}, k.instants(now)...) {
		v, _, inForce := k.grants(t)
		if !v.Good() {
			o.end = t
			break
		}
		if n := len(o.stages); n == 0 || differ(o.stages[n-1].verdict, v) ||
			!slices.EqualFunc(o.stages[n-1].inForce, inForce, sameDocument) {
			o.stages = append(o.stages, stage{t, v, inForce})
		}
	}
	if j.outlooks == nil {
		j.outlooks = map[string]outlook{}
	}
	j.outlooks[state] = o
	return o
}

// indexAt returns which stage holds at an instant.
func (o outlook) indexAt(now time.Time) int {
	i, _ := slices.BinarySearchFunc(o.stages, now, func(s stage, t time.Time) int {
		if s.at.After(t) {
			return 1
		}
		return -1
	})
	return i - 1
}

func sameDocument(a, b *ruling) bool { return a.Name == b.Name }

// coverage says in a good verdict when it stops being good, and what changes before.
func (j *judge) coverage(v *Verdict, now time.Time) {
	o := j.outlook(now)
	v.CoveredUntil = o.end
	if len(o.stages) == 0 { // no worse than without the upstreams' answers
		v.CoveredUntil = v.HoldsUntil
		return
	}
	v.Coming = o.changes()
}

// changes returns the changes from each stage to the next in which other documents are in force.
func (o outlook) changes() (out []Change) {
	for i := 1; i < len(o.stages); i++ {
		was, is := o.stages[i-1], o.stages[i]
		if slices.EqualFunc(was.inForce, is.inForce, sameDocument) {
			continue
		}
		c := Change{At: is.at, Losses: losses(was.verdict, is.verdict)}
		for _, r := range is.inForce {
			if !was.has(r.Name) {
				c.Begins = append(c.Begins, r.successor())
			}
		}
		for _, r := range was.inForce {
			if !is.has(r.Name) {
				c.Ends = append(c.Ends, r.successor())
			}
		}
		out = append(out, c)
	}
	return out
}

func (r *ruling) successor() Successor { return Successor{r.license.ID, r.Name, r.expires()} }

// follows reports whether something comes in the place of a licence, in force at the stage from, when it ends, and
// returns that with its stage. An end that costs nothing has no successor. Less than a renewal is a free tier after a
// paid licence, a test licence after a production one, and an older document that grants less.
func (o outlook) follows(r *ruling, from int, now time.Time) (by *ruling, at int, renewed bool) {
	for i := from + 1; i < len(o.stages); i++ {
		was, is := o.stages[i-1], o.stages[i]
		if is.has(r.Name) {
			continue
		}
		less := len(losses(was.verdict, is.verdict)) > 0
		if base := is.inForce[0]; r.role() != RoleAddOn {
			return base, i, base.renews(r) && (!less || base.waits(now))
		}
		for _, a := range is.inForce {
			if a.waits(now) && !was.has(a.Name) && a.gives(r.license) {
				return a, i, true
			}
		}
		return nil, i, !less
	}
	return nil, 0, false
}

// renews reports whether a base is no lesser kind of licence than another.
func (r *ruling) renews(o *ruling) bool {
	return (r.role() != RoleFree || o.role() == RoleFree) && r.license.MayActOn(o.license)
}

// waits reports whether a document waits for its start.
func (r *ruling) waits(now time.Time) bool { return now.Before(r.begins()) }

// shrinking returns the changes in which a renewal that waits for its start grants less than what it renews.
func (o outlook) shrinking(now time.Time) (out []Change) {
	for _, c := range o.changes() {
		i := o.indexAt(c.At)
		was, is := o.stages[i-1], o.stages[i]
		renewed := is.inForce[0].renews(was.inForce[0]) && slices.ContainsFunc(is.inForce, func(r *ruling) bool {
			return r.waits(now) && !was.has(r.Name)
		})
		if renewed && len(c.Losses) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// gives reports whether a licence grants any of what another does.
func (r *ruling) gives(o *License) bool {
	return sharesKey(r.license.Pools, o.Pools) || sharesKey(r.license.Meters, o.Meters) ||
		sharesKey(r.license.Features, o.Features)
}

func sharesKey[V any](a, b map[string]V) bool {
	for k := range a {
		if _, ok := b[k]; ok {
			return true
		}
	}
	return false
}
