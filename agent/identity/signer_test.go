package identity

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
)

func newSigner(t *testing.T) *Signer {
	t.Helper()
	key, err := File{Path: filepath.Join(t.TempDir(), "agent.key")}.Load()
	if err != nil {
		t.Fatal(err)
	}
	words, err := OpenAttestations(filepath.Join(t.TempDir(), "activations.json"))
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{Key: key, Attestations: words, Product: func() string { return "acme" },
		Now: func() time.Time { return time.Unix(1_000_000_000, 0) }}
}

// Licences in force vouch for the key, the first one first: by their document where that names it, or else by the word
// of an activation. A document that only admins may see vouches to admins alone, and the others are told.
func TestKeysAreVouchedFor(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	if err := s.Attestations.Set(online.WordFor("activated", false), "word"); err != nil {
		t.Fatal(err)
	}
	judged := func(id, system string, keys ...string) enforcer.Judged {
		return enforcer.Judged{Document: id, InForce: true,
			License: &enforcer.License{ID: id, System: system, AgentKeys: keys}}
	}
	former := judged("former", "toy", s.KeyID())
	former.InForce = false
	v := &enforcer.Verdict{Licenses: []enforcer.Judged{former, judged("bound", "toy", s.KeyID()),
		judged("activated", usher.System), judged("activated", "toy"), judged("another's", "toy", "another"),
		{Document: "garbage", InForce: true}}}
	document := func(name string) []byte { return []byte("mail to somebody@example.com: " + name) }
	for _, test := range []struct {
		name     string
		v        *enforcer.Verdict
		admin    bool
		want     []string
		withheld int
	}{
		{"before the first verdict", nil, true, []string{}, 0},
		{"to an admin", v, true, []string{"mail to somebody@example.com: bound", "word"}, 0},
		{"to others", v, false, []string{"word"}, 1},
	} {
		got := s.Keys(test.v, document, test.admin)
		if !slices.Equal(got.Chain, test.want) || got.Chain == nil || len(got.Withheld) != test.withheld {
			t.Errorf("%s: %q, withheld %q; want %q", test.name, got.Chain, got.Withheld, test.want)
		}
		if len(got.Keys) != 1 || got.Keys[0].KeyID != s.KeyID() || got.Keys[0].Dialect != "" {
			t.Errorf("%s: the keys are %v", test.name, got.Keys)
		}
		for _, w := range got.Withheld {
			if !strings.Contains(w, "licence bound ") || strings.Contains(w, "somebody") {
				t.Errorf("%s: withheld %q", test.name, w)
			}
		}
	}
}

// What is signed names the product, the time and the holder as the agent sees it.
func TestSignerSaysWhoHolds(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	c := enforcer.Caller{UID: 1000, PID: 7, Start: 8, Inode: 9}
	l := &enforcer.Lease{Lifetime: enforcer.LifetimeTTL, Holder: &enforcer.Holder{Caller: c},
		Items: []enforcer.Item{{Pool: "streams", N: 2}}, ExpiresAt: time.Unix(1_000_000_060, 0)}
	lease, err := s.LeaseToken(l, "nonce")
	if err != nil {
		t.Fatal(err)
	}
	proof, err := s.Prove("nonce", c)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string][]string{
		lease: {`"product":"acme"`, `"items":[{"pool":"streams","n":2}]`, `"holder":{"uid":1000,"pid":7,"start":8}`,
			`"iat":1000000000`, `"exp":1000000060`, `"nonce":"nonce"`},
		proof: {`"product":"acme"`, `"holder":{"uid":1000,"pid":7,"start":8,"inode":9}`, `"iat":1000000000`,
			`"nonce":"nonce"`},
	} {
		jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify(s.Key.Public())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(payload), w) {
				t.Errorf("%s does not say %s", payload, w)
			}
		}
	}
}
