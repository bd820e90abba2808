package enforcer

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The rules that the index finds for a holder are those that concern it, whatever patterns rules state.
func TestRuleIndex(t *testing.T) {
	texts := rapid.SampledFrom([]string{"ann", "bob", "a*", "b?b", "", "/usr/bin/cad", "100"})
	list := func(t *rapid.T, name string) (out []Glob) {
		for range rapid.IntRange(0, 2).Draw(t, name) {
			out = append(out, Glob{texts.Draw(t, "text"), rapid.Bool().Draw(t, "fold")})
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		var rules []Policy
		for i := range rapid.IntRange(1, 8).Draw(t, "rules") {
			rules = append(rules, Policy{Name: fmt.Sprint("r", i), Match: Match{User: list(t, "user"),
				Group: list(t, "group"), Exe: list(t, "exe")}, Not: Match{User: list(t, "not")}, Priority: 1})
		}
		pr := NewPolicies(rules).rulesOf("streams")
		h := &Holder{Caller: Caller{Credential: rapid.SampledFrom([]string{"", "ann"}).Draw(t, "credential"),
			Exe: texts.Draw(t, "exe"), Profile: ProfileOf(Profile{Login: texts.Draw(t, "login"),
				Groups: texts.Draw(t, "group") + "\n" + texts.Draw(t, "group")})}}
		var want, got []*Policy
		for _, p := range pr.rules {
			if p.Concerns(h) {
				want = append(want, p)
			}
		}
		if s := pr.take(h); s != nil {
			got = s.rules
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: the index finds %v, and %v concern it", h, got, want)
		}
	})
}

// BenchmarkFirstStance is what a caller costs that comes first, under 1,000 rules that name one user each.
func BenchmarkFirstStance(b *testing.B) {
	var rules []Policy
	for i := range 1000 {
		user := []Glob{{Text: fmt.Sprint("user", i)}}
		rules = append(rules, Policy{Name: fmt.Sprint("r", i), Match: Match{User: user}, Max: 5})
	}
	pr := NewPolicies(rules).rulesOf("streams")
	h := &Holder{Caller: Caller{Profile: ProfileOf(Profile{Login: "user500"})}}
	b.Run("index", func(b *testing.B) {
		for b.Loop() {
			pr.take(h)
		}
	})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			for _, p := range pr.rules {
				p.Concerns(h)
			}
		}
	})
}
