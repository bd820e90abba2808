package enforcer

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxVersions bounds, in bytes, what ParseVersions and Covers read.
const maxVersions = 512

// Versions is a set of product versions.
type Versions struct {
	any [][]comparator // alternatives; one holds if all of its comparators do
}

type comparator struct {
	op     string
	v      version
	prefix bool // a wildcard: v's numbers are a prefix
}

type version struct {
	numbers []uint64
	pre     []string
}

// ParseVersions reads a set of versions: comparators divided by spaces or commas, all of which must hold, and
// alternatives divided by ||, one of which must.
//
//	4  4.x  4.2.*      every version that begins so
//	=4.2.1  !=4.2.1    this one, all but this one
//	>=4.0 <5           a range; missing numbers are 0
//
// Order is that of Semantic Versioning 2.0.0 §11, with any count of numbers up to 8 and a leading v allowed. A
// pre-release lies below its release: 5.0.0-rc.1 is < 5.0.0, and so within <5.
func ParseVersions(s string) (Versions, error) {
	if len(s) > maxVersions {
		return Versions{}, fmt.Errorf("versions have %d bytes, at most %d may be", len(s), maxVersions)
	}
	var out Versions
	for alt := range strings.SplitSeq(s, "||") {
		var all []comparator
		rest := strings.TrimLeft(alt, " ,")
		for rest != "" {
			op := rest[:len(rest)-len(strings.TrimLeft(rest, "<>=!"))]
			rest = strings.TrimLeft(rest[len(op):], " ")
			end := strings.IndexAny(rest, " ,<>=!")
			if end < 0 {
				end = len(rest)
			}
			c, err := parseComparator(op, rest[:end])
			if err != nil {
				return Versions{}, err
			}
			all = append(all, c)
			rest = strings.TrimLeft(rest[end:], " ,")
		}
		if len(all) == 0 {
			return Versions{}, errors.New("versions are empty; write for example >=4.0 <5")
		}
		out.any = append(out.any, all)
	}
	return out, nil
}

func parseComparator(op, text string) (comparator, error) {
	c := comparator{op: op}
	switch op {
	case "", "=", "==", "!=", "<", "<=", ">", ">=":
	default:
		return c, fmt.Errorf("%q is no comparison; use = != < <= > >=", op)
	}
	wild := false
	for {
		cut, ok := strings.CutSuffix(text, ".*")
		if !ok {
			cut, ok = strings.CutSuffix(text, ".x")
		}
		if !ok {
			break
		}
		text, wild = cut, true
	}
	if text == "*" || text == "x" {
		if op != "" {
			return c, fmt.Errorf("%q needs a number", op)
		}
		return comparator{prefix: true}, nil
	}
	v, err := parseVersion(text)
	if err != nil {
		return c, err
	}
	c.v = v
	if wild && op != "" && op != "=" && op != "==" {
		return c, fmt.Errorf("%s%s: a wildcard takes no comparison but =", op, text)
	}
	if wild && len(v.pre) > 0 {
		return c, fmt.Errorf("%q: a wildcard stands for numbers and takes no pre-release", text+".*")
	}
	c.prefix = wild || op == "" && len(v.pre) == 0 && len(v.numbers) < 3
	return c, nil
}

func parseVersion(s string) (version, error) {
	var v version
	text := strings.TrimPrefix(strings.TrimPrefix(s, "v"), "V")
	text, _, _ = strings.Cut(text, "+") // build metadata has no order
	text, pre, hasPre := strings.Cut(text, "-")
	if hasPre {
		v.pre = strings.Split(pre, ".")
		for _, p := range v.pre {
			if p == "" || strings.Trim(p, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
				return v, fmt.Errorf(
					"%q is not a version: its pre-release is empty or has characters other than letters, digits and -",
					s)
			}
		}
	}
	for n := range strings.SplitSeq(text, ".") {
		x, err := strconv.ParseUint(n, 10, 64)
		if err != nil || len(v.numbers) == 8 {
			return v, fmt.Errorf("%q is not a version; write for example 4.2.1", s)
		}
		v.numbers = append(v.numbers, x)
	}
	return v, nil
}

// Covers reports whether a version is in the set. Its error says why the version cannot be read.
func (vs Versions) Covers(s string) (bool, error) {
	if len(s) > maxVersions {
		return false, fmt.Errorf("the version has %d bytes, at most %d may be", len(s), maxVersions)
	}
	v, err := parseVersion(strings.TrimSpace(s))
	if err != nil {
		return false, err
	}
	for _, all := range vs.any {
		ok := true
		for _, c := range all {
			ok = ok && c.holds(v)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

func (c comparator) holds(v version) bool {
	if c.prefix {
		for i, n := range c.v.numbers {
			if v.number(i) != n {
				return false
			}
		}
		return true
	}
	d := v.compare(c.v)
	switch c.op {
	case "!=":
		return d != 0
	case "<":
		return d < 0
	case "<=":
		return d <= 0
	case ">":
		return d > 0
	case ">=":
		return d >= 0
	default:
		return d == 0
	}
}

func (v version) number(i int) uint64 {
	if i < len(v.numbers) {
		return v.numbers[i]
	}
	return 0
}

// compare orders two versions as Semantic Versioning 2.0.0 §11 does.
func (v version) compare(w version) int {
	for i := range max(len(v.numbers), len(w.numbers)) {
		if d := cmp.Compare(v.number(i), w.number(i)); d != 0 {
			return d
		}
	}
	switch {
	case len(v.pre) == 0 && len(w.pre) == 0:
		return 0
	case len(v.pre) == 0:
		return 1
	case len(w.pre) == 0:
		return -1
	}
	for i := range min(len(v.pre), len(w.pre)) {
		a, aErr := strconv.ParseUint(v.pre[i], 10, 64)
		b, bErr := strconv.ParseUint(w.pre[i], 10, 64)
		d := 0
		switch {
		case aErr == nil && bErr == nil:
			d = cmp.Compare(a, b)
		case aErr == nil:
			d = -1
		case bErr == nil:
			d = 1
		default:
			d = cmp.Compare(v.pre[i], w.pre[i])
		}
		if d != 0 {
			return d
		}
	}
	return cmp.Compare(len(v.pre), len(w.pre))
}
