package config

import (
	"fmt"

	"github.com/usher-agent/usher/enforcer"
)

// siteRules is a file of rules for hosts.
type siteRules struct {
	Rules []siteRule `yaml:"rules"`
}

type siteRule struct {
	Name    string    `yaml:"name"`
	Match   siteMatch `yaml:"match"`
	Not     siteMatch `yaml:"not"`
	Pools   []string  `yaml:"pools"`
	Except  []string  `yaml:"except"`
	Max     int64     `yaml:"max"`
	Reserve int64     `yaml:"reserve"`
}

type siteMatch struct {
	Host  []string          `yaml:"host"`
	Label map[string]string `yaml:"label"`
}

func (m siteMatch) match() enforcer.SiteMatch {
	return enforcer.SiteMatch{Host: m.Host, Labels: m.Label}
}

// SiteRules reads a file of rules for the hosts among which a site server or a fleet shares pools out. file is its name
// in messages. Each fault names its line.
func SiteRules(file string, data []byte) (enforcer.SiteRules, error) {
	d := &decoder{config: &Config{origins: map[string]string{}}, file: file}
	var in siteRules
	d.document(data, &in)
	if err := joined(d.faults); err != nil {
		return nil, err
	}
	if in.Rules == nil {
		return nil, &Error{Place: file, Text: "it has no rules; an empty list, rules: [], ends all that there are"}
	}
	out := enforcer.SiteRules{}
	for i, r := range in.Rules {
		rule := enforcer.SiteRule{Name: r.Name, Match: r.Match.match(), Not: r.Not.match(), Pools: r.Pools,
			Except: r.Except, Max: r.Max, Reserve: r.Reserve}
		key := fmt.Sprintf("rules[%d]", i)
		fault := func(format string, args ...any) {
			d.fault(d.config.place(key), key, "%s (%s): %s", key, clip(r.Name), fmt.Sprintf(format, args...))
		}
		if !policyName.MatchString(r.Name) {
			fault("name must be 1 to 64 letters, digits, dots, dashes and underscores; denials name the rule by it")
		} else if err := rule.Check(); err != nil {
			fault("%v", err)
		}
		for _, before := range out {
			if before.Name == rule.Name {
				fault("there is a rule of this name already; give each its own")
			}
		}
		out = append(out, rule)
	}
	if err := joined(d.faults); err != nil {
		return nil, err
	}
	return out, out.Check()
}
