package ucloud

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/usher-agent/usher/plugin"
)

// boundTo returns the jobs that hold a slot of a licence, each once, the first bound first. They are those of all
// leases that bear the label job, whoever granted them: this dialect, or the local API.
func (x *request) boundTo(r *record) []string {
	if x.live == nil {
		x.live = x.liveJobs()
	}
	return x.live[r.ID]
}

// liveJobs returns the jobs that hold slots, by licence. A lease belongs to the licence that its label license names,
// if that is of the lease's pool, and else to the first licence of the pool's product. So each is shown once.
func (x *request) liveJobs() map[int64][]string {
	bearers := slices.DeleteFunc(x.Bearers(), func(b plugin.Bearer) bool { return !jobName(b.Labels[labelJob]) })
	slices.SortStableFunc(bearers, func(a, b plugin.Bearer) int {
		i, j := a.Labels[labelJob], b.Labels[labelJob]
		return cmp.Or(a.AcquiredAt.Compare(b.AcquiredAt), cmp.Compare(len(i), len(j)), cmp.Compare(i, j))
	})
	type slot struct {
		license int64
		job     string
	}
	out, seen, named := map[int64][]string{}, map[slot]bool{}, map[string]*record{}
	var first map[string]int64 // licences by pool; nil: not read yet
	for i := range bearers {
		b := &bearers[i]
		id := b.Labels[labelLicense]
		if _, ok := named[id]; !ok {
			named[id] = x.find(id)
		}
		for _, it := range b.Items {
			of := named[id]
			if of == nil || x.resolve(of.Product).pool != it.Pool {
				if first == nil {
					first = x.firstOf()
				}
				of = &record{ID: first[it.Pool]}
			}
			s := slot{of.ID, b.Labels[labelJob]}
			if s.license != 0 && !seen[s] {
				seen[s] = true
				out[s.license] = append(out[s.license], s.job)
			}
		}
	}
	return out
}

// firstOf returns the first licence of each pool's product.
func (x *request) firstOf() map[string]int64 {
	first := map[string]int64{}
	for _, r := range x.all() {
		if pool := x.resolve(r.Product).pool; first[pool] == 0 {
			first[pool] = r.ID
		}
	}
	return first
}

// jobName reports whether a job's id can be one: a decimal number, as the platform has them.
func jobName(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n > 0 && strconv.FormatInt(n, 10) == s
}
