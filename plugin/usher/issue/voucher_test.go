package issue_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// A licence that names an agent's key says the key apart where something else in it is for admins alone, and only
// there.
func TestVoucher(t *testing.T) {
	private, _, err := issue.MakeKey(t.TempDir(), "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	thumb := strings.Repeat("A", 43)
	sign := func(change func(*usher.Claims)) (*usher.Claims, []byte) {
		t.Helper()
		c := &usher.Claims{ID: "a", Product: "acme", Issued: time.Now().Unix(),
			Pools: map[string]usher.Pool{"streams": {Max: new(int64(1)), Scope: "host"}}}
		change(c)
		doc, err := s.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		said, err := s.Claims(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, own := c.Extra[usher.VoucherClaim]; own {
			t.Error("the caller's claims were changed")
		}
		return said, doc
	}
	bind := func(c *usher.Claims) { c.Confirmation = &usher.Confirmation{Thumbprint: thumb} }
	if c, doc := sign(bind); c.Extra[usher.VoucherClaim] != nil ||
		string(usher.Discreet(usher.Armour(doc))) != string(doc) {
		t.Errorf("what hides nothing has a voucher, or is not shown: %v", c.Extra)
	}
	if c, doc := sign(func(c *usher.Claims) {
		c.Licensee = "bob@customer.example"
	}); c.Extra[usher.VoucherClaim] != nil || usher.Discreet(doc) != nil {
		t.Errorf("what names no agent has a voucher, or is shown: %v", c.Extra)
	}
	c, doc := sign(func(c *usher.Claims) {
		bind(c)
		c.AgentKeys = []string{strings.Repeat("B", 42) + "A"}
		c.Extra = map[string]jsontext.Value{"x_db": jsontext.Value(`{"dbPassword":"hunter2"}`)}
	})
	var voucher string
	if err := json.Unmarshal(c.Extra[usher.VoucherClaim], &voucher); err != nil || usher.Discreet(doc) != nil {
		t.Fatalf("no voucher: %v, %v", c.Extra, err)
	}
	b, err := usher.Body([]byte(voucher))
	var said map[string]any
	if err != nil || json.Unmarshal(b, &said) != nil || len(said) != 5 || said["license"] != "a" ||
		said["product"] != "acme" || said["cnf"].(map[string]any)["jkt"] != thumb {
		t.Errorf("the voucher says %s, %v", b, err)
	}
	// Signed again without the secret, it needs none.
	delete(c.Extra, "x_db")
	if again, err := s.Sign(c); err != nil || usher.Discreet(again) == nil {
		t.Errorf("signed again: %v", err)
	}
}
