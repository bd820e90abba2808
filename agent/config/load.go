package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxFile is the largest configuration file, in bytes.
const maxFile = 1 << 20

// Source is where a configuration comes from. What stands later here wins: File (or Data), Env, Flags.
type Source struct {
	File  string            // path; empty: no file
	Data  []byte            // instead of what is in File, which then only names it
	Env   []string          // KEY=VALUE; only USHER_ variables count
	Flags map[string]string // by key: "socket.path"
}

// Load reads a configuration and checks it. Its error joins all faults, each an [*Error].
func Load(s Source) (*Config, error) {
	c := Default()
	d := &decoder{config: c, file: filepath.Base(s.File)}
	if s.Data != nil && s.File == "" {
		d.file = "configuration"
	}
	if s.File != "" || s.Data != nil {
		data := s.Data
		if data == nil {
			var err error
			if data, err = read(s.File); err != nil {
				return nil, err
			}
		}
		d.document(data)
	}
	d.environment(s.Env)
	for _, key := range slices.Sorted(maps.Keys(s.Flags)) {
		d.text(s.Flags[key], "--"+strings.NewReplacer(".", "-", "_", "-").Replace(key), key, "flag")
	}
	for i := range c.License.Trust {
		if t := &c.License.Trust[i]; t.System == "" {
			t.System = "usher"
		}
	}
	if len(d.faults) == 0 {
		d.check()
	}
	if len(d.faults) > 0 {
		return nil, errors.Join(d.faults...)
	}
	return c, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Place: path, Text: fmt.Sprintf("cannot be read: %v; --config names the file", errors.Unwrap(err))}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, &Error{Place: path, Text: fmt.Sprintf("cannot be read: %v", err)}
	}
	return data, nil
}

// document puts the one YAML document of a file into the configuration.
func (d *decoder) document(data []byte) {
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
		d.fault(d.file, "", "it is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		d.fault(d.file, "", "it holds more than one YAML document; keep one")
		return
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return
	}
	d.mapping(doc.Content[0], reflect.ValueOf(d.config).Elem(), "")
}

// variables that have a name of their own, or are not the configuration's.
var shortcuts = map[string]string{"USHER_LICENSE": "license.inline", "USHER_SOCKET": "socket.path", "USHER_PRODUCT": "product"}

// foreign variables are the command line's, or what Kubernetes sets for a service called usher.
func foreign(name string) bool {
	return name == "USHER_CONFIG" || name == "USHER_LEASE" || name == "USHER_PORT" || strings.HasPrefix(name, "USHER_PORT_") || strings.HasPrefix(name, "USHER_SERVICE_")
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
			hint, least := "", 4
			for n := range maps.Keys(byName) {
				if x := distance(n, name); x < least || x == least && n < hint {
					hint, least = n, x
				}
			}
			if hint != "" {
				hint = "; did you mean " + hint + "?"
			}
			d.fault(name, "", "there is no such setting%s", hint)
			continue
		}
		d.text(value, name, key, "env")
	}
}

// text puts a text from outside the file into the value of a key.
func (d *decoder) text(s, place, key, kind string) {
	v := reflect.ValueOf(d.config).Elem()
	for name := range strings.SplitSeq(key, ".") {
		var next reflect.Value
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				if keyName(v.Type().Field(i)) == name {
					next = v.Field(i)
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

// place returns where a key was set, as messages name it.
func (c *Config) place(key string) string {
	o := c.origins[key]
	_, place, _ := strings.Cut(o, " ")
	return place
}

// check looks at what single values cannot tell.
func (d *decoder) check() {
	c := d.config
	bad := func(key, format string, args ...any) { d.fault(c.place(key), key, format, args...) }
	oneOf := func(key, value string, of ...string) {
		if value != "" && !slices.Contains(of, value) {
			best, least := "", 4
			for _, o := range of {
				if x := distance(value, o); x < least {
					best, least = o, x
				}
			}
			if best != "" {
				best = fmt.Sprintf("; did you mean %q?", best)
			}
			bad(key, "%s is %q, and must be one of %s%s", key, value, strings.Join(of, ", "), best)
		}
	}
	oneOf("license.on_expiry", c.License.OnExpiry, "drain", "revoke", "keep")
	oneOf("license.strategy", c.License.Strategy, "any", "two", "most", "all")
	oneOf("license.clock", c.License.Clock, "lenient", "strict")
	oneOf("license.count_by", c.License.CountBy, "lease", "process", "user", "host", "pod")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
	for _, p := range c.Product {
		if p == "" || len(p) > 256 {
			bad("product", "product is empty or longer than 256 bytes")
		}
	}
	if c.License.Path == "" {
		bad("license.path", "license.path is empty: name the folder, or the file, of the licence")
	}
	if n := len(c.Socket.Path); n == 0 {
		bad("socket.path", "socket.path is empty")
	} else if n > 107 {
		bad("socket.path", "socket.path has %d bytes, and the kernel takes at most 107; choose a shorter one", n)
	}
	if c.State.Dir == "" {
		bad("state.dir", "state.dir is empty: name the folder that the agent keeps its state in")
	}
	if c.Host.Every < Duration(1e9) {
		bad("host.every", "host.every is %v, and must be at least 1s", c.Host.Every)
	}
	if c.Ops.Listen != "" {
		if _, port, err := net.SplitHostPort(c.Ops.Listen); err != nil || port == "" {
			bad("ops.listen", "ops.listen is %q, and must be host:port, such as 127.0.0.1:9871", c.Ops.Listen)
		}
	}
	if c.Ops.WebConfig != "" && c.Ops.Listen == "" {
		bad("ops.web_config", "ops.web_config is set without ops.listen, which it is for")
	}
	for i, t := range c.License.Trust {
		key := fmt.Sprintf("license.trust[%d]", i)
		switch {
		case t.KeyID == "":
			bad(key, "%s: kid is missing: the id that licences name the key by", key)
		case t.Key == "" && t.KeyFile == "":
			bad(key, "%s (%s): the key is missing: give key_file, or key", key, t.KeyID)
		case t.Key != "" && t.KeyFile != "":
			bad(key, "%s (%s): key and key_file are both given; keep one", key, t.KeyID)
		case !t.NotAfter.IsZero() && t.NotAfter.Before(t.NotBefore):
			bad(key, "%s (%s): not_after is before not_before", key, t.KeyID)
		}
		oneOf(key+".environment", t.Environment, "production", "test")
	}
	for key, rules := range map[string][]Rule{"socket.allow": c.Socket.Allow, "socket.admin": c.Socket.Admin} {
		for i, r := range rules {
			at := fmt.Sprintf("%s[%d]", key, i)
			switch {
			case r == (Rule{}):
				bad(at, "%s is empty, and would match nobody; give uid, gid, user, group, exe or exe_sha256", at)
			case r.UID != nil && r.User != "":
				bad(at, "%s: uid and user are both given; keep one", at)
			case r.GID != nil && r.Group != "":
				bad(at, "%s: gid and group are both given; keep one", at)
			case r.Exe != "" && !filepath.IsAbs(r.Exe):
				bad(at, "%s: exe %q must be an absolute path", at, r.Exe)
			case r.ExeSHA256 != "" && len(r.ExeSHA256) != 64:
				bad(at, "%s: exe_sha256 must be 64 hexadecimal digits", at)
			}
		}
	}
}
