package metrics

import (
	"regexp"
	"slices"
)

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

// Names returns the name of every metric of Usher's own, sorted.
func Names() []string {
	out := slices.Concat(counted, fleetCounted)
	for _, d := range slices.Concat(all, fleetDescs) {
		out = append(out, fqName.FindStringSubmatch(d.String())[1])
	}
	for _, f := range poolFamilies {
		out = append(out, "usher_"+f.name)
	}
	slices.Sort(out)
	return out
}
