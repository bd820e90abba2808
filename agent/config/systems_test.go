package config

import (
	"reflect"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// The decoder can read every part of every system's section. Variables reach it, and Show shows it.
func TestSystemsSections(t *testing.T) {
	var walk func(typ reflect.Type, key string)
	walk = func(typ reflect.Type, key string) {
		switch {
		case typ == typeTime, typ == typeSpan, typ == typeTexts:
		case typ.Kind() == reflect.Pointer:
			walk(typ.Elem(), key)
		case typ.Kind() == reflect.Struct:
			for i := range typ.NumField() {
				f := typ.Field(i)
				if name := f.Tag.Get("yaml"); name == "" || !f.IsExported() {
					t.Errorf("%s: field %s has no name", key, f.Name)
				} else {
					walk(f.Type, key+"."+name)
				}
			}
		case typ.Kind() == reflect.Slice:
			walk(typ.Elem(), key)
		case typ.Kind() == reflect.String,
			typ.Kind() == reflect.Bool,
			reflect.Zero(typ).CanInt(),
			reflect.Zero(typ).CanUint():
		default:
			t.Errorf("%s is a %s, which cannot be decoded", key, typ)
		}
	}
	for section, settings := range newSystems() {
		typ := reflect.TypeOf(settings)
		if typ.Kind() != reflect.Pointer || typ.Elem().Kind() != reflect.Struct {
			t.Fatalf("upstream.%s is a %s, and must be a pointer to a struct", section, typ)
		}
		walk(typ.Elem(), "upstream."+section)
		for _, f := range fieldsOf(reflect.ValueOf(&Upstream{}).Elem()) {
			if f.name == section {
				t.Errorf("upstream.%s is a key of every system's, too", section)
			}
		}
	}
}

// toySettings is a system's section with a value of each kind.
type toySettings struct {
	Place string            `yaml:"place"`
	Every time.Duration     `yaml:"every"`
	Most  int64             `yaml:"most"`
	Open  bool              `yaml:"open"`
	Names []string          `yaml:"names"`
	Extra map[string]string `yaml:"extra"`
}

// A section is decoded strictly into its struct, and its keys come from where they are written.
func TestSectionDecoded(t *testing.T) {
	s := &toySettings{Most: 7}
	d := &decoder{config: Default(), file: "usher.yaml"}
	root := document(t, "place: here\nevery: 12h\nopen: true\nnames: [a, b]\nextra: {a: b}\nplaec: x\nmost: -1\n")
	d.mapping(root, reflect.ValueOf(s).Elem(), "upstream.toy")
	if want := (toySettings{"here", 12 * time.Hour, 7, true, []string{"a", "b"},
		map[string]string{"a": "b"}}); !reflect.DeepEqual(
		*s,
		want,
	) {
		t.Errorf("got %+v", *s)
	}
	want := []string{
		`usher.yaml:6: unknown key "upstream.toy.plaec"; did you mean "upstream.toy.place"?`,
		`usher.yaml:7: upstream.toy.most is "-1", and must be a whole number from 0 on`,
	}
	var got []string
	for _, f := range d.faults {
		got = append(got, f.Error())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("faults %q", got)
	}
	if o := d.config.Origin("upstream.toy.every"); o != "file usher.yaml:2" {
		t.Errorf("every comes from %s", o)
	}
}

func document(t *testing.T, text string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	return n.Content[0]
}
