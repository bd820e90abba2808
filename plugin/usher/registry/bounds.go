package registry

import (
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Bounds of what is kept of a host, in bytes. Longer texts are cut: a host that says much is no worse than another.
const (
	maxChain      = 128
	maxVersion    = 128
	maxReason     = 512
	maxComponents = 16 << 10 // names and values of a fingerprint together
	maxComponent  = 128      // one name, or one value
)

// clip shortens a text to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

// boundedComponents returns as much of a fingerprint as is kept: whole components, in the order of their names.
func boundedComponents(all map[string][]string) map[string][]string {
	names := make([]string, 0, min(len(all), 1024))
	for name, values := range all {
		if len(name) <= maxComponent && !slices.ContainsFunc(values, func(v string) bool {
			return len(v) > maxComponent
		}) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out, left := map[string][]string{}, maxComponents
	for _, name := range names {
		n := len(name)
		for _, v := range all[name] {
			n += len(v) + 1
		}
		if left -= n; left < 0 {
			break
		}
		out[name] = all[name]
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// usageOf returns the usage of the pools and meters that the licence has, each once.
func usageOf(all []online.Usage, terms *enforcer.License) (out []online.Usage) {
	seen := map[string]bool{}
	for _, u := range all {
		_, pool := terms.Pools[u.Pool]
		_, meter := terms.Meters[u.Pool]
		if (pool || meter) && !seen[u.Pool] {
			seen[u.Pool] = true
			out = append(out, u)
		}
	}
	return out
}
