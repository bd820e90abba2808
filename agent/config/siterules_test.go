package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/usher-agent/usher/enforcer"
)

func TestSiteRules(t *testing.T) {
	got, err := SiteRules("rules.yaml", []byte(`rules:
  - name: berlin
    match: {label: {site: berlin}, host: [b*]}
    not: {label: {role: test}}
    pools: [gpu*]
    except: [gpu-test]
    max: 10
    reserve: 5
`))
	want := enforcer.SiteRules{{Name: "berlin", Match: enforcer.SiteMatch{Host: []string{"b*"},
		Labels: map[string]string{"site": "berlin"}},
		Not:   enforcer.SiteMatch{Labels: map[string]string{"role": "test"}},
		Pools: []string{"gpu*"}, Except: []string{"gpu-test"}, Max: 10, Reserve: 5}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := SiteRules("rules.yaml", []byte("rules: []\n")); err != nil || len(got) != 0 {
		t.Errorf("no rules: %v, %v", got, err)
	}
	for text, says := range map[string]string{
		"": "rules: []", "rules:\n": "no value",
		"rules:\n- name: a\n  max: 1\n  lnger: 2\n": "rules.yaml:4: unknown key",
		"rules:\n- name: a\n":                       "rules.yaml:2: rules[0] (a): it does nothing",
		"rules:\n- name: a\n  max: 1\n- name: a\n  max: 1\n": "rules.yaml:4: rules[1] (a): there is a rule of " +
			"this name",
		"rules:\n- name: a\n  max: 1\n  reserve: 2\n":            "could never be used",
		"rules:\n- name: a\n  reserve: 2\n":                      "say for which",
		"rules:\n- name: a b\n  max: 2\n":                        "letters, digits",
		"rules:\n- name: a\n  max: 1\n  match: {label: {x: }}\n": "no value",
	} {
		if got, err := SiteRules("rules.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
