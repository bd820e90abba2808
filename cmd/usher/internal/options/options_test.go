package options

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
)

var update = flag.Bool("update", false, "write what the options files of testdata become")

// failing is a test, or a try of a property.
type failing interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// carried returns what an options file becomes.
func carried(t failing, name, text string, from System, s Settings) *Import {
	t.Helper()
	f, err := Parse(name, []byte(text), from)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Carry(f, s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// loaded reads what was written as a configuration.
func loaded(t failing, yaml string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Source{File: "usher.yaml", Data: []byte(yaml)})
	if err != nil {
		t.Fatalf("%v\n%s", err, yaml)
	}
	return c
}

// Whole options files, with what they become. Each result is read back as the rules that it was written of.
func TestFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.opt")
	if err != nil || len(files) < 3 {
		t.Fatal(err, files)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m := carried(t, filepath.Base(path), string(text), "", Settings{})
		got := m.Write("usher")
		holdsAll(t, m, got)
		golden := strings.TrimSuffix(path, ".opt") + ".yaml"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || got != string(want) {
			t.Errorf("%s becomes this, and %s has another text (%v):\n%s", path, golden, err, got)
		}
	}
}

// holdsAll holds what was written to what was read: every line of the file is there once, in a comment, every option is
// settled, and the configuration has the rules.
func holdsAll(t testing.TB, m *Import, yaml string) {
	t.Helper()
	c := loaded(t, yaml)
	if !reflect.DeepEqual(c.Policies, m.Rules) && len(c.Policies)+len(m.Rules) > 0 {
		t.Errorf("the rules are %+v, and read back %+v\n%s", m.Rules, c.Policies, yaml)
	}
	groups := func(list []config.Group) (out []string) {
		for _, g := range list {
			out = append(out, strconv.Quote(g.Name)+strconv.FormatBool(g.IgnoreCase)+strings.Join(g.Members, "\x00"))
		}
		return slices.Sorted(slices.Values(out))
	}
	if got, want := groups(c.Groups), groups(m.Groups); !slices.Equal(got, want) {
		t.Errorf("the groups are %q, and read back %q\n%s", want, got, yaml)
	}
	comments := map[string]int{}
	for line := range strings.Lines(yaml) {
		comments[strings.TrimSpace(line)]++
	}
	w := &writer{file: printable(filepath.Base(m.File.Name))}
	for i := range m.File.lines {
		w.source([]*line{&m.File.lines[i]})
	}
	for line := range strings.Lines(w.String()) {
		if line = strings.TrimSpace(line); line != "" && comments[line] != 1 {
			t.Errorf("the line %q is there %d times", line, comments[line])
		}
	}
	for _, it := range m.items {
		if !it.settled() {
			t.Errorf("line %d is not settled: %s", it.option.first, it.option.text())
		}
	}
}

// A line that cannot be right is named with its cause and its mend, and then nothing is made of the file.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from System
		text string
		want []string
	}{
		{FlexNet, "FOO f1 USER a",
			[]string{"acme.opt:1: FlexNet has no option FOO; put # in front of the line if it is a note"}},
		{FlexNet, "\n\nINCLDUE f1 USER a", []string{"acme.opt:3:", "did you mean INCLUDE?"}},
		{FlexNet, "PRIORITY 1 f1 USER a", []string{"acme.opt:1:", "it is one of RLM: import the file with --from rlm"}},
		{RLM, "LINGER f1 60", []string{"acme.opt:1:", "it is one of FlexNet: import the file with --from flexnet"}},
		{FlexNet, "VENDOR acme /opt/acme acme.opt",
			[]string{"acme.opt:1:", "this is a licence file; name the options file"}},
		{FlexNet, "MAX f1 5 USER a", []string{`"f1" is no whole number`, "MAX NUMBER FEATURE TYPE NAME"}},
		{FlexNet, "MAX -1 f1 USER a", []string{`"-1" is no whole number from 0`}},
		{FlexNet, "MAX 99999999999999999999 f1 USER a", []string{"is no whole number from 0"}},
		{FlexNet, "MAX 5 f1", []string{"MAX lacks a type; add it"}},
		{FlexNet, "MAX 5 f1 USER", []string{"MAX lacks the name of a USER"}},
		{FlexNet, "MAX 5 f1 PERSON a",
			[]string{`"PERSON" is no type of caller; write one of USER, HOST, DISPLAY, INTERNET`}},
		{FlexNet, "MAX 5 f1 VERSION=2.0 USER a", []string{`in quotes: "FEATURE:VERSION=2.0"`}},
		{FlexNet, "MAX 5 f1:COLOUR=red USER a", []string{"names no feature by a keyword that there is", "VERSION"}},
		{FlexNet, "INCLUDE f1 USER a b", []string{`"b" and what follows is too much; a line takes one name`}},
		{FlexNet, "INCLUDE f1 USER a # Ann",
			[]string{"a comment (#) behind an option; put the comment on a line of its own"}},
		{FlexNet, "INCLUDE f1 GROUP nobody",
			[]string{`no line defines the GROUP "nobody"`, "add GROUP nobody with its members"}},
		{FlexNet, "HOST_GROUP g a\nINCLUDE f1 GROUP g", []string{`acme.opt:2: no line defines the GROUP "g"`}},
		{FlexNet, "GROUP Stars a\nINCLUDE f1 GROUP stars", []string{`acme.opt:2: no line defines the GROUP "stars"`}},
		{FlexNet, `INCLUDE "f1 USER a`, []string{`a quote (") is not closed; close it`}},
		{FlexNet, "INCLUDE “f1” USER a", []string{"typographic quotes"}},
		{FlexNet, `INCLUDE "" USER a`, []string{"a feature is empty"}},
		{FlexNet, "GROUPCASEINSENSITIVE MAYBE", []string{`"MAYBE" is neither ON nor OFF`}},
		{FlexNet, "INCLUDE f1 USER a\x00b", []string{"a character that is no text"}},
		{FlexNet, "TIMEOUT 600 f1", []string{`"f1" is no whole number`, "TIMEOUT FEATURE NUMBER"}},
		{FlexNet, "GROUP", []string{"GROUP lacks the name of the group"}},
		{RLM, `INCLUDE "f1" user a`, []string{"RLM allows no quotes in an options file"}},
		{RLM, "INCLUDE f1 display a", []string{`"display" is no type of caller`}},
		{RLM, "RESERVE 1 f1 noproject", []string{`"noproject" is no type of caller`}},
		{"", "LINGER f1 60\nPRIORITY 1 f1 USER a",
			[]string{"acme.opt:2: line 1 is an option of FlexNet (LINGER) and line 2 one of RLM", "--from"}},
		{FlexNet, "\x7fELF\x01\x02", []string{"it is a program, not an options file"}},
		{FlexNet, "MAX\nMAX 1\nFOO", []string{"acme.opt:1:", "acme.opt:2:", "acme.opt:3:"}},
		{FlexNet, strings.Repeat("FOO\n", 100),
			[]string{"acme.opt:50:", "there are more than 50 faults; mend these first"}},
		{FlexNet, strings.Repeat("MAX 1 f USER a\n", maxOptions+1),
			[]string{"it has 10001 options, and may have 10000"}},
		{FlexNet, strings.Repeat("#", MaxFile+1), []string{"it is larger than 1048576 bytes"}},
	} {
		_, err := Parse("acme.opt", []byte(c.text), c.from)
		if err == nil {
			t.Errorf("%q is read", c.text[:min(len(c.text), 80)])
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: the fault lacks %q:\n%v", c.text[:min(len(c.text), 80)], want, err)
			}
		}
		for _, sentence := range strings.Split(err.Error(), "\n") {
			if !strings.HasPrefix(sentence, "acme.opt:") || !strings.Contains(sentence, "; ") {
				t.Errorf("%q: this has no place or no mend: %s", c.text[:min(len(c.text), 80)], sentence)
			}
		}
	}
	var fault *Fault
	if _, err := Parse("acme.opt", []byte("FOO"), FlexNet); !errors.As(err, &fault) || fault.Line != 1 {
		t.Errorf("the fault is no Fault: %v", err)
	}
}

// What editors and other systems leave in a file does not matter: line ends, a byte order mark, encodings, blanks.
func TestForms(t *testing.T) {
	t.Parallel()
	want := carried(t, "a.opt", "GROUP g jörg\nMAX 2 f1 GROUP g\n", FlexNet, Settings{})
	for what, text := range map[string]string{
		"CRLF":       "GROUP g jörg\r\nMAX 2 f1 GROUP g\r\n",
		"CR":         "GROUP g jörg\rMAX 2 f1 GROUP g\r",
		"a BOM":      "\ufeffGROUP g jörg\nMAX 2 f1 GROUP g\n",
		"ISO 8859-1": "GROUP g j\xf6rg\nMAX 2 f1 GROUP g\n",
		"UTF-16": "\xff\xfeG\x00R\x00O\x00U\x00P\x00 \x00g\x00 " +
			"\x00j\x00\xf6\x00r\x00g\x00\n\x00M\x00A\x00X\x00 \x002\x00 \x00f\x001\x00 \x00G\x00R\x00O\x00U\x00P\x00 " +
			"\x00g\x00",
		"blanks":        "\t GROUP   g\tjörg  \n  MAX  2 f1 GROUP g \t\n",
		"no line end":   "GROUP g jörg\nMAX 2 f1 GROUP g",
		"small letters": "group g jörg\nmax 2 f1 group g",
		"quotes":        "GROUP \"g\" \"jörg\"\nMAX \"2\" \"f1\" GROUP \"g\"",
		"continued":     "GROUP g \\\n jörg\nMAX 2 \\  \r\n  f1 GROUP\\\n g",
	} {
		m := carried(t, "a.opt", text, FlexNet, Settings{})
		for i := range m.Rules {
			m.Rules[i].Name = want.Rules[i].Name // it has the line's number
		}
		if !reflect.DeepEqual(m.Rules, want.Rules) || !reflect.DeepEqual(m.Groups, want.Groups) {
			t.Errorf("with %s: %+v, %+v", what, m.Groups, m.Rules)
		}
		holdsAll(t, carried(t, "a.opt", text, FlexNet, Settings{}),
			carried(t, "a.opt", text, FlexNet, Settings{}).Write("usher"))
	}
	for _, text := range []string{"", "\n\n", "# nothing\n", "# with a backslash at its end \\\n"} {
		m := carried(t, "a.opt", text, "", Settings{})
		if holdsAll(t, m, m.Write("usher")); len(m.Rules) > 0 {
			t.Errorf("%q: %+v", text, m.Rules)
		}
	}
	if m := carried(t, "a.opt", "# a note \\\nMAX 2 f1 USER a", FlexNet, Settings{}); len(m.Rules) != 1 {
		t.Errorf("a comment swallows the next line: %+v", m.Rules)
	}
}

// Names that YAML or a policy would read as something else keep what they are.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, n := range []string{"yes", "null", "1001", "1e3", "0x10", "~", "a:b", "a#b", "[a]", "{a}", "&a", "*a", "!a",
		"%a", "'a'",
		"a'b", `DOM\user`, "-", "- a", "a: b", "?a", "|", ">", "@g", "`a`", "true", "ä", "日本", "\u00a0a", "=", "<<",
		"a,b"} {
		text := `EXCLUDE f1 USER "` + n + `"`
		m := carried(t, "a.opt", text, FlexNet, Settings{})
		c := loaded(t, m.Write("usher"))
		want := n
		if n == "@g" {
			want = "?g" // @g would be a group
		}
		if got := c.Policies[0].Match.User; !slices.Equal(got, []string{want}) {
			t.Errorf("%q became %q", n, got)
		}
		if wild := strings.ContainsAny(want, "*?"); wild != (len(m.Remarks) > 0) {
			t.Errorf("%q: remarks %+v", n, m.Remarks)
		}
		if n == "=" {
			continue // belongs to a keyword
		}
		m = carried(t, "a.opt", `EXCLUDE "`+n+`" USER a`, FlexNet, Settings{})
		if got := loaded(t, m.Write("usher")).Policies[0].Pools; !slices.Equal(got, []string{n}) {
			t.Errorf("the pool %q became %q", n, got)
		}
	}
}

// Whose file it is shows by what only one of the two has.
func TestGuess(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]System{
		"":                              FlexNet,
		"MAX 5 f1 USER a":               FlexNet,
		"LINGER f1 60":                  FlexNet,
		"TIMEOUT f1 60":                 FlexNet,
		"MAX 5 f1 DISPLAY a":            FlexNet,
		`MAX 5 "f1:VERSION=1" USER a`:   FlexNet,
		"TIMEOUT 60 f1":                 RLM,
		"TIMEOUT 60":                    RLM,
		"PRIORITY 1 f1 user a":          RLM,
		"MAX 5 f1 user a id=7":          RLM,
		"EXCLUDE f1 noproject":          RLM,
		"INTERNET_GROUP g 10.0.0.*":     RLM,
		"MAX 5 f1 USER a\nEXPRESS OFF":  RLM,
		"ROAM_MAX_DAYS 3 f1\nGROUP g a": RLM,
	} {
		f, err := Parse("a.opt", []byte(text), "")
		if err != nil || f.System != want || !f.Guessed {
			t.Errorf("%q is taken for %v's: %v", text, f, err)
		}
	}
}

// Where no rule is made, no remark speaks of one.
func TestNobodyOnTheList(t *testing.T) {
	t.Parallel()
	m := carried(t, "a.opt", "INCLUDE f1 USER ann\nINCLUDEALL INTERNET 10.*.*.*", FlexNet, Settings{})
	if len(m.Rules) != 1 || m.Count(Not) != 1 || m.Count(Partly) != 0 {
		t.Errorf("it has %+v, and the remarks %+v", m.Rules, m.Remarks)
	}
	for _, r := range m.Remarks {
		if strings.Contains(r.Reason, "the rule is for all pools") {
			t.Errorf("a remark is of a rule that there is not: %+v", r)
		}
	}
}

// Each documented option is known, and what it becomes is read back.
func TestEveryOption(t *testing.T) {
	t.Parallel()
	words := map[rune]string{'n': " 5", 'f': " f1", 'p': " f1", 'w': " USER ann", 'o': " ON", 'g': " team ann bob",
		'i': "",
		'*': " x"}
	for _, s := range []System{FlexNet, RLM} {
		for keyword, form := range s.options() {
			text := keyword
			for _, c := range form {
				text += words[c]
			}
			m := carried(t, "a.opt", text, s, Settings{})
			holdsAll(t, m, m.Write("usher"))
			for _, r := range m.Remarks {
				if r.Line != 1 || r.Option != text || r.Reason == "" || r.Mend == "" {
					t.Errorf("%s: %+v", text, r)
				}
			}
		}
	}
}

func FuzzFlexNet(f *testing.F) { fuzz(f, FlexNet) }
func FuzzRLM(f *testing.F)     { fuzz(f, RLM) }

// fuzz reads any file. What is read becomes a configuration that has every line and every rule.
func fuzz(f *testing.F, s System) {
	files, err := filepath.Glob("testdata/*.opt")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "f1:VERSION=2.0=f2", "f1,f2")
		for line := range bytes.Lines(text) {
			f.Add(line, "streams:id=7=x", "")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, pool, all string) {
		file, err := Parse("fuzz.opt", data, s)
		if err != nil {
			for sentence := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(sentence, "fuzz.opt:") {
					t.Errorf("no place: %q", sentence)
				}
			}
			return
		}
		settings := Settings{Pools: map[string]string{}}
		if from, to, ok := strings.Cut(pool, "="); ok && to != "" && len(to) <= maxPool {
			settings.Pools[from] = to
		}
		if all != "" {
			settings.All = strings.Split(strings.ToValidUTF8(all, ""), ",")
		}
		m, err := Carry(file, settings)
		if err != nil {
			return
		}
		for _, r := range m.Rules {
			for _, p := range r.Pools {
				if p == "" || len(p) > maxPool {
					return // the caller's settings
				}
			}
		}
		holdsAll(t, m, m.Write("usher"))
	})
}
