package config

import (
	"strings"
	"testing"
	"time"
)

// A rule with a fault is named with its line, its cause and the mend.
func TestPolicyFaults(t *testing.T) {
	for _, c := range []struct{ name, rule, want string }{
		{"no name", `{max: 1}`, `usher.yaml:3: policies[0]: name is ""`},
		{"no verb", `{name: a}`, "policies[0] (a): it does nothing; give deny, reserve"},
		{"misspelt verb", `{name: a, resrve: 1}`,
			`unknown key "policies[0].resrve"; did you mean "policies[0].reserve"?`},
		{"deny with others", `{name: a, deny: true, max: 3}`, "deny gives nothing, so that max has no effect"},
		{"max 0", `{name: a, max: 0, linger: 1m}`, "max is 0; to give nothing, use deny: true"},
		{"negative", `{name: a, max: -1}`, "must be a whole number from 0 on"},
		{"reserve 0", `{name: a, reserve: 0, match: {uid: [1]}}`, "reserve is 0; leave it out"},
		{"reserve for all", `{name: a, reserve: 1}`, "without match and not everybody does"},
		{"reserve over max", `{name: a, reserve: 3, max: 2, match: {uid: [1]}}`, "reserve 3 is more than max 2"},
		{"per alone", `{name: a, per: user, linger: 1m}`, "per goes with max"},
		{"per what", `{name: a, per: usr, max: 1}`, `must be one of user, host, pod; did you mean "user"?`},
		{"priority", `{name: a, priority: 101}`, "priority is 101, and must be from 1 to 100"},
		{"linger", `{name: a, linger: 25h}`, "linger is 1 day 1 hour, and must be from 1 second to 1 day"},
		{"both borrows", `{name: a, no_borrow: true, max_borrow: 1h}`, "no_borrow and max_borrow are both given"},
		{"low water", `{name: a, no_borrow: true, borrow_low_water: 1}`, "no_borrow and borrow_low_water are both"},
		{"no borrow by 0", `{name: a, max_borrow: 0s}`, "max_borrow is 0; to let nobody borrow, use no_borrow"},
		{"text of none", `{name: a, text: hello, linger: 1m}`, "text is told where the rule denies something"},
		{"unknown group", `{name: a, max: 1, match: {user: ["@drawrs"]}}`,
			`usher.yaml:3: policies[0] (a): match.user names the group "@drawrs", which there is not; ` +
				`did you mean "@drawers"?`},
		{"bad except", `{name: a, max: 1, except: [""]}`, `except has "", and needs names of pools`},
		{"bad uid", `{name: a, max: 1, not: {uid: [9-1]}}`, `not.uid: "9-1" is no uid and no range of them`},
		{"group as uid", `{name: a, max: 1, match: {uid: ["@drawers"]}}`, "groups hold names, so use user"},
		{"empty entry", `{name: a, max: 1, match: {exe: [""]}}`, "match.exe has an empty text"},
		{"empty list", `{name: a, max: 1, match: {user: []}}`, "match.user is an empty list"},
		{"empty label", `{name: a, max: 1, not: {label: {}}}`, "not.label is empty"},
		{"empty pools", `{name: a, max: 1, pools: []}`, "pools is an empty list"},
		{"twice", "{name: a, max: 1}\n  - {name: a, max: 2}",
			"usher.yaml:4: policies[1] (a): there is a rule a already"},
		{"list", `{name: a, max: 1, match: {user: ann}}`,
			"policies[0].match.user is a single value, and must be a list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(Source{File: "usher.yaml",
				Data: []byte("groups: [{name: drawers, members: [ann]}]\npolicies:\n  - " + c.rule + "\n")})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestGroupFaults(t *testing.T) {
	for group, want := range map[string]string{
		`{members: [a]}`:             `groups[0]: name is ""`,
		`{name: g}`:                  "groups[0] (g): members is missing",
		`{name: g, members: ["@h"]}`: "a group names its members, and no other group",
		"{name: g, members: [a]}, {name: g, members: [b]}": "there is a group g already",
	} {
		if _, err := Load(Source{Data: []byte("groups: [" + group + "]\n")}); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", group, err, want)
		}
	}
}

// A change of the rules is taken over by a running agent.
func TestPoliciesReload(t *testing.T) {
	before := load(t, "policies: [{name: a, max: 1}]\n")
	after := load(t, "groups: [{name: g, members: [x]}]\npolicies: [{name: a, max: 2}, {name: b, linger: 5m}]\n")
	taken, restart := Diff(before, after)
	if got := strings.Join(taken, " "); len(restart) > 0 || got != "groups[g] policies[a] policies[b]" {
		t.Errorf("taken %v, restart %v", taken, restart)
	}
	if got := before.Reloaded(after); len(got.Policies) != 2 || got.Policies[1].Linger.Duration() != 5*time.Minute ||
		len(got.Groups) != 1 {
		t.Errorf("got %+v", got)
	}
}

// A reload names each rule that is new, gone or changed once, whatever place it has in the file.
func TestPoliciesDiff(t *testing.T) {
	const a, b, c = "{name: a, max: 1}", "{name: b, linger: 1m}", "{name: c, deny: true}"
	for _, x := range []struct{ before, after, want string }{
		{a, a, ""},
		{a, a + "," + b, "policies[b]"},
		{a + "," + b, c + "," + a + "," + b, "policies[c]"},
		{c + "," + a + "," + b, a + "," + b, "policies[c]"},
		{a + "," + b, b + "," + a, "policies"},
		{a, "{name: a, max: 2}", "policies[a]"},
		{"{name: a, max: 1, match: {user: [x], label: {k: v}}}", "{name: a, max: 1, match: {user: [y], label: {k: v}}}",
			"policies[a]"},
		{"{name: a, overage_max: 0}", "{name: a, overage_max: 0, max: 1}", "policies[a]"},
		{"{name: a, max: 1}", "{name: a, max: 1, overage_max: 0}", "policies[a]"},
		{a, "", "policies[a]"},
	} {
		taken, restart := Diff(load(t, "policies: ["+x.before+"]\n"), load(t, "policies: ["+x.after+"]\n"))
		if got := strings.Join(taken, " "); got != x.want || len(restart) > 0 {
			t.Errorf("from %s to %s: taken %q, restart %v, want %q", x.before, x.after, got, restart, x.want)
		}
	}
}
