package host

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v3/cpu"
	"golang.org/x/sys/unix"
)

// counter counts cores again and again.
type counter struct {
	online   string // the processors that were online when physical was counted
	physical int    // 0: it is not known
}

// count counts the cores: those of the machine, the threads that are online, and those that this process may use.
func (c *counter) count(ctx context.Context, p places) (physical, logical int, effective float64) {
	online, err := read(filepath.Join(p.sys, "devices/system/cpu/online"))
	if err == nil {
		if n, err := countList(online); err == nil {
			logical = n
		}
	}
	if logical == 0 {
		logical, _ = cpu.CountsWithContext(p.context(ctx), true)
	}
	// Each processor has files that say which core it is of. That is no other one while the processor is online.
	if physical = c.physical; physical == 0 || logical == 0 || online != c.online {
		physical = topology(p)
		c.online, c.physical = online, physical
	}
	if physical == 0 {
		physical, _ = cpu.CountsWithContext(p.context(ctx), false)
	}
	if physical == 0 {
		physical = logical
	}
	effective = float64(logical)
	lower := func(v float64) {
		if v > 0 && (effective == 0 || v < effective) {
			effective = v
		}
	}
	if p.real {
		var set unix.CPUSet
		if unix.SchedGetaffinity(0, &set) == nil {
			lower(float64(set.Count()))
		}
	}
	// The limits of this process are in its own files. Where HOST_SYS is mounted, a path that is relative to the
	// container's control group would lead to the host's top group, which has no limits. Both are read, and the
	// tightest counts.
	bases := slices.Compact([]string{filepath.Join(p.ownSys, "fs/cgroup"), filepath.Join(p.sys, "fs/cgroup")})
	groups, _ := read(filepath.Join(p.ownProc, "self/cgroup"))
	for line := range strings.Lines(groups) {
		// cgroups(7): id:controllers:path; version 2 has no controllers.
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for _, base := range bases {
			limits(base, f[1], f[2], lower)
		}
	}
	return physical, logical, effective
}

// limits reports each limit that a control group of a hierarchy sets, and those of the groups above it.
func limits(base, controllers, path string, lower func(float64)) {
	if controllers == "" {
		upward(base, path, func(dir string) {
			lower(quotaV2(dir))
			lower(listIn(filepath.Join(dir, "cpuset.cpus.effective")))
		})
		return
	}
	for controller := range strings.SplitSeq(controllers, ",") {
		switch controller {
		case "cpu":
			for _, mount := range []string{controllers, "cpu"} {
				upward(filepath.Join(base, mount), path, func(dir string) { lower(quotaV1(dir)) })
			}
		case "cpuset":
			upward(filepath.Join(base, "cpuset"), path, func(dir string) {
				lower(listIn(filepath.Join(dir, "cpuset.effective_cpus")))
				lower(listIn(filepath.Join(dir, "cpuset.cpus")))
			})
		}
	}
}

// topology counts distinct cores of distinct packages among the processors that are online; 0 when the kernel does not
// say.
func topology(p places) int {
	seen := map[string]bool{}
	dirs, _ := filepath.Glob(filepath.Join(p.sys, "devices/system/cpu/cpu[0-9]*/topology"))
	for _, d := range dirs {
		if on, err := read(filepath.Join(filepath.Dir(d), "online")); err == nil && on == "0" {
			continue
		}
		pkg, err1 := read(filepath.Join(d, "physical_package_id"))
		core, err2 := read(filepath.Join(d, "core_id"))
		if err1 != nil || err2 != nil {
			return 0
		}
		die, _ := read(filepath.Join(d, "die_id"))
		seen[pkg+"/"+die+"/"+core] = true
	}
	return len(seen)
}

// upward visits a control group and all above it: the tightest counts. Within a container the path may name a group
// that is not visible from there; then the mount's top is the group itself.
func upward(base, path string, visit func(dir string)) {
	for path = filepath.Clean("/" + path); ; path = filepath.Dir(path) {
		visit(filepath.Join(base, path))
		if path == "/" {
			return
		}
	}
}

// quotaV2 reads cpu.max: "max 100000" or "50000 100000", in microseconds; 0 is no limit.
func quotaV2(dir string) float64 {
	text, err := read(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return 0
	}
	f := strings.Fields(text)
	if len(f) != 2 {
		return 0
	}
	return ratio(f[0], f[1])
}

func quotaV1(dir string) float64 {
	quota, err1 := read(filepath.Join(dir, "cpu.cfs_quota_us"))
	period, err2 := read(filepath.Join(dir, "cpu.cfs_period_us"))
	if err1 != nil || err2 != nil {
		return 0
	}
	return ratio(quota, period)
}

func ratio(quota, period string) float64 {
	q, err1 := strconv.ParseFloat(quota, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if err1 != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0
	}
	return q / p
}

func listIn(path string) float64 {
	text, err := read(path)
	if err != nil {
		return 0
	}
	n, _ := countList(text)
	return float64(n)
}

// maxCPU is the highest number of a processor that counts.
const maxCPU = 1 << 20

// countList counts the processors in a list as the kernel writes it: 0-3,8 (cpuset(7)).
func countList(s string) (int, error) {
	if strings.TrimSpace(s) == "" {
		return 0, nil
	}
	n, last := 0, -1
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		first, end, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(end)
		}
		if err != nil || a <= last || b < a || b > maxCPU {
			return 0, fmt.Errorf("cpu list %q: bad part %q", s, part)
		}
		n += b - a + 1
		last = b
	}
	return n, nil
}
