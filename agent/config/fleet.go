package config

import (
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// maxHostName is how long a host's name in the fleet may be, in bytes: no name of DNS is longer.
const maxHostName = 253

// FleetFault is what is wrong with how a member reaches its fleet, or calls itself there.
type FleetFault struct {
	Key  string // endpoints, prefix, ttl or name
	says string
}

// Of says what is wrong in one sentence. It calls the key as the user set it: fleet.prefix, or --fleet-prefix.
func (f FleetFault) Of(setting string) string {
	called := strings.NewReplacer(userKey, "fleet.user", passwordKey, "fleet.password_file")
	if strings.HasPrefix(setting, "--") {
		called = strings.NewReplacer(userKey, "--fleet-user", passwordKey, "--fleet-password-file")
	}
	return setting + " " + called.Replace(f.says)
}

// userKey and passwordKey stand in a fault for how the user sets them.
const userKey, passwordKey = "\x00user", "\x00password"

// Faults returns what is wrong with the addresses, prefix, TTL and name of a member of a fleet: an agent or a site
// server.
func (f *Fleet) Faults() (out []FleetFault) {
	bad := func(key, format string, args ...any) {
		out = append(out, FleetFault{key, fmt.Sprintf(format, args...)})
	}
	var plain, secure string
	for _, at := range f.Endpoints {
		if strings.Contains(at, "@") { // it is not quoted: what is before the @ may be a password
			bad("endpoints", "has an address with an @, and an address holds no user and no password; set %s and %s, "+
				"and leave them out of the address", userKey, passwordKey)
			continue
		}
		a, err := url.Parse(at)
		if !isServer(at) || strings.Trim(a.Path, "/") != "" || err != nil || !strings.HasPrefix(at, a.Scheme) {
			bad("endpoints", "has %q, and needs addresses such as https://etcd-1.example.com:2379", clip(at))
			continue
		}
		if a.Scheme == "https" {
			secure = at
		} else {
			plain = at
		}
	}
	if plain != "" && secure != "" { // the way to all of them would be as that to the first
		bad("endpoints", "has %q and %q, and all members of etcd must speak TLS, or none", clip(plain), clip(secure))
	}
	if !strings.HasPrefix(f.Prefix, "/") || !strings.HasSuffix(f.Prefix, "/") || len(f.Prefix) > 128 {
		bad("prefix", "is %q, and must begin and end with a /, such as /usher/", clip(f.Prefix))
	}
	if f.TTL < Duration(5*time.Second) || f.TTL > Duration(10*time.Minute) {
		bad("ttl", "is %v, and must be from 5s to 10m", f.TTL)
	}
	if len(f.Name) > maxHostName || strings.ContainsFunc(f.Name, unicode.IsControl) {
		bad("name", "is %q, and must be up to %d bytes without control characters", clip(f.Name), maxHostName)
	}
	return out
}
