package config

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

func file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMinimalFile(t *testing.T) {
	c := load(t, file(t, "configs/minimal.yaml"))
	if c.Product.Name() == "" || len(c.License.Trust) != 1 || c.License.Trust[0].System != "usher" {
		t.Errorf("got %+v", c)
	}
	for key := range c.origins {
		if key != "product" && !strings.HasPrefix(key, "license") {
			t.Errorf("%s is more than the least", key)
		}
	}
}

// The reference file loads as it is, and with each commented-out key in force.
func TestReferenceFile(t *testing.T) {
	text := file(t, "configs/usher.yaml")
	c := load(t, text)
	if len(c.License.Trust) != 3 || len(c.Socket.Allow) != 4 ||
		!strings.Contains(c.License.Trust[1].Key, "BEGIN PUBLIC KEY") {
		t.Errorf("got %+v", c)
	}
	commented := regexp.MustCompile(`(?m)^( *)# ([a-z0-9_-]+:( .*)?)$`)
	full := commented.ReplaceAllStringFunc(text, func(line string) string {
		m := commented.FindStringSubmatch(line)
		if strings.HasPrefix(m[2], "inline:") || !isKey(strings.SplitN(m[2], ":", 2)[0]) {
			return line
		}
		return m[1] + m[2]
	})
	full = strings.Replace(full, "  #   c", "    c", 2)
	for _, pair := range []string{"gid: 1001", "user: operator"} { // uid beside user, gid beside group: one of each
		full = strings.Replace(full, "      "+pair+"\n", "", 1)
	}
	c = load(t, full)
	for _, k := range Keys() {
		key := regexp.QuoteMeta(k)
		key = strings.ReplaceAll(key, `\[\]`, `\[\d+\]`)
		re := regexp.MustCompile("^" + key + "$")
		switch k {
		case "license.inline", "socket.admin[].gid", "socket.admin[].user":
			continue
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(c.origins)), re.MatchString) {
			t.Errorf("configs/usher.yaml lacks %s", k)
		}
	}
}

// isKey reports that a word is the last part of a key.
func isKey(word string) bool {
	return slices.ContainsFunc(Keys(), func(k string) bool {
		k = strings.TrimSuffix(k, "[]")
		return k == word || strings.HasSuffix(k, "."+word)
	})
}

// The defaults that the reference file and the table state are the defaults.
func TestDefaultsAreTold(t *testing.T) {
	ref, doc := file(t, "configs/usher.yaml"), file(t, "docs/configuration.md")
	for _, s := range Default().Show() {
		if s.Value == "" || s.Value == "false" {
			continue
		}
		value := s.Value
		if s.Key == "socket.mode" {
			value = `"` + value + `"`
		}
		last := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
		if !strings.Contains(ref, "  # "+last+": "+value+"\n") {
			t.Errorf("configs/usher.yaml has not the default of %s, %s", s.Key, value)
		}
		if row := rowOf(doc, s.Key); !strings.Contains(row, "`"+value+"`") {
			t.Errorf("docs/configuration.md has not the default of %s, %s: %s", s.Key, value, row)
		}
	}
}

func rowOf(doc, key string) string {
	_, rest, ok := strings.Cut(doc, "\n| `"+key+"` |")
	if !ok {
		return ""
	}
	row, _, _ := strings.Cut(rest, "\n")
	return row
}

// The table has each key once, with its variable and with whether a reload takes it over.
func TestTable(t *testing.T) {
	doc := file(t, "docs/configuration.md")
	for _, k := range Keys() {
		row := rowOf(doc, k)
		if row == "" {
			t.Errorf("docs/configuration.md lacks %s", k)
			continue
		}
		cells := strings.Split(row, " | ")
		if len(cells) < 3 {
			t.Errorf("%s: %q is no row", k, row)
			continue
		}
		yes := "no"
		if Reloadable(k) {
			yes = "yes"
		}
		if !strings.Contains(row, "| "+yes+" |") {
			t.Errorf("%s: reload is %q, and the table says %q", k, yes, row)
		}
		variable := Variable(k)
		switch {
		case k == "license.inline":
			variable = "USHER_LICENSE"
		case strings.Contains(k, "[]") || isTexts(k):
			continue
		}
		if !strings.Contains(row, "`"+variable+"`") {
			t.Errorf("%s: the table lacks %s", k, variable)
		}
	}
	if n := strings.Count(doc, "\n| `"); n != len(Keys()) {
		t.Errorf("the table has %d keys, and there are %d", n, len(Keys()))
	}
}

// What the reference file says of reloads holds.
func TestReferenceSaysReload(t *testing.T) {
	var doc yaml.Node
	text := file(t, "configs/usher.yaml")
	if err := yaml.NewDecoder(bytes.NewReader([]byte(text))).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	said, section := "", ""
	key := regexp.MustCompile(`^( *)(?:# )?([a-z0-9_]+):`)
	note := regexp.MustCompile(`Reload: (yes|no)`)
	seen := 0
	for i, line := range strings.Split(text, "\n") {
		if i < 6 {
			continue // the head
		}
		if m := note.FindStringSubmatch(line); m != nil {
			said = m[1]
		}
		m := key.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if m[1] == "" && !strings.HasPrefix(line, "#") {
			section = m[2]
		}
		full := section
		if m[1] == "  " {
			full = section + "." + m[2]
		}
		if !slices.Contains(Keys(), full) && full != "license.trust" && full != "socket.allow" &&
			full != "socket.admin" {
			continue
		}
		seen++
		if want := map[bool]string{true: "yes", false: "no"}[Reloadable(full)]; said != want {
			t.Errorf("line %d: %s says reload: %s, and it is %s", i+1, full, said, want)
		}
	}
	if seen < 20 {
		t.Errorf("only %d keys were looked at", seen)
	}
}

// Everything in the unit's environment is a setting.
func TestUnitFile(t *testing.T) {
	var env []string
	if !strings.Contains(file(t, "configs/usher@.service"), "\nMemoryMax=4G\n") {
		t.Error("the unit has no MemoryMax")
	}
	for _, m := range regexp.MustCompile(`(?m)^Environment=(USHER_.*)$`).FindAllStringSubmatch(file(t,
		"configs/usher@.service"), -1) {
		env = append(env, strings.ReplaceAll(m[1], "%i", "acme"))
	}
	c, err := Load(Source{Env: env})
	if err != nil || len(env) != 4 {
		t.Fatal(fmt.Sprint(len(env), " variables: "), err)
	}
	if c.Socket.Path != "/run/usher/acme/usher.sock" || c.State.Dir != "/var/lib/usher/acme" {
		t.Errorf("got %+v", c)
	}
}

// Examples in the manuals of other systems can be copied as they stand.
func TestManuals(t *testing.T) {
	manuals, err := filepath.Glob("../../docs/systems/*.md")
	if err != nil || len(manuals) == 0 {
		t.Fatalf("%v, %v", manuals, err)
	}
	shown := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	for _, name := range manuals {
		for i, m := range shown.FindAllStringSubmatch(file(t, "docs/systems/"+filepath.Base(name)), -1) {
			if _, err := Load(Source{File: name, Data: []byte(m[1])}); err != nil {
				t.Errorf("%s, example %d: %v", name, i+1, err)
			}
		}
	}
}

// isTexts reports whether a key is a mapping of texts, which no variable can give.
func isTexts(key string) bool {
	v := reflect.ValueOf(Default()).Elem()
	for name := range strings.SplitSeq(key, ".") {
		for _, f := range fieldsOf(v) {
			if f.name == name {
				v = f.value
				break
			}
		}
		if v.Kind() != reflect.Struct {
			break
		}
	}
	return v.Type() == typeTexts
}
