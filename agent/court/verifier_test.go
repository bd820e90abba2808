package court

import (
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// An upstream's word of the time counts where its licence is of the one system that tells the time here, and no test
// licence: else a plugin's false word would end the licences of all others.
func TestTimeIsOneSystems(t *testing.T) {
	t.Parallel()
	second := catalog.Systems()[1].Name
	for _, test := range []struct {
		name    string
		l       *enforcer.License
		anchors []plugin.Anchor
		tells   bool
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
		v := NewVerifier(VerifierConfig{Catalog: catalog.BuiltIn(), Anchors: test.anchors})
		if tells := v.TellsTime(test.l); tells != test.tells {
			t.Errorf("%s: %t", test.name, tells)
		}
	}
}
