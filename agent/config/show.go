package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Setting is one key with its value and the origin of that: "default", "file usher.yaml:12", "env USHER_LOG_LEVEL" or
// "flag --log-level".
type Setting struct {
	Key, Value, Origin string
}

// Origin says where a key's value comes from.
func (c *Config) Origin(key string) string {
	if o, ok := c.origins[key]; ok {
		return o
	}
	return "default"
}

// redacted stands for a secret that is set.
const redacted = "(redacted)"

// Show returns every key in order, lists item by item, secrets redacted.
func (c *Config) Show() []Setting {
	var out []Setting
	var walk func(v reflect.Value, key string)
	walk = func(v reflect.Value, key string) {
		t := v.Type()
		switch {
		case t.Kind() == reflect.Struct && t != typeTime:
			for _, f := range fieldsOf(v) {
				walk(f.value, join(key, f.name))
			}
		case t.Kind() == reflect.Slice && t != typeProduct && v.Len() > 0:
			for i := range v.Len() {
				walk(v.Index(i), fmt.Sprintf("%s[%d]", key, i))
			}
		default:
			text := valueText(v)
			if key == "license.inline" && text != "" {
				text = redacted
			}
			text = plugin.Conceal(text)
			out = append(out, Setting{key, text, c.Origin(key)})
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	slices.SortFunc(out, func(a, b Setting) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// Relative returns the keys whose paths are relative, in order: they begin at the folder that the process was started
// in, which of another process may be another one.
func (c *Config) Relative() []string {
	var out []string
	add := func(key, path string) {
		if path != "" && !filepath.IsAbs(path) {
			out = append(out, key)
		}
	}
	add("license.path", c.License.Path)
	add("socket.path", c.Socket.Path)
	add("state.dir", c.State.Dir)
	add("state.runtime_dir", c.State.RuntimeDir)
	for _, f := range c.NamedFiles() {
		add(f.Key, f.Path)
	}
	slices.Sort(out)
	return out
}

// valueText writes a value as the file has it; empty for one that is not set.
func valueText(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case time.Time:
		if x.IsZero() {
			return ""
		}
		return x.Format(time.RFC3339)
	case fs.FileMode:
		return fmt.Sprintf("%04o", uint32(x))
	case Product:
		return strings.Join(x, ", ")
	case map[string]string:
		var parts []string
		for k := range x {
			parts = append(parts, k+"="+x[k])
		}
		slices.Sort(parts)
		return strings.Join(parts, ", ")
	}
	if v.Kind() == reflect.Slice {
		return ""
	}
	return fmt.Sprint(v.Interface())
}

// reloadable are the keys that a running agent takes over; a name covers all keys below it.
var reloadable = []string{"license.trust", "license.key_file", "license.version", "license.released", "license.grace",
	"license.max_borrow", "license.on_expiry",
	"license.strategy", "license.clock", "license.count_by", "license.no_overage", "license.require_production",
	"socket.allow", "socket.admin", "groups", "policies", "events",
	"log.level"}

// Reloadable reports whether a running agent takes over a change of a key.
func Reloadable(key string) bool {
	return slices.ContainsFunc(reloadable, func(r string) bool {
		return key == r || strings.HasPrefix(key, r+".") || strings.HasPrefix(key, r+"[")
	})
}

// named returns the names of the entries of the lists whose entries have names, in their order.
func (c *Config) named() map[string][]string {
	m := map[string][]string{}
	for _, g := range c.Groups {
		m["groups"] = append(m["groups"], g.Name)
	}
	for _, p := range c.Policies {
		m["policies"] = append(m["policies"], p.Name)
	}
	for _, t := range c.License.Trust {
		m["license.trust"] = append(m["license.trust"], t.KeyID)
	}
	for _, p := range c.Plugins {
		m["plugins"] = append(m["plugins"], p.Name)
	}
	for _, l := range c.Listeners {
		m["listeners"] = append(m["listeners"], cmp.Or(l.Dialect, l.Address))
	}
	return m
}

// values returns every key with its value. All of an entry of a list whose entries have names is one value, under its
// name: policies[NAME]. A name that several entries have stands for all of them.
func (c *Config) values() map[string]string {
	m, named := map[string]string{}, c.named()
	for _, s := range c.Show() {
		list, rest, _ := strings.Cut(s.Key, "[")
		at, field, _ := strings.Cut(rest, "]")
		if i, err := strconv.Atoi(at); err == nil && i < len(named[list]) {
			m[list+"["+named[list][i]+"]"] += fmt.Sprintf("%s %q\n", field, s.Value)
			continue
		}
		m[s.Key] = s.Value
	}
	m["license.inline"] = c.License.Inline
	return m
}

// Diff returns the keys whose values differ: those that a running agent takes over, and those that need a restart. A
// rule, a group, an anchor, a plugin or a listener that is new, gone or changed is named once, as policies[NAME];
// policies alone says that rules which stay have another order.
func Diff(before, after *Config) (taken, restart []string) {
	a, b := before.values(), after.values()
	now := after.named()
	for list, names := range before.named() {
		both := func(names, others []string) []string {
			return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !slices.Contains(others, n) })
		}
		if !slices.Equal(both(names, now[list]), both(now[list], names)) && list == "policies" { // groups have none
			taken = append(taken, list)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			a[k] = ""
		}
	}
	for k := range a {
		switch {
		case a[k] == b[k]:
		case Reloadable(k):
			taken = append(taken, k)
		default:
			restart = append(restart, k)
		}
	}
	slices.Sort(taken)
	slices.Sort(restart)
	return taken, restart
}

// Reloaded returns the configuration of an agent that runs with c and has taken over the reloadable keys of next.
func (c *Config) Reloaded(next *Config) *Config {
	out := *next
	out.Product, out.Ops, out.Agent, out.State, out.Host, out.Limits, out.Plugins = c.Product, c.Ops, c.Agent, c.State,
		c.Host, c.Limits, c.Plugins
	out.Upstream, out.Privacy, out.Listeners = c.Upstream, c.Privacy, c.Listeners
	out.License.Path, out.License.Inline = c.License.Path, c.License.Inline
	out.Socket.Path, out.Socket.Mode, out.Socket.Group = c.Socket.Path, c.Socket.Mode, c.Socket.Group
	out.Log.Format = c.Log.Format
	out.origins = map[string]string{}
	for k, o := range next.origins {
		if Reloadable(k) {
			out.origins[k] = o
		}
	}
	for k, o := range c.origins {
		if !Reloadable(k) {
			out.origins[k] = o
		}
	}
	return &out
}
