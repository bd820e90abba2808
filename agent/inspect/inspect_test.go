package inspect

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/catalog"
)

// Judge judges a document of no known system too, by the name it has. The host is this one, measured for the product,
// or the one in the question.
func TestJudgeWithoutALicence(t *testing.T) {
	t.Parallel()
	here := enforcer.Host{Physical: 4}
	var products []string
	i := Inspector{
		Config:  config.Default(),
		Systems: func(use func(*catalog.Catalog)) error { use(catalog.BuiltIn()); return nil },
		Measure: func(product string) (enforcer.Host, string) { products = append(products, product); return here, "" },
	}
	q := Question{
		Documents: []Document{{"a.lic", []byte("nonsense")}},
		Products:  []string{"transcoder"},
		Now:       time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
	}
	got, err := i.Judge(q)
	if err != nil || got.Host.Physical != 4 || got.Verdict.Good() || len(products) != 1 || products[0] != "transcoder" {
		t.Fatalf("%+v, %v, measured for %q", got, err, products)
	}
	if p := got.Verdict.Licenses[0].Problem; p == nil || !strings.HasPrefix(p.Reason, "licence a.lic: ") {
		t.Errorf("the problem is %+v", p)
	}
	q.Host = &enforcer.Host{Physical: 7}
	if got, err = i.Judge(q); err != nil || got.Host.Physical != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	i.Systems = func(func(*catalog.Catalog)) error { return errors.New("plugin acme: not there") }
	if _, err := i.Judge(q); err == nil {
		t.Error("a plugin that is not there is no error")
	}
}

// The faults of all anchors are reported at once, each by its place in the configuration.
func TestAnchorsTellEveryFault(t *testing.T) {
	t.Parallel()
	key := publicPEM(t)
	c := config.Default()
	c.License.Trust = []config.Trust{
		{System: "usher", KeyID: "a", Key: key},
		{System: "usher", KeyID: "a", Key: key},
		{System: "nobody", KeyID: "b", Key: key},
	}
	_, _, err := Anchors(c)
	twice := `license.trust[1]: key "a" of system usher is there twice`
	for _, want := range []string{twice, "license.trust[2]: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c.License.Trust = c.License.Trust[:1]
	if got, vendor, err := Anchors(c); err != nil || vendor != "" || len(got) != 1 || got[0].KeyID != "a" {
		t.Errorf("%+v, %q, %v", got, vendor, err)
	}
}

func publicPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
