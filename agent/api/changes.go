package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
)

// Changes says in sentences what a verdict changes: "streams 8 → 12".
func Changes(before, after *enforcer.Verdict) []string {
	if before == nil {
		before = &enforcer.Verdict{State: enforcer.StateMissing, Code: enforcer.NotFound}
	}
	out := []string{}
	if before.Code != after.Code {
		out = append(out, fmt.Sprintf("verdict %s → %s", before.Code, after.Code))
	}
	limits := func(v *enforcer.Verdict) map[string]string {
		m := map[string]string{}
		for n, g := range v.Pools {
			m[n] = g.Limit.String()
		}
		for n, g := range v.Meters {
			m[n] = g.Limit.String()
		}
		for n, f := range v.Features {
			switch f.Kind {
			case enforcer.KindBool:
				m["feature "+n] = map[bool]string{true: "on", false: "off"}[f.Bool]
			case enforcer.KindNumber:
				m["feature "+n] = strings.TrimSpace(fmt.Sprint(f.Number, " ", f.Unit))
			default:
				m["feature "+n] = f.Text
			}
		}
		return m
	}
	was, is := limits(before), limits(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	for _, n := range slices.Sorted(maps.Keys(all)) {
		w, had := was[n]
		i, has := is[n]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("%s %s (new)", n, i))
		case !has:
			out = append(out, fmt.Sprintf("%s %s → none", n, w))
		case w != i:
			out = append(out, fmt.Sprintf("%s %s → %s", n, w, i))
		}
	}
	if !before.TerminatesAt.Equal(after.TerminatesAt) && after.State != enforcer.StateMissing {
		until := "with no end"
		if !after.TerminatesAt.IsZero() {
			until = "until " + after.TerminatesAt.UTC().Format("2006-01-02")
		}
		out = append(out, until)
	}
	return out
}
