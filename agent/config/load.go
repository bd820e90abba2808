package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/plugin/textual"
)

// maxFile is the largest configuration file, in bytes.
const maxFile = 1 << 20

// Source is where a configuration comes from. Later ones win: File (or Data), Env, Flags.
type Source struct {
	File  string            // path; empty: no file
	Data  []byte            // instead of the contents of File, which then only names it
	Env   []string          // KEY=VALUE; only USHER_ variables count
	Flags map[string]string // by key: "socket.path"
	// Guard: File, and the files that it names, are read only where nobody but root and this process's user can change
	// them; see [files.ReadNamed].
	Guard bool
}

// Load reads a configuration and checks it. Its error joins all faults, each an [*Error].
func Load(s Source) (*Config, error) {
	c := Default()
	c.guarded = s.Guard
	d := &decoder{config: c, file: filepath.Base(s.File)}
	if s.Data != nil && s.File == "" {
		d.file = "configuration"
	}
	if s.File != "" || s.Data != nil {
		data := s.Data
		if data == nil {
			var err error
			if data, err = c.read(s.File); err != nil {
				return nil, err
			}
		}
		d.document(data, c)
	}
	d.environment(s.Env)
	for _, key := range slices.Sorted(maps.Keys(s.Flags)) {
		place := "--" + strings.NewReplacer(".", "-", "_", "-").Replace(key)
		d.text(d.outside(s.Flags[key], place, key), place, key, "flag")
	}
	for i := range c.License.Trust {
		if t := &c.License.Trust[i]; t.System == "" {
			t.System = "usher"
		}
	}
	// A value that could not be read is reported once, and not again for what it then lacks.
	for _, f := range c.check() {
		if !slices.ContainsFunc(d.faults, func(was *Error) bool { return related(was.Key, f.Key) }) {
			d.add(f)
		}
	}
	if err := joined(d.faults); err != nil {
		return nil, err
	}
	c.remark()
	return c, nil
}

func (c *Config) read(path string) ([]byte, error) {
	data, err := c.ReadFile(path, maxFile)
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) && failed.Path == path {
		err = failed.Err
	}
	if err != nil {
		return nil, &Error{Place: path, Text: fmt.Sprintf("cannot be read: %v; --config names the file", err)}
	}
	return data, nil
}

// Guard makes later reads of files that the configuration names check that nobody but root and this process's user can
// change them.
func (c *Config) Guard() { c.guarded = true }

// ReadFile returns the content of a file that the configuration names, of at most max bytes. A text is in UTF-8 without
// a byte order mark, however the file has it.
func (c *Config) ReadFile(path string, max int64) ([]byte, error) {
	data, err := c.readFile(path, max)
	return textual.Decode(data), err
}

func (c *Config) readFile(path string, max int64) ([]byte, error) {
	if c.guarded {
		return files.ReadNamed(path, max)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("%s: it has more than %d bytes", path, max)
	}
	return data, err
}

// document puts the one YAML document of a file into the configuration, or into what stands in its place.
func (d *decoder) document(data []byte, into any) {
	if len(data) > maxFile {
		d.fault(d.file, "", "the file is larger than %d bytes; a configuration is far smaller", maxFile)
		return
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return // empty: all defaults
	}
	if err != nil {
		d.notYAML(string(data), strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		d.fault(d.file, "", "it holds more than one YAML document; keep one")
		return
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return
	}
	if n := doc.Content[0]; n.Kind == yaml.ScalarNode {
		d.fault(d.at(n), "",
			"the file is a single value (%q), and must have keys: a key ends with a colon and a blank, "+
				"as in `product: acme`", clip(n.Value))
		return
	}
	d.mapping(doc.Content[0], reflect.ValueOf(into).Elem(), "")
}

// variables that have a name of their own, or are not the configuration's
var shortcuts = map[string]string{"USHER_LICENSE": "license.inline", "USHER_SOCKET": "socket.path",
	"USHER_PRODUCT": "product"}

// foreign variables belong to the command line, or Kubernetes sets them for a service called usher.
func foreign(name string) bool {
	return name == "USHER_CONFIG" || name == "USHER_INSTANCE" || name == "USHER_LEASE" || name == "USHER_PORT" ||
		strings.HasPrefix(name, "USHER_PORT_") || strings.HasPrefix(name, "USHER_SERVICE_")
}

// Variable returns the environment variable of a key.
func Variable(key string) string {
	return "USHER_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func (d *decoder) environment(env []string) {
	byName := map[string]string{}
	for _, k := range Keys() {
		if !strings.Contains(k, "[]") {
			byName[Variable(k)] = k
		}
	}
	for _, kv := range slices.Sorted(slices.Values(env)) {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "USHER_") || foreign(name) || value == "" {
			continue
		}
		key, ok := shortcuts[name]
		if !ok {
			key, ok = byName[name]
		}
		if !ok {
			hint := Nearest(name, slices.Sorted(maps.Keys(byName)))
			if short := Nearest(name, slices.Sorted(maps.Keys(shortcuts))); short != "" &&
				(hint == "" || distance(name, short) <= distance(name, hint)) {
				hint = short
			}
			if hint != "" {
				hint = "; did you mean " + hint + "?"
			}
			d.fault(clip(name), "", "there is no such setting%s", hint)
			continue
		}
		d.text(d.outside(value, name, key), name, key, "env")
	}
}

// outside returns a value of a variable or a flag without what shells and files of variables leave around it, and notes
// that. A document that stands there itself is read like a file of it.
func (d *decoder) outside(value, place, key string) string {
	if secret(key) {
		return value
	}
	if around := textual.Around(value); around != "" {
		d.config.notes = append(d.config.notes, fmt.Sprintf("%s is %q, with %s around the value, and is read as %q",
			place, clip(value), around, clip(textual.Value(value))))
	}
	return textual.Value(value)
}

// secret reports whether a key's value is a key or a document, which no message quotes.
func secret(key string) bool {
	return key == "license.inline" || strings.HasPrefix(key, "license.trust[") && strings.HasSuffix(key, "].key")
}

// text puts a text from outside the file into the value of a key.
func (d *decoder) text(s, place, key, kind string) {
	v := reflect.ValueOf(d.config).Elem()
	for name := range strings.SplitSeq(key, ".") {
		var next reflect.Value
		if v.Kind() == reflect.Struct {
			for _, f := range fieldsOf(v) {
				if f.name == name {
					next = f.value
				}
			}
		}
		if !next.IsValid() {
			d.fault(place, key, "there is no such setting")
			return
		}
		v = next
	}
	d.scalar(s, place, v, key)
	d.config.origins[key] = kind + " " + place
}
