package agent

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// What an upstream says of the time counts where its licence is of the one system that tells the time here, and no test
// licence: else a plugin's false word would end the licences of all others.
func TestTimeIsOneSystems(t *testing.T) {
	t.Parallel()
	far, second := time.Now().AddDate(200, 0, 0), catalog.Systems()[1].Name
	for _, test := range []struct {
		name    string
		l       *enforcer.License
		anchors []plugin.Anchor
		moved   bool
	}{
		{"a native licence", &enforcer.License{System: "usher"}, []plugin.Anchor{{System: "usher"}}, true},
		{"a plugin's", &enforcer.License{System: "toy"}, []plugin.Anchor{{System: "usher"}, {System: "toy"}}, false},
		{"a plugin's, where there is no other system", &enforcer.License{System: "toy"},
			[]plugin.Anchor{{System: "toy"}}, false},
		{"another built-in system's", &enforcer.License{System: second},
			[]plugin.Anchor{{System: second}, {System: "usher"}}, false},
		{"another built-in system's, which is the only one", &enforcer.License{System: second},
			[]plugin.Anchor{{System: second}}, true},
		{"a test licence", &enforcer.License{System: "usher", Environment: enforcer.Test},
			[]plugin.Anchor{{System: "usher"}}, false},
		{"a test key's", &enforcer.License{System: "usher", AnchorEnvironment: enforcer.Test},
			[]plugin.Anchor{{System: "usher"}}, false},
		{"where only test keys are believed", &enforcer.License{System: "usher"},
			[]plugin.Anchor{{System: "usher", Environment: enforcer.Test}}, false},
		{"where the only key is revoked", &enforcer.License{System: "usher"},
			[]plugin.Anchor{{System: "usher", Revoked: true}}, false},
	} {
		a := &Agent{court: &court{}, desk: plainDesk(t)}
		a.court.trust(test.anchors)
		a.learnt(test.l, far)
		if moved := a.desk.Now().After(far.Add(-time.Hour)); moved != test.moved {
			t.Errorf("%s: the licence time is %v", test.name, a.desk.Now())
		}
	}
}

// A document that an upstream brings replaces licences of its own system alone, and none of a stronger environment,
// though its id be the same.
func TestRenewalKeepsToItsSystem(t *testing.T) {
	t.Parallel()
	private, _, err := issue.MakeKey(t.TempDir(), "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := signer.Sign(&usher.Claims{ID: "L1", Product: "acme", Licensee: "Blue Cinema",
		Issued: time.Now().Unix()})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		of          *enforcer.License
		environment enforcer.Environment // of the key that signs the document
		want        string
	}{
		{&enforcer.License{System: "toy", ID: "L1"}, "",
			"it is a licence of the system usher (production), and replaces none of the system toy (production)"},
		{&enforcer.License{System: "usher", ID: "L1"}, enforcer.Test,
			"it is a licence of the system usher (test), and replaces none of the system usher (production)"},
	} {
		a := &Agent{court: &court{catalog: catalog.BuiltIn()},
			desk: plainDesk(t)}
		anchor := signer.Anchor
		anchor.Environment = test.environment
		a.court.trust([]plugin.Anchor{anchor})
		if err := a.renewed(t.Context(), test.of, doc); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

// plainDesk is a desk that keeps nothing.
func plainDesk(t *testing.T) *desk.Desk {
	t.Helper()
	d, err := desk.New(desk.Options{Now: time.Now, Observer: metrics.New(metrics.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
