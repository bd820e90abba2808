package inspect

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
)

// A check without an agent names a dialect that there is not.
func TestInspectNamesUnknownDialects(t *testing.T) {
	c, err := config.Load(config.Source{Data: []byte("listeners: [{address: /run/a, dialect: plain}]\n")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Configured(c); err == nil ||
		!strings.Contains(err.Error(), `there is no dialect "plain" (known: `) {
		t.Errorf("a check says %v", err)
	}
}

// A check says of a site's pools and meters that they cannot be handed out, but of those that a fleet or a site server
// gives.
func TestChecksWhatIsShared(t *testing.T) {
	named := &enforcer.License{ID: "n", SiteServer: "key"}
	const all = "streams renders n:streams n:renders" // n is a licence with a site server
	for section, want := range map[string]string{
		"{}": "",
		"fleet: {endpoints: ['http://127.0.0.1:1']}":                                all,
		"fleet: {endpoints: ['http://127.0.0.1:1'], pools: [streams, renders]}":     all,
		"fleet: {endpoints: ['http://127.0.0.1:1'], pools: [streams]}":              "streams n:streams",
		"upstream: {pools_url: 'https://site.example.com'}":                         "n:streams n:renders",
		"upstream: {pools_urls: ['https://a.example.com','https://b.example.com']}": "n:streams n:renders",
	} {
		c, err := config.Load(config.Source{Data: []byte(section + "\n")})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		shared := sharing(c)
		for _, l := range []*enforcer.License{{}, named} {
			for _, name := range []string{"streams", "renders"} {
				if shared(l, name) {
					got = append(got, strings.TrimPrefix(l.ID+":"+name, ":"))
				}
			}
		}
		if is := strings.Join(got, " "); is != want {
			t.Errorf("%s: shared is %q, want %q", section, is, want)
		}
	}
}

// The warning of a check names only what is not shared.
func TestJudgesWhatIsShared(t *testing.T) {
	l := &enforcer.License{System: "usher", ID: "a", Product: "acme",
		Pools: map[string]enforcer.PoolTerm{"gpu": {Max: 4}, "streams": {Max: 10}}}
	f := enforcer.Facts{Products: []string{"acme"}, Documents: []enforcer.Document{{Name: "a.lic", License: l}}}
	f.Budgets = shares(f.Documents, func(_ *enforcer.License, name string) bool { return name == "streams" })
	v := enforcer.Judge(f, time.Now())
	i := slices.IndexFunc(v.Warnings, func(w enforcer.Warning) bool { return w.Code == enforcer.WarnNotShared })
	if i < 0 || !strings.Contains(v.Warnings[i].Detail, ": gpu cannot be handed out") {
		t.Errorf("the warnings are %+v of %+v", v.Warnings, v)
	}
}
