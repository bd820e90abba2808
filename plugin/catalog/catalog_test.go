package catalog

import (
	"cmp"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
)

// publicKey makes a public key in PEM.
func publicKey(t *testing.T) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func refused(t *testing.T, err error, what ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want an error with %q", what)
	}
	for _, w := range what {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want it to say %q", err, w)
		}
	}
}

func TestRecognise(t *testing.T) {
	native := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"usher-license+jwt"}`)) + ".e30.AAAA"
	for _, doc := range []string{native, string(usher.Armour([]byte(native)))} {
		f, err := BuiltIn().Recognise([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if f.System() != usher.System {
			t.Errorf("%s: it is %s's", doc, f.System())
		}
	}
	for _, doc := range []string{"", "# README\n", "\x00\xff", "{}"} {
		_, err := BuiltIn().Recognise([]byte(doc))
		refused(t, err, "no", "licence of any known system", usher.System)
	}
}

// No two systems have one name, one section of the configuration or one component of a host, and each has anchors. What
// a system exports agrees with itself.
func TestSystems(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Systems() {
		for _, name := range []string{"section " + cmp.Or(s.Section, s.Name), "component " + s.HostComponent} {
			if seen[name] && name != "component " {
				t.Errorf("two systems have the %s", name)
			}
			seen[name] = true
		}
		switch {
		case s.Format.System() != s.Name || s.Dialect != nil && s.Dialect.System() != s.Name:
			t.Errorf("%s: its format or its dialect is another system's", s.Name)
		case (s.HostComponent == "") != (s.HostValue == nil) || (s.Keyless == "") != (s.Own == nil):
			t.Errorf("%s: half of a pair is missing", s.Name)
		case s.HostComponent != "" && enforcer.IsMeasured(s.HostComponent):
			t.Errorf("%s: %s is measured", s.Name, s.HostComponent)
		case s.Settings != nil && (s.Settings() == s.Settings() || s.Settings().Used()):
			t.Errorf("%s: its configuration is shared, or used where nothing is configured", s.Name)
		}
	}
	for _, s := range BuiltIn().Systems() {
		if seen[s] {
			t.Errorf("two systems are called %s", s)
		}
		seen[s] = true
		if _, err := Anchor(s, "k", nil, ""); err == nil ||
			strings.Contains(err.Error(), "there is no licence system") {
			t.Errorf("%s has no anchors: %v", s, err)
		}
	}
	if !seen[usher.System] {
		t.Errorf("the native system is missing: %v", BuiltIn().Systems())
	}
}

func TestAnchor(t *testing.T) {
	a, err := Anchor(usher.System, "2026-a", []byte(publicKey(t)), "")
	if err != nil {
		t.Fatal(err)
	}
	if a.System != usher.System || a.KeyID != "2026-a" || a.Algorithm != "EdDSA" || a.Embedded {
		t.Errorf("got %+v", a)
	}
	_, err = Anchor("nobody", "2026-a", []byte(publicKey(t)), "")
	refused(t, err, `key "2026-a"`, `"nobody"`, "known: "+usher.System)
}

const flag = "-X github.com/usher-agent/usher/plugin/catalog.embedded="

func TestEmbed(t *testing.T) {
	from, to := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	out, err := Embed(Vendor{Product: "transcoder \"pro\"", Keys: []Public{
		{System: usher.System, KeyID: "2026-a", Key: publicKey(t), NotBefore: from, NotAfter: to},
		{System: usher.System, KeyID: "2025-a", Key: publicKey(t), Revoked: true},
		{System: usher.System, KeyID: "test", Key: publicKey(t), Environment: "test"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	value, ok := strings.CutPrefix(out, flag)
	if !ok || strings.ContainsAny(value, " \"'$\\\n") {
		t.Fatalf("it is no flag that survives a shell: %s", out)
	}
	product, anchors, err := decode(value)
	if err != nil {
		t.Fatal(err)
	}
	if product != "transcoder \"pro\"" || len(anchors) != 3 {
		t.Fatalf("got %q and %d anchors", product, len(anchors))
	}
	for i, want := range []struct {
		kid         string
		revoked     bool
		environment enforcer.Environment
	}{{"2026-a", false, ""}, {"2025-a", true, ""}, {"test", false, enforcer.Test}} {
		if a := anchors[i]; a.KeyID != want.kid || a.Revoked != want.revoked || a.Environment != want.environment ||
			!a.Embedded || a.Algorithm != "EdDSA" {
			t.Errorf("anchor %d: %+v", i, a)
		}
	}
	if a := anchors[0]; !a.NotBefore.Equal(from) || !a.NotAfter.Equal(to) {
		t.Errorf("its time: %s to %s", a.NotBefore, a.NotAfter)
	}
	if a := anchors[1]; !a.NotBefore.IsZero() || !a.NotAfter.IsZero() {
		t.Errorf("a time out of nowhere: %s to %s", a.NotBefore, a.NotAfter)
	}
}

func TestEmbedRefuses(t *testing.T) {
	key := Public{System: usher.System, KeyID: "k", Key: publicKey(t)}
	_, err := Embed(Vendor{Keys: []Public{key}})
	refused(t, err, "product is missing")
	_, err = Embed(Vendor{Product: "transcoder"})
	refused(t, err, "transcoder", "no key")
	for name, change := range map[string]func(*Public){
		"no licence system": func(k *Public) { k.System = "nobody" },
		"not PEM":           func(k *Public) { k.Key = "" },
		"key id":            func(k *Public) { k.KeyID = "a b" },
		"does not fit":      func(k *Public) { k.Algorithm = "RS256" },
		"must be":           func(k *Public) { k.KeyID, k.Environment = "t", "Test" },
		"named twice":       func(*Public) {},
	} {
		bad := key
		change(&bad)
		_, err := Embed(Vendor{Product: "transcoder", Keys: []Public{key, bad}})
		refused(t, err, name)
	}
}

func TestDecode(t *testing.T) {
	if product, anchors, err := decode(""); product != "" || anchors != nil || err != nil {
		t.Errorf("nothing compiled in: %q, %v, %v", product, anchors, err)
	}
	for _, s := range []string{"%", "e30=", base64.RawURLEncoding.EncodeToString([]byte("{")),
		base64.RawURLEncoding.EncodeToString([]byte("[]"))} {
		_, _, err := decode(s)
		refused(t, err, "compiled-in", "make build VENDOR=DIR")
	}
	// Nothing that was tampered with leaves an agent that trusts nobody's keys but looks as if it did.
	_, anchors, err := decode(base64.RawURLEncoding.EncodeToString([]byte(`{"product":"p"}`)))
	refused(t, err, "no key")
	if anchors != nil {
		t.Errorf("got %v", anchors)
	}
}
