package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestVersionsCover(t *testing.T) {
	for _, row := range []struct {
		versions string
		in, out  string // versions within and without, divided by spaces
	}{
		{"*", "0 1 4.2.1 5.0.0-rc.1", ""},
		{"x", "0 4.2.1", ""},
		{"4", "4 4.0 4.2.1 4.0.0-rc.1 v4.9 4+build7", "3.9 5 40.1 0.4"},
		{"4.x", "4 4.2.1", "5 3"},
		{"4.x.x", "4 4.2.1", "5 3"},
		{"4.2.*", "4.2 4.2.0 4.2.9 4.2.1.7", "4.3 4.1.9 4 5"},
		{"4.2", "4.2 4.2.9", "4.3 4.20"},
		{"4.2.1", "4.2.1 v4.2.1 4.2.1.0 4.2.1+b7", "4.2.2 4.2.1-rc.1 4.2 4.2.1.1"},
		{"=4.2.1", "4.2.1", "4.2.2 4.2"},
		{"==4.2.1", "4.2.1", "4.2.2"},
		{"=4", "4 4.0.0", "4.0.1 4.1"},
		{"=4.x", "4 4.1", "5"},
		{"!=4.2.1", "4.2.2 4 4.2.1-rc.1", "4.2.1 4.2.1+b7"},
		{">=4.0 <5", "4 4.0.0 4.999 5.0.0-rc.1", "3.9 4.0.0-rc.1 5 5.0.1"},
		{">=4.0, <5", "4.2", "5"},
		{">= 4.0 < 5", "4.2", "5"},
		{">=4.0<5", "4.2", "3 5"},
		{"<=4.2", "4.2 4.2.0 4.1", "4.2.1"},
		{">4.2", "4.2.1 4.3", "4.2 4.2.0 4.2.0-rc.1"},
		{"3.x || >=5 <6", "3.1 5.0 5.9", "4 6 2"},
		{"v4.2.1", "4.2.1", "4.2.2"},
		{"V4.2.1", "4.2.1", "4.2.2"},
		{"1.2.3.4.5.6.7.8", "1.2.3.4.5.6.7.8", "1.2.3.4.5.6.7.9 1.2.3"},
		{">=1.0.0-alpha <1.0.0",
			"1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1",
			"1.0.0 1.0.0-1"},
		{"18446744073709551615", "18446744073709551615.1", "1"},
	} {
		vs, err := ParseVersions(row.versions)
		if err != nil {
			t.Errorf("%q: %v", row.versions, err)
			continue
		}
		check := func(list string, want bool) {
			for v := range strings.FieldsSeq(list) {
				if got, err := vs.Covers(v); err != nil || got != want {
					t.Errorf("%q covers %s: %t, %v; want %t", row.versions, v, got, err, want)
				}
			}
		}
		check(row.in, true)
		check(row.out, false)
	}
}

func TestVersionsRefused(t *testing.T) {
	for _, row := range []struct{ versions, want string }{
		{"", "versions are empty; write for example >=4.0 <5"},
		{"  , ", "versions are empty"},
		{"4 ||", "versions are empty"},
		{"|| 4", "versions are empty"},
		{"4 | 5", `"|" is not a version`},
		{"latest", `"latest" is not a version; write for example 4.2.1`},
		{">=", `"" is not a version`},
		{"=>4", `"=>" is no comparison; use = != < <= > >=`},
		{"~4", `"~4" is not a version`},
		{"^4.2", `"^4.2" is not a version`},
		{">=4.x", "a wildcard takes no comparison but ="},
		{"!=4.*", "a wildcard takes no comparison but ="},
		{"=*", `"=" needs a number`},
		{"4..1", "is not a version"},
		{".4", "is not a version"},
		{"-4", "is not a version"},
		{"4.-1", "is not a version"},
		{"4.1-", "its pre-release is empty"},
		{"4.1-a..b", "its pre-release is empty"},
		{"4.1-ä", "characters other"},
		{"4.1-rc.*", "a wildcard"},
		{"1.2.3.4.5.6.7.8.9", "is not a version"},
		{"18446744073709551616", "is not a version"},
		{"1.0\n", "is not a version"},
		{strings.Repeat("4 ", 257), "versions have 514 bytes, at most 512 may be"},
	} {
		if _, err := ParseVersions(row.versions); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %s", row.versions, err, row.want)
		}
	}
	all, err := ParseVersions("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"", "latest", "4.x", "4.1-", strings.Repeat("4", 513)} {
		if ok, err := all.Covers(v); ok || err == nil {
			t.Errorf("version %q: %t, %v; want an error", v, ok, err)
		}
	}
	if ok, err := all.Covers(" 4.2\n"); !ok || err != nil {
		t.Errorf("blanks around a version: %t, %v", ok, err)
	}
}

// TestVersionOrder is the example of Semantic Versioning 2.0.0 §11, with a few more.
func TestVersionOrder(t *testing.T) {
	order := strings.Fields(
		"0 0.0.1 0.9 1.0.0-1 1.0.0-2 1.0.0-10 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 " +
			"1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.0.1 1.0.1 1.2 1.10 2.0 10")
	for i, a := range order {
		for j, b := range order {
			v, err := parseVersion(a)
			if err != nil {
				t.Fatal(err)
			}
			w, err := parseVersion(b)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := v.compare(w), cmp.Compare(i, j); got != want {
				t.Errorf("%s against %s: %d, want %d", a, b, got, want)
			}
		}
	}
}

// TestVersionOrderIsTotal: compare is antisymmetric and transitive whatever the versions.
func TestVersionOrderIsTotal(t *testing.T) {
	gen := rapid.StringMatching(`[0-3](\.[0-2]){0,3}(-(0|1|2|10|99999999999999999999|a|b|-)(\.(0|1|a)){0,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		var vs []version
		for range 3 {
			s := gen.Draw(t, "version")
			v, err := parseVersion(s)
			if err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			vs = append(vs, v)
		}
		a, b, c := vs[0], vs[1], vs[2]
		if a.compare(b) != -b.compare(a) || a.compare(a) != 0 {
			t.Fatalf("%v and %v: %d and %d", a, b, a.compare(b), b.compare(a))
		}
		if a.compare(b) <= 0 && b.compare(c) <= 0 && a.compare(c) > 0 {
			t.Fatalf("%v <= %v <= %v, but not the first and the last", a, b, c)
		}
	})
}

// TestVersionsInVerdict: what several documents cover is each to be met, as the verdict lists them.
func TestVersionsInVerdict(t *testing.T) {
	f := factsWith(doc("a.lic", func(l *License) {
		l.Versions = ">=2"
	}), doc("b.lic", id("L2"), role(RoleAddOn), func(l *License) { l.Versions = "<3" }))
	if v := Judge(f, noon); !slices.Equal(v.Versions, []VersionCover{{"L1", ">=2"}, {"L2", "<3"}}) {
		t.Errorf("versions %v", v.Versions)
	}
	f.Version = "3.1"
	if v := Judge(f, noon); !v.Good() || !slices.Equal(v.Versions, []VersionCover{{"L1", ">=2"}}) ||
		v.Pools["streams"].Limit != 4 {
		t.Errorf("an add-on that does not cover this version: %s, %v, %v", v.Code, v.Versions, v.Pools)
	}
}

func FuzzParseVersions(f *testing.F) {
	for _, s := range []string{"*", "4.x", ">=4.0 <5", "3.x || >=5, !=5.1.2-rc.1+b7", "=>4", "4.1-", "|| x",
		"v1.2.3.4.5.6.7.8", "> = 4"} {
		f.Add(s, "4.2.1-rc.1")
	}
	f.Fuzz(func(t *testing.T, s, version string) {
		vs, err := ParseVersions(s)
		if err != nil {
			if err.Error() == "" || len(vs.any) != 0 {
				t.Fatalf("%q: error %q with %v", s, err, vs)
			}
			return
		}
		ok, err := vs.Covers(version)
		if ok && err != nil {
			t.Fatalf("%q covers %q and says %v", s, version, err)
		}
		// Blanks, and the same alternative twice, change nothing.
		if len(s) > maxVersions/2-4 || err != nil {
			return
		}
		twice, err := ParseVersions(" " + s + " || " + s)
		if err != nil {
			t.Fatalf("%q twice: %v", s, err)
		}
		if again, err := twice.Covers(" " + version); again != ok || err != nil {
			t.Fatalf("%q covers %q: %t; twice: %t, %v", s, version, ok, again, err)
		}
	})
}

// FuzzCovers holds ranges of plain versions against a check that knows nothing of comparators.
func FuzzCovers(f *testing.F) {
	f.Add(uint16(4), uint16(0), uint16(0), uint16(4), uint16(2), uint16(1), uint16(5), uint16(0), uint16(0))
	f.Add(uint16(1), uint16(9), uint16(0), uint16(1), uint16(10), uint16(0), uint16(1), uint16(10), uint16(0))
	f.Add(uint16(2), uint16(0), uint16(0), uint16(1), uint16(65535), uint16(0), uint16(0), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, a1, a2, a3, b1, b2, b3, c1, c2, c3 uint16) {
		number := func(x, y, z uint16) uint64 { return uint64(x)<<32 | uint64(y)<<16 | uint64(z) }
		text := func(x, y, z uint16) string { return fmt.Sprintf("%d.%d.%d", x, y, z) }
		low, v, high := number(a1, a2, a3), number(b1, b2, b3), number(c1, c2, c3)
		for _, row := range []struct {
			versions string
			want     bool
		}{
			{">=" + text(a1, a2, a3) + " <" + text(c1, c2, c3), v >= low && v < high},
			{">" + text(a1, a2, a3) + ",<=" + text(c1, c2, c3), v > low && v <= high},
			{"<" + text(a1, a2, a3) + " || >" + text(c1, c2, c3), v < low || v > high},
			{text(a1, a2, a3), v == low},
			{"!=" + text(a1, a2, a3), v != low},
			{strconv.Itoa(int(a1)), a1 == b1},
			{fmt.Sprintf("%d.%d.x", a1, a2), a1 == b1 && a2 == b2},
		} {
			vs, err := ParseVersions(row.versions)
			if err != nil {
				t.Fatalf("%s: %v", row.versions, err)
			}
			if got, err := vs.Covers(text(b1, b2, b3)); err != nil || got != row.want {
				t.Errorf("%s covers %s: %t, %v; want %t", row.versions, text(b1, b2, b3), got, err, row.want)
			}
			// Its pre-release lies just below it.
			if got, err := vs.Covers(text(b1, b2, b3) + "-rc.1"); err != nil ||
				strings.HasPrefix(row.versions, ">=") && v > low && v <= high && !got {
				t.Errorf("%s covers %s-rc.1: %t, %v", row.versions, text(b1, b2, b3), got, err)
			}
		}
	})
}
