package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
	"go.yaml.in/yaml/v4"
)

// decoder fills a Config from YAML nodes and texts. It notes where each value comes from, and every fault.
type decoder struct {
	config *Config
	file   string // its name in messages
	faults []*Error
}

// maxFaults bounds what a file full of rubbish costs, in time and in lines to read.
const maxFaults = 50

// maxItems bounds each list.
const maxItems = 1000

func (d *decoder) fault(place, key, format string, args ...any) {
	d.add(&Error{Place: place, Key: key, Text: fmt.Sprintf(format, args...)})
}

func (d *decoder) add(e *Error) {
	switch n := len(d.faults); {
	case n < maxFaults:
		d.faults = append(d.faults, e)
	case n == maxFaults:
		d.faults = append(d.faults,
			&Error{Text: fmt.Sprintf("there are more than %d faults; mend these first", maxFaults)})
	}
}

// full reports that the decoder keeps no further faults.
func (d *decoder) full() bool { return len(d.faults) > maxFaults }

// clip shortens a text for a message, and covers what an address has of users and passwords.
func clip(s string) string {
	const most = 80
	s = plugin.Conceal(s)
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func (d *decoder) at(n *yaml.Node) string { return d.file + ":" + strconv.Itoa(n.Line) }

// field is one key of a section.
type field struct {
	name  string
	value reflect.Value
	file  Renewal // of a value that names a file; else empty
}

// fieldsOf returns the keys of a section: those of its struct, and of upstream the systems' own.
func fieldsOf(v reflect.Value) (out []field) {
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Tag.Get("yaml"); {
		case name == "":
		case v.Type().Field(i).Type == typeSystems:
			for section, settings := range v.Field(i).Interface().(Systems) {
				out = append(out, field{name: section, value: reflect.ValueOf(settings).Elem()})
			}
		default:
			out = append(out, field{name, v.Field(i), Renewal(v.Type().Field(i).Tag.Get("file"))})
		}
	}
	return out
}

// types with a form of their own
var (
	typeTime     = reflect.TypeFor[time.Time]()
	typeSystems  = reflect.TypeFor[Systems]()
	typeTexts    = reflect.TypeFor[map[string]string]()
	typeSpan     = reflect.TypeFor[time.Duration]() // sections of systems, which know no Duration
	typeDuration = reflect.TypeFor[Duration]()
	typeMode     = reflect.TypeFor[fs.FileMode]()
	typeProduct  = reflect.TypeFor[Product]()
)

// node puts a YAML node into a value. key is its name with dots.
func (d *decoder) node(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.fault(d.at(n), key, "anchors and aliases are not read; write the value out")
		return
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		d.node(n, p.Elem(), key)
		v.Set(p)
		return
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		// A section may have all its keys commented out. An empty list may not: it could mean all or nobody.
		if v.Kind() != reflect.Struct || v.Type() == typeTime || strings.HasSuffix(key, "]") {
			d.fault(d.at(n), key, "%s has no value; give one, or leave the key out", key)
		}
		return
	case v.Type() == typeProduct && n.Kind == yaml.ScalarNode:
		d.noteAround(n, key)
		d.scalar(n.Value, d.at(n), v, key)
	case v.Kind() == reflect.Struct && v.Type() != typeTime:
		d.mapping(n, v, key)
	case v.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fault(d.at(n), key, "%s is a %s, and must be a list (lines that begin with -)", key, kindName(n))
			return
		}
		if len(n.Content) > maxItems {
			d.fault(d.at(n), key, "%s has %d items, and may have %d at most", key, len(n.Content), maxItems)
			return
		}
		s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			d.node(item, s.Index(i), fmt.Sprintf("%s[%d]", key, i))
		}
		v.Set(s)
	case v.Type() == typeTexts:
		if n.Kind != yaml.MappingNode {
			d.fault(d.at(n), key, "%s is a %s, and must have keys below it", key, kindName(n))
			return
		}
		m := map[string]string{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name, value := n.Content[i], n.Content[i+1]
			_, twice := m[name.Value]
			switch {
			case twice:
				d.fault(d.at(name), key, "key %q stands twice below %s; keep one of them", clip(name.Value), key)
			case value.Kind == yaml.AliasNode || value.Anchor != "":
				d.fault(d.at(value), key, "anchors and aliases are not read; write the value out")
			case value.Kind != yaml.ScalarNode:
				d.fault(d.at(value), key, "%s.%s is a %s, and must be a text", key, clip(name.Value), kindName(value))
			case value.Tag == "!!null":
				d.fault(d.at(value), key, "%s.%s has no value; give one, or leave the key out", key, clip(name.Value))
			}
			d.noteAround(value, key+"."+clip(name.Value))
			m[name.Value] = value.Value
		}
		v.Set(reflect.ValueOf(m))
	case n.Kind != yaml.ScalarNode:
		d.fault(d.at(n), key, "%s is a %s, and must be %s", key, kindName(n), wanted(v.Type()))
		return
	default:
		d.noteAround(n, key)
		d.scalar(n.Value, d.at(n), v, key)
	}
	d.config.origins[key] = "file " + d.at(n)
}

// noteAround notes that a value of the file has quotes, blanks or control characters of its own at its ends. It may be
// meant so, and stays as it is.
func (d *decoder) noteAround(n *yaml.Node, key string) {
	around := textual.Around(n.Value)
	if around == "" || n.Value == "" || secret(key) || strings.ContainsRune(strings.TrimSpace(n.Value), '\n') {
		return
	}
	d.config.notes = append(d.config.notes,
		fmt.Sprintf("%s: %s is %q: %s at its ends belong to the value; leave them out "+
			"unless that is meant", d.at(n), key, clip(n.Value), around))
}

// mapping puts a YAML mapping into a struct.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fault(d.at(n), key, "%s is a %s, and must have keys below it", nameOf(key), kindName(n))
		return
	}
	fields := map[string]reflect.Value{}
	for _, f := range fieldsOf(v) {
		fields[f.name] = f.value
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content) && !d.full(); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		full := join(key, clip(name.Value))
		f, ok := fields[name.Value]
		switch {
		case !ok:
			d.fault(d.at(name), full, "unknown key %q%s", full, suggest(full, slices.Sorted(maps.Keys(fields)), key))
		case seen[name.Value]:
			d.fault(d.at(name), full, "key %q stands twice; keep one of them", full)
		case full == "license.inline":
			d.fault(d.at(name), full,
				"license.inline is a secret and is not read from a file; use the variable USHER_LICENSE")
		default:
			seen[name.Value] = true
			d.node(value, f, full)
		}
	}
}

// scalar puts a text into a value.
func (d *decoder) scalar(s, place string, v reflect.Value, key string) {
	bad := func() {
		d.fault(place, key, "%s is %q, and must be %s", key, clip(s), wanted(v.Type()))
	}
	switch {
	case v.Kind() == reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.scalar(s, place, p.Elem(), key)
		v.Set(p)
	case v.Type() == typeProduct:
		var p Product
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				p = append(p, part)
			}
		}
		v.Set(reflect.ValueOf(p))
	case v.Type() == typeTime:
		t, err := ParseDate(s, isEnd(key))
		switch {
		case errors.Is(err, errNoDate):
			bad()
			return
		case err != nil:
			d.fault(place, key, "%s: %v", key, err)
			return
		}
		v.Set(reflect.ValueOf(t))
	case v.Type() == typeDuration, v.Type() == typeSpan:
		t, err := ParseDuration(s)
		if err != nil {
			bad()
			return
		}
		v.SetInt(int64(t))
	case v.Type() == typeMode:
		n, err := strconv.ParseUint(s, 8, 32)
		if err != nil || n > 0o777 {
			bad()
			return
		}
		v.SetUint(n)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			bad()
			return
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil || n < 0 {
			bad()
			return
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			bad()
			return
		}
		v.SetUint(n)
	case v.Kind() == reflect.String:
		v.SetString(s)
	default:
		d.fault(place, key, "%s cannot be given here; write it into the configuration file", key)
	}
}

// wanted says what a value of a type looks like.
func wanted(t reflect.Type) string {
	switch {
	case t == typeTime:
		return "a date (2027-01-31) or a time (2027-01-31T12:00:00Z)"
	case t == typeDuration, t == typeSpan:
		return "a span of time such as 90s, 12h, 30d or P30D"
	case t == typeMode:
		return `octal permissions in quotes, such as "0660"`
	case t == typeProduct:
		return "a product, or a list of them"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "a text"
	default:
		return "a whole number from 0 on"
	}
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	default:
		return "single value"
	}
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func nameOf(key string) string {
	if key == "" {
		return "the file"
	}
	return key
}

// suggest names the known key that is most like an unknown one: a sibling, or any key at all.
func suggest(key string, siblings []string, parent string) string {
	best, least := "", 4
	consider := func(candidate string) {
		if d := distance(plain(key), plain(candidate)); d < least && d <= len(candidate)/2 {
			best, least = candidate, d
		}
	}
	for _, s := range siblings {
		consider(join(parent, s))
	}
	for _, k := range Keys() {
		consider(strings.ReplaceAll(k, "[]", ""))
	}
	// The right name in the wrong place.
	if best == "" {
		last := key[strings.LastIndexByte(key, '.')+1:]
		for _, k := range Keys() {
			if strings.HasSuffix(k, "."+last) {
				best = k
				break
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// plain makes spellings of one word alike: licence and license, dashes and underscores.
func plain(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(s), "licence", "license"), "-", "_")
}

// distance is the Levenshtein distance of two short texts.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal, row[j+1] = row[j+1], min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Keys returns every key with dots, a list's items as name[], sorted.
func Keys() []string { return keysOf(func(field) bool { return true }) }

// keysOf returns the keys of those fields that are chosen.
func keysOf(chosen func(field) bool) []string {
	var out []string
	var walk func(f field, key string)
	walk = func(f field, key string) {
		switch t := f.value.Type(); {
		case t.Kind() == reflect.Struct && t != typeTime:
			for _, f := range fieldsOf(f.value) {
				walk(f, join(key, f.name))
			}
		case t.Kind() == reflect.Slice && t != typeProduct:
			walk(field{value: reflect.New(t.Elem()).Elem()}, key+"[]")
		case chosen(f):
			out = append(out, key)
		}
	}
	walk(field{value: reflect.ValueOf(Default()).Elem()}, "")
	slices.Sort(out)
	return out
}
