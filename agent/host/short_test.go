package host

import (
	"strings"
	"testing"
)

func sample(seed byte) string {
	var code [shortData]byte
	for i := range code {
		code[i] = (seed*7 + byte(i)*11) & 31
	}
	return format(code)
}

func TestShortFormat(t *testing.T) {
	s := Report{Components: []Component{{Name: "mac", Values: []string{"x"}}}}.Short()
	if len(s) != 19 || strings.Count(s, "-") != 3 {
		t.Errorf("got %q", s)
	}
	if other := (Report{Components: []Component{{Name: "mac", Values: []string{"y"}}}}).Short(); other == s {
		t.Error("two hosts have one code")
	}
	spoken := strings.NewReplacer("0", "o", "1", "l", "-", " ").Replace(strings.ToLower(s))
	if got, err := ParseShort(spoken); err != nil || got != s {
		t.Errorf("%q is read as %q, %v", spoken, got, err)
	}
}

// A short code shows every wrong character, and every two neighbours that changed places.
func TestShortMistakes(t *testing.T) {
	for seed := range byte(8) {
		s := strings.ReplaceAll(sample(seed), "-", "")
		for i := range s {
			for _, c := range alphabet {
				if byte(c) == s[i] {
					continue
				}
				if bad := s[:i] + string(c) + s[i+1:]; parses(bad) {
					t.Errorf("%s is taken for %s", bad, s)
				}
			}
			if i > 0 && s[i] != s[i-1] {
				if bad := s[:i-1] + string(s[i]) + string(s[i-1]) + s[i+1:]; parses(bad) {
					t.Errorf("%s is taken for %s", bad, s)
				}
			}
			if parses(s[:i] + s[i+1:]) {
				t.Errorf("%s without its %dth character is taken", s, i+1)
			}
		}
		if parses(s+"0") || parses(s[:5]+"U"+s[6:]) {
			t.Error("too long, or with a U, is taken")
		}
	}
}

func parses(s string) bool { _, err := ParseShort(s); return err == nil }

func FuzzParseShort(f *testing.F) {
	f.Add(sample(1))
	f.Fuzz(func(t *testing.T, s string) {
		out, err := ParseShort(s)
		if err != nil {
			return
		}
		if again, err := ParseShort(out); err != nil || again != out {
			t.Fatalf("%q is read as %q, and that as %q, %v", s, out, again, err)
		}
	})
}
