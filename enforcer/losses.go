package enforcer

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// LossKind says what a [Loss] is of.
type LossKind string

// The kinds.
const (
	LossPool    LossKind = "pool"
	LossMeter   LossKind = "meter"
	LossFeature LossKind = "feature"
)

// Loss is a term that a change makes smaller, or ends. A feature whose text changes is one too, for nobody here knows
// which of two texts is more.
type Loss struct {
	Kind    LossKind
	Name    string
	Was, Is string // for people; Is is empty where nothing of it is left
}

// String returns the loss in words: "pool streams 8 → 4".
func (l Loss) String() string {
	if l.Is == "" {
		return string(l.Kind) + " " + l.Name + " is gone (now " + l.Was + ")"
	}
	return string(l.Kind) + " " + l.Name + " " + l.Was + " → " + l.Is
}

// losses returns what one verdict grants more of than the next, pools before meters before features.
func losses(was, is *Verdict) (out []Loss) {
	for _, name := range slices.Sorted(maps.Keys(was.Pools)) {
		a := was.Pools[name]
		if b, left := is.Pools[name]; !left {
			out = append(out, Loss{LossPool, name, a.most().String(), ""})
		} else if a.Scope != ScopeSite && b.Scope == ScopeSite && b.most() != Unlimited {
			out = append(out, Loss{LossPool, name, a.most().String() + " on this host",
				b.most().String() + " of the whole site"})
		} else if b.most().less(a.most()) {
			out = append(out, Loss{LossPool, name, a.most().String(), b.most().String()})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was.Meters)) {
		a := was.Meters[name]
		if b, left := is.Meters[name]; !left {
			out = append(out, Loss{LossMeter, name, a.words(), ""})
		} else if b.most().less(a.most()) || a.Resets != ResetsNever && b.Resets == ResetsNever {
			out = append(out, Loss{LossMeter, name, a.words(), b.words()})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was.Features)) {
		a := was.Features[name]
		b, left := is.Features[name]
		switch {
		case !left && a.Enabled():
			out = append(out, Loss{LossFeature, name, a.words(), ""})
		case left && b.less(a):
			out = append(out, Loss{LossFeature, name, a.words(), b.words()})
		}
	}
	return out
}

// most returns what the licence grants of a pool, overage included.
func (g PoolGrant) most() Limit { return g.Limit.Plus(g.Overage) }

// most returns what the licence grants of a meter, overage included.
func (g MeterGrant) most() Limit { return g.Limit.Plus(g.Overage) }

// less reports whether a limit is smaller than another.
func (l Limit) less(m Limit) bool { return l != m && l.Min(m) == l }

// words returns what a meter grants, for people.
func (g MeterGrant) words() string {
	if g.Resets == ResetsNever {
		return g.most().String()
	}
	return g.most().String() + " a " + string(g.Resets)
}

// less reports whether a feature's value is less than another, or may be.
func (v Value) less(was Value) bool {
	switch {
	case v.Kind != was.Kind:
		return v != was
	case v.Kind == KindText:
		return v.Text != was.Text
	case v.Kind == KindNumber:
		return v.Number < was.Number || v.Unit != was.Unit
	default:
		return was.Bool && !v.Bool
	}
}

// words returns a feature's value for people.
func (v Value) words() string {
	switch v.Kind {
	case KindBool:
		return map[bool]string{true: "on", false: "off"}[v.Bool]
	case KindNumber:
		return strings.TrimSpace(strconv.FormatFloat(v.Number, 'f', -1, 64) + " " + v.Unit)
	default:
		return cmp.Or(v.Text, "none")
	}
}
