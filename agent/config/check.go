package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/catalog"
)

// maxSocketPath is the longest path that a socket address takes on Linux, in bytes: unix(7).
const maxSocketPath = 107

// Validate checks what single values cannot tell. Its error joins all faults, each an [*Error]. Load calls it already.
func (c *Config) Validate() error { return joined(c.check()) }

// joined returns faults as one error; nil for none.
func joined(faults []*Error) error {
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return errors.Join(errs...)
}

// place returns where a key was set, or the section that it stands in, in the form of messages.
func (c *Config) place(key string) string {
	for key != "" {
		if _, place, ok := strings.Cut(c.origins[key], " "); ok {
			return place
		}
		if i := strings.LastIndexAny(key, ".["); i >= 0 {
			key = key[:i]
		} else {
			key = ""
		}
	}
	return ""
}

// remark notes what is good of itself, and yet not what anybody means.
func (c *Config) remark() {
	note := func(key, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if place := c.place(key); place != "" {
			text = place + ": " + text
		}
		c.notes = append(c.notes, text)
	}
	for _, own := range [][2]string{{"state.dir", c.State.Dir}, {"state.runtime_dir", c.State.RuntimeDir}} {
		if filepath.Clean(own[1]) == filepath.Clean(c.License.Path) {
			note("license.path", "license.path is %s, which is %s, too: the agent's own files lie among the licences; "+
				"give each a folder of its own", clip(own[1]), own[0])
		}
	}
	if c.Socket.Mode&0o600 != 0o600 {
		note("socket.mode", "socket.mode is %04o, so that the agent's own user may not connect; it is read as octal, "+
			"such as \"0660\"", uint32(c.Socket.Mode))
	}
}

// related reports that two keys are one, or that one is above the other.
func related(a, b string) bool {
	below := func(a, b string) bool { return a == b || strings.HasPrefix(b, a+".") || strings.HasPrefix(b, a+"[") }
	return a != "" && b != "" && (below(a, b) || below(b, a))
}

// Nearest returns the candidate that is most like a word; empty: none is like it.
func Nearest(word string, candidates []string) string {
	best, least := "", 4
	for _, c := range candidates {
		if d := distance(word, c); d < least && d <= len(c)/2 {
			best, least = c, d
		}
	}
	return best
}

type checker struct {
	config *Config
	faults []*Error
}

func (k *checker) bad(key, format string, args ...any) {
	k.faults = append(k.faults, &Error{Place: k.config.place(key), Key: key, Text: fmt.Sprintf(format, args...)})
}

func (k *checker) oneOf(key, value string, of ...string) {
	if value == "" || slices.Contains(of, value) {
		return
	}
	hint := Nearest(value, of)
	if hint != "" {
		hint = fmt.Sprintf("; did you mean %q?", hint)
	}
	k.bad(key, "%s is %q, and must be one of %s%s", key, clip(value), strings.Join(of, ", "), hint)
}

func (c *Config) check() []*Error {
	k := &checker{config: c}
	k.license()
	k.socket()
	k.plugins()
	k.listeners()
	k.groups()
	k.policies()
	k.fleet()
	k.rest()
	return k.faults
}

func (k *checker) license() {
	for _, p := range k.config.Product {
		if p == "" || len(p) > 256 {
			k.bad("product", "product holds a name that is empty or longer than 256 bytes")
		}
	}
	l := k.config.License
	if l.Path == "" {
		k.bad("license.path", "license.path is empty; name the folder, or the file, of the licence")
	}
	k.oneOf("license.on_expiry", l.OnExpiry, "drain", "revoke", "keep")
	k.oneOf("license.strategy", l.Strategy, "any", "two", "most", "all")
	k.oneOf("license.clock", l.Clock, "lenient", "strict")
	if err := enforcer.CountBy(l.CountBy).Check(); err != nil {
		k.bad("license.count_by", "license.count_by: %v", err)
	}
	for i, t := range l.Trust {
		key := fmt.Sprintf("license.trust[%d]", i)
		switch {
		case t.KeyID == "":
			k.bad(key, "%s: kid is missing; give the id that licences name the key by", key)
		case t.Key == "" && t.KeyFile == "" && !catalog.Keyless(t.System, t.Algorithm):
			k.bad(key, "%s (%s): the key is missing; give key_file, or key", key, clip(t.KeyID))
		case t.Key != "" && t.KeyFile != "":
			k.bad(key, "%s (%s): key and key_file are both given; keep one", key, clip(t.KeyID))
		case t.System == "" || t.System != strings.ToLower(t.System):
			k.bad(key, "%s (%s): system is %q, and must be a name in lower case, such as usher", key, clip(t.KeyID),
				clip(t.System))
		case !t.NotAfter.IsZero() && t.NotAfter.Before(t.NotBefore):
			k.bad(key, "%s (%s): not_after is before not_before; mend one of them", key, clip(t.KeyID))
		}
		k.oneOf(key+".environment", t.Environment, "production", "test")
	}
}

func (k *checker) socket() {
	s := k.config.Socket
	switch n := len(s.Path); {
	case n == 0:
		k.bad("socket.path", "socket.path is empty; name the socket, such as /run/usher/usher.sock")
	case n > maxSocketPath:
		k.bad("socket.path", "socket.path has %d bytes, and the kernel takes at most %d; choose a shorter one", n,
			maxSocketPath)
	}
	switch {
	case s.Mode > 0o777:
		k.bad("socket.mode", "socket.mode is %#o, and must be within 0777", uint32(s.Mode))
	case s.Mode&0o222 == 0:
		k.bad("socket.mode",
			"socket.mode %04o lets nobody connect: to connect needs write permission; the default is 0660",
			uint32(s.Mode))
	}
	k.rules("socket.allow", s.Allow)
	k.rules("socket.admin", s.Admin)
}

func (k *checker) rules(list string, rules []Rule) {
	for i, r := range rules {
		key := fmt.Sprintf("%s[%d]", list, i)
		digest, err := hex.DecodeString(r.ExeSHA256)
		switch {
		case r == (Rule{}):
			k.bad(key, "%s is empty, and would match nobody; give uid, gid, user, group, exe or exe_sha256", key)
		case r.UID != nil && r.User != "":
			k.bad(key, "%s: uid and user are both given; keep one", key)
		case r.GID != nil && r.Group != "":
			k.bad(key, "%s: gid and group are both given; keep one", key)
		case r.Exe != "" && !filepath.IsAbs(r.Exe):
			k.bad(key, "%s: exe %q must be an absolute path", key, clip(r.Exe))
		case r.ExeSHA256 != "" && (err != nil || len(digest) != 32):
			k.bad(key, "%s: exe_sha256 must be 64 hexadecimal digits, as sha256sum prints them", key)
		}
	}
}

func (k *checker) plugins() {
	seen := map[string]bool{}
	for i, p := range k.config.Plugins {
		key := fmt.Sprintf("plugins[%d]", i)
		digest, err := hex.DecodeString(p.SHA256)
		switch {
		case p.Name == "":
			k.bad(key, "%s: name is missing; give that of the plugin's licence system", key)
		case seen[p.Name]:
			k.bad(key, "%s: there is a plugin %s already; leave one of them out", key, clip(p.Name))
		case !filepath.IsAbs(p.Path):
			k.bad(key, "%s (%s): path is %q, and must be an absolute path", key, clip(p.Name), clip(p.Path))
		case err != nil || len(digest) != 32:
			k.bad(key, "%s (%s): sha256 must be 64 hexadecimal digits, as sha256sum %s prints them", key, clip(p.Name),
				clip(p.Path))
		}
		seen[p.Name] = true
	}
}

func (k *checker) fleet() {
	f := k.config.Fleet
	if len(f.Endpoints) == 0 {
		if len(f.Pools)+len(f.Labels) > 0 || f.Name+f.User+f.PasswordFile+f.CAFile+f.CertFile+f.KeyFile != "" {
			k.bad("fleet",
				"fleet.endpoints is missing, and the other keys of fleet are for it; set it, or leave them out")
		}
		return
	}
	for _, x := range f.Faults() {
		k.bad("fleet."+x.Key, "%s", x.Of("fleet."+x.Key))
	}
	for i, pool := range f.Pools { // the licence is not known here; FleetRemarks of the agent looks at that
		if key := fmt.Sprintf("fleet.pools[%d]", i); pool == "" || len(pool) > 64 {
			k.bad(key, "%s is %q, and needs the name of a pool or meter, of at most 64 bytes", key, clip(pool))
		}
	}
	if f.OnPartition != PartitionStop && f.OnPartition != PartitionKeep {
		k.bad("fleet.on_partition", "fleet.on_partition is %q, and must be stop or keep_held", clip(f.OnPartition))
	}
	if f.KeepHeld < Duration(time.Second) || f.KeepHeld > Duration(24*time.Hour) {
		k.bad("fleet.keep_held", "fleet.keep_held is %v, and must be from 1s to 24h", f.KeepHeld)
	}
	if err := enforcer.CheckHostLabels(f.Labels); err != nil {
		k.bad("fleet.labels", "fleet.labels: %v", err)
	}
	if (f.CertFile == "") != (f.KeyFile == "") {
		k.bad("fleet", "fleet.cert_file and fleet.key_file go together; set both, or neither")
	}
	if (f.User == "") != (f.PasswordFile == "") {
		k.bad("fleet", "fleet.user and fleet.password_file go together; set both, or neither")
	}
}

// isServer reports whether a text is an address of a server.
func isServer(at string) bool {
	a, err := url.Parse(at)
	if err != nil || a.Hostname() == "" {
		return false
	}
	if port := a.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
	}
	return (a.Scheme == "https" || a.Scheme == "http") && a.User == nil && a.RawQuery == ""
}

func (k *checker) rest() {
	c := k.config
	if c.State.Dir == "" {
		k.bad("state.dir", "state.dir is empty; name the folder that the agent keeps its state in")
	}
	if c.State.RuntimeDir == "" {
		k.bad("state.runtime_dir",
			"state.runtime_dir is empty; name a folder that is emptied at boot, such as /run/usher")
	}
	if c.Host.Every < Duration(time.Second) {
		k.bad("host.every", "host.every is %v, and must be at least 1s", c.Host.Every)
	}
	for name, value := range c.Host.Components {
		if name == "" || value == "" {
			k.bad("host.components", "host.components holds an empty name or value; leave it out")
			break
		}
	}
	if a := c.Ops.Listen; a != "" {
		_, port, err := net.SplitHostPort(a)
		if _, numErr := strconv.ParseUint(port, 10, 16); err != nil || numErr != nil {
			k.bad("ops.listen", "ops.listen is %q, and must be host:port, such as 127.0.0.1:9871", clip(a))
		}
	}
	if c.Ops.WebConfig != "" && c.Ops.Listen == "" {
		k.bad("ops.web_config",
			"ops.web_config is set without ops.listen, which it is for; set that too, or leave it out")
	}
	u := c.Upstream
	addresses := map[string]string{"upstream.url": u.URL, "upstream.pools_url": u.PoolsURL}
	for _, at := range u.PoolsURLs {
		if addresses["upstream.pools_urls"] = at; !isServer(at) {
			break
		}
	}
	for key, at := range addresses {
		if at != "" && !isServer(at) || at == "" && key == "upstream.pools_urls" {
			k.bad(key, "%s must be an address such as https://licences.example.com, without user and query", key)
		}
	}
	if u.URL == "" && u.PoolsURL == "" && len(u.PoolsURLs) == 0 &&
		(u.CAFile != "" && len(u.Systems.Used()) == 0 || u.ClientCertFile != "" ||
			u.ClientKeyFile != "" || u.EnrolmentFile != "") {
		k.bad("upstream",
			"upstream.url and upstream.pools_url are missing, and the other keys of upstream are for them; set one, "+
				"or leave them out")
	}
	for _, section := range slices.Sorted(maps.Keys(u.Systems)) {
		u.Systems[section].Check(func(key, text string) {
			section := "upstream." + section
			if key != "" {
				section += "." + key
			}
			k.bad(section, "%s", text)
		})
	}
	if (u.ClientCertFile == "") != (u.ClientKeyFile == "") {
		k.bad("upstream", "upstream.client_cert_file and upstream.client_key_file go together; set both, or neither")
	}
	if u.Timeout < Duration(time.Second) || u.Timeout > Duration(10*time.Minute) {
		k.bad("upstream.timeout", "upstream.timeout is %v, and must be from 1s to 10m", u.Timeout)
	}
	if c.Limits.ConnectionsPerUID < 0 || c.Limits.LeasesPerUID < 0 {
		k.bad("limits", "limits are negative; give 0 for the default")
	}
	if c.Privacy.Users == "" {
		k.bad("privacy.users", "privacy.users is empty; leave it out for the default, omit")
	}
	k.oneOf("privacy.users", c.Privacy.Users, "omit", "pseudonym", "plain")
	if n := c.Events.LeasesMiB; n < MinLeasesMiB || n > MaxLeasesMiB {
		k.bad("events.leases_mib", "events.leases_mib is %d, and must be from %d to %d", n, MinLeasesMiB, MaxLeasesMiB)
	}
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "text", "json")
	if c.Log.Level == "" || c.Log.Format == "" {
		k.bad("log", "log.level or log.format is empty; leave it out for the default")
	}
}
