package config

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
)

// Renewal says when a renewed file of the same name is taken. It is the tag file of each field that names a file.
type Renewal string

const (
	OnUse     Renewal = "use"     // the file is read for each use
	OnReload  Renewal = "reload"  // the file is read by a reload
	OnRestart Renewal = "restart" // the file is read at the start alone
)

// NamedFile is a file that the configuration names.
type NamedFile struct {
	Key     string
	Path    string
	Renewal Renewal
}

// NamedFiles returns the files that the configuration names, in the order of the keys. Folders, sockets and the licence
// itself, which is watched, are not among them.
func (c *Config) NamedFiles() (out []NamedFile) {
	named(reflect.ValueOf(c).Elem(), "", func(key string, renewal Renewal, v reflect.Value) {
		if v.String() != "" {
			out = append(out, NamedFile{key, v.String(), renewal})
		}
	})
	slices.SortFunc(out, func(a, b NamedFile) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// FileKeys returns every key that names a file; a list's items are [].
func FileKeys() []string { return keysOf(func(f field) bool { return f.file != "" }) }

// named calls f for each value that names a file.
func named(v reflect.Value, key string, f func(key string, renewal Renewal, v reflect.Value)) {
	switch {
	case v.Kind() == reflect.Struct && v.Type() != typeTime:
		for _, field := range fieldsOf(v) {
			if field.file != "" {
				f(join(key, field.name), field.file, field.value)
				continue
			}
			named(field.value, join(key, field.name), f)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			named(v.Index(i), fmt.Sprintf("%s[%d]", key, i), f)
		}
	}
}

// Contents are the digests of the files that a configuration names, by key and path. Of a file that cannot be read
// there is none.
type Contents map[NamedFile][sha256.Size]byte

// Contents reads the files that the configuration names.
func (c *Config) Contents() Contents {
	out := Contents{}
	for _, n := range c.NamedFiles() {
		if sum, err := digest(n.Path); err == nil {
			out[n] = sum
		}
	}
	return out
}

// Renewed returns the files whose content is another than it was.
func (was Contents) Renewed(is Contents, c *Config) (out []NamedFile) {
	for _, n := range c.NamedFiles() {
		before, had := was[n]
		if now, has := is[n]; had && has && now != before {
			out = append(out, n)
		}
	}
	return out
}

// digest returns the SHA-256 of a regular file.
func digest(path string) (out [sha256.Size]byte, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return out, err
	}
	if !fi.Mode().IsRegular() {
		return out, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return out, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
