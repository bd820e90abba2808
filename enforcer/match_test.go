package enforcer

import (
	"slices"
	"testing"
)

func TestMatchHost(t *testing.T) {
	host := Host{Components: map[string][]string{"a": {"a1"}, "b": {"b1", "b2"}, "c": {"c1"}, "d": {}},
		Absent: map[string]string{"e": "no permission to read it"}}
	good := map[string][]string{"a": {"a1"}, "b": {"b9", "b2"}, "c": {"c1"}}
	binding := func(bad ...string) map[string][]string {
		out := map[string][]string{}
		for k, v := range good {
			out[k] = v
		}
		for _, k := range bad {
			out[k] = []string{"zz"}
		}
		return out
	}
	for _, row := range []struct {
		name       string
		components map[string][]string
		signed     Strategy
		configured Strategy
		ok         bool
		matched    int
	}{
		{"all of three", binding(), MatchAll, "", true, 3},
		{"two of three is not all", binding("c"), MatchAll, "", false, 2},
		{"two of three is most", binding("c"), MatchMost, "", true, 2},
		{"two of three is two", binding("c"), MatchTwo, "", true, 2},
		{"one of three is not two", binding("b", "c"), MatchTwo, "", false, 1},
		{"one of three is any", binding("b", "c"), MatchAny, "", true, 1},
		{"none of three is not any", binding("a", "b", "c"), MatchAny, "", false, 0},
		{"half is not most", map[string][]string{"a": {"a1"}, "b": {"zz"}}, MatchMost, "", false, 1},
		{"most where nothing is said", map[string][]string{"a": {"a1"}, "b": {"zz"}}, "", "", false, 1},
		{"most where an unknown word is said", map[string][]string{"a": {"a1"}, "b": {"zz"}}, "perhaps", "", false, 1},
		{"two where one is named", map[string][]string{"a": {"a1"}}, MatchTwo, "", true, 1},
		{"the configured stricter one", binding("c"), MatchMost, MatchAll, false, 2},
		{"a configured looser one does nothing", binding("b", "c"), MatchAll, MatchAny, false, 1},
		{"nothing named matches nothing: any", nil, MatchAny, "", false, 0},
		{"nothing named matches nothing: two", nil, MatchTwo, "", false, 0},
		{"nothing named matches nothing: most", nil, MatchMost, "", false, 0},
		{"nothing named matches nothing: all", nil, MatchAll, "", false, 0},
		{"a component without values", map[string][]string{"a": {}}, MatchAny, "", false, 0},
		{"an empty value matches no empty value", map[string][]string{"x": {""}}, MatchAny, "", false, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := host
			h.Components = map[string][]string{"x": {""}}
			for k, v := range host.Components {
				h.Components[k] = v
			}
			m := MatchHost(HostBinding{Components: row.components, Strategy: row.signed}, row.configured, h)
			if m.OK != row.ok || m.Matched != row.matched || m.Of != len(row.components) || !m.Bound ||
				len(m.Misses) != m.Of-m.Matched {
				t.Errorf("%+v, want ok %t with %d matched", m, row.ok, row.matched)
			}
		})
	}
	m := MatchHost(HostBinding{Components: map[string][]string{"e": {"1"}, "d": {"1"}, "c": {"1"}}}, "", host)
	if want := []string{"c: differs from the licensed host's", "d: absent here",
		"e: absent here: no permission to read it"}; !slices.Equal(m.Misses, want) {
		t.Errorf("misses %q", m.Misses)
	}
}

func TestMatchHostsTakesTheBest(t *testing.T) {
	h := Host{Components: map[string][]string{"a": {"1"}, "b": {"1"}, "c": {"1"}}}
	binding := func(s Strategy, a, b, c string) HostBinding {
		return HostBinding{Strategy: s, Components: map[string][]string{"a": {a}, "b": {b}, "c": {c}}}
	}
	for _, row := range []struct {
		name    string
		hosts   []HostBinding
		ok      bool
		matched int
	}{
		{"none named", nil, false, 0},
		{"this one second", []HostBinding{binding("", "0", "0", "0"), binding("", "1", "1", "1")}, true, 3},
		{"the nearest of those that do not fit", []HostBinding{binding("", "0", "0", "0"), binding("", "1", "0", "0")},
			false, 1},
		{"one that fits before one that is nearer",
			[]HostBinding{binding(MatchAll, "1", "1", "0"), binding(MatchAny, "1", "0", "0")}, true, 1},
		{"one that fits stays before one that does not",
			[]HostBinding{binding(MatchAny, "1", "0", "0"), binding(MatchAll, "1", "1", "0")}, true, 1},
	} {
		m := matchHosts(&License{Hosts: row.hosts}, "", h)
		if m.OK != row.ok || m.Matched != row.matched || m.Bound != (len(row.hosts) > 0) {
			t.Errorf("%s: %+v", row.name, m)
		}
	}
	if s := (HostMatch{}).Score(); s != 1 {
		t.Errorf("a licence bound to no host scores %v", s)
	}
}

// The configuration's word on a host never stands in for a measurement, and makes no match alone unless the licence
// says so or names nothing else. It never makes a binding looser than it was signed.
func TestConfiguredComponents(t *testing.T) {
	h := Host{Components: map[string][]string{"machine-id": {"other"}, "mac": {"m"}},
		Absent: map[string]string{"board-serial": "no number"},
		Configured: map[string][]string{"machine-id": {"id"}, "board-serial": {"b"}, "tpm-ek": {"t"}, "cluster": {"c"},
			"zone": {"z"}}}
	for _, row := range []struct {
		name   string
		b      HostBinding
		ok     bool
		counts bool // with CountConfigured
	}{
		{"a measured one", HostBinding{Components: map[string][]string{"machine-id": {"id"}}, Strategy: MatchAny},
			false, false},
		{"one that is absent here",
			HostBinding{Components: map[string][]string{"board-serial": {"b"}}, Strategy: MatchAny}, false, false},
		{"one that no host here has", HostBinding{Components: map[string][]string{"tpm-ek": {"t"}}, Strategy: MatchAny},
			false, false},
		{"configured alone", HostBinding{Components: map[string][]string{"cluster": {"c"}}}, true, true},
		{"configured alone, another", HostBinding{Components: map[string][]string{"cluster": {"x"}}}, false, false},
		{"any, by the configured one", HostBinding{Components: map[string][]string{"machine-id": {"id"},
			"cluster": {"c"}}, Strategy: MatchAny}, false, true},
		{"most, by the configured ones", HostBinding{Components: map[string][]string{"machine-id": {"id"},
			"cluster": {"c"}, "zone": {"z"}}}, false, true},
		{"two, by one of each", HostBinding{Components: map[string][]string{"mac": {"m"}, "cluster": {"c"}},
			Strategy: MatchTwo}, true, true},
		{"all of both", HostBinding{Components: map[string][]string{"mac": {"m"}, "cluster": {"c"}},
			Strategy: MatchAll}, true, true},
		{"all, and the configured one differs", HostBinding{Components: map[string][]string{"mac": {"m"},
			"cluster": {"x"}}, Strategy: MatchAll}, false, false},
		{"most, and the configured ones differ",
			HostBinding{Components: map[string][]string{"mac": {"m"}, "cluster": {"x"}, "zone": {"x"}}}, false, false},
	} {
		if m := MatchHost(row.b, "", h); m.OK != row.ok || !m.OK && len(m.Misses) == 0 {
			t.Errorf("%s: %+v, want %t", row.name, m, row.ok)
		}
		row.b.CountConfigured = true
		if m := MatchHost(row.b, "", h); m.OK != row.counts {
			t.Errorf("%s, counting: %+v, want %t", row.name, m, row.counts)
		}
	}
}
