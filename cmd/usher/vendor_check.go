package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
)

// noEmptyFlags refuses a flag that is given without a value: an unset variable of a script would sign a term away.
func noEmptyFlags(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		if len(values) == 0 {
			values = []string{""}
		}
		if err == nil && slices.ContainsFunc(values, func(v string) bool { return strings.TrimSpace(v) == "" }) {
			err = usage("--%s is given without a value; leave it out, or give one", f.Name)
		}
	})
	return err
}

// claimFlags are the flags of sign for claims that have another name.
var claimFlags = map[string]string{"jti": "id", "iss": "issuer", "iat": "issued", "nbf": "not-before", "exp": "expires",
	"add_on_to": "add-on", "pools": "limit", "meters": "meter", "features": "feature", "cnf": "agent-key",
	"agent_keys": "agent-key", "revokes": "revoke", "hosts": "bind"}

// claimRule finds the claim and the member of it that an error is about.
var claimRule = regexp.MustCompile(`claim "([a-z_]+)(?:[^"]*\.([a-z_]+))?"`)

// nameFlag puts the flag before an error about the claim that it made.
func nameFlag(cmd *cobra.Command, err error) error {
	m := claimRule.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	for _, claim := range []string{m[2], m[1]} {
		name, ok := claimFlags[claim]
		if !ok {
			name = strings.ReplaceAll(strings.TrimSuffix(claim, "_seconds"), "_", "-")
		}
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			return usage("--%s: %w", name, err)
		}
	}
	return err
}

// warnAbout tells the vendor what is odd about a licence that was signed.
func (c *cli) warnAbout(claims *usher.Claims, l *enforcer.License, now time.Time) {
	warn := func(format string, args ...any) { fprintf(c.errs, "warning: "+format+"\n", args...) }
	if claims.Expires != 0 && claims.Expires <= now.Unix() {
		warn("the licence has already expired, at %s", time.Unix(claims.Expires, 0).UTC().Format(time.RFC3339))
	}
	if claims.Issued > now.Unix()+60 {
		warn(
			"the licence is dated %s, which has not come yet: an agent counts it from then on; give --not-before for "+
				"a later start", time.Unix(claims.Issued, 0).UTC().Format(time.RFC3339))
	}
	for _, s := range unhelpful(l) {
		warn("%s", s)
	}
}

// kindOf names what a document is.
func kindOf(claims *usher.Claims) string {
	switch {
	case claims.Role != string(enforcer.RoleNotice):
		return "licence"
	case len(claims.Revokes) > 0:
		return "notice"
	default:
		return "time document"
	}
}

// unhelpful says of which limits nobody will be granted anything.
func unhelpful(l *enforcer.License) (out []string) {
	if l == nil {
		return nil
	}
	var none []string
	for name, p := range l.Pools {
		if p.Max.Plus(p.Overage) == 0 {
			none = append(none, name)
		}
	}
	for name, m := range l.Meters {
		if m.Max.Plus(m.Overage) == 0 {
			none = append(none, name)
		}
	}
	if slices.Sort(none); len(none) > 0 {
		out = append(out, fmt.Sprintf("nobody is granted anything of %s: the limit is 0", strings.Join(none, ", ")))
	}
	names := slices.Sorted(maps.Keys(l.SitePools()))
	names = append(names, slices.Sorted(maps.Keys(l.SiteMeters()))...)
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(none, n) })
	if len(names) == 0 || l.SiteServer != "" {
		return out
	}
	return append(out, fmt.Sprintf(
		"an agent grants nothing of %s by itself: the limit is a whole site's, and the licence names no one "+
			"host; bind it to the host (--bind) or give --scope host, unless a site server, a fleet or an upstream "+
			"shares it out",
		strings.Join(names, ", ")))
}
