package awslm_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
)

// lend asks for a borrow of the native licence.
func lend(token string, list ...awslm.EntitlementData) awslm.BorrowRequest {
	return awslm.BorrowRequest{LicenseArn: nativeArn, Entitlements: list, DigitalSignatureMethod: awslm.MethodPS384,
		ClientToken: token, NodeID: agentThumb,
		CheckoutMetadata: []awslm.Metadata{{Name: awslm.ProductKey, Value: "acme"}}}
}

// nativeArn is what the native licence is called.
const nativeArn = "arn:aws:license-manager::123456789012:license:l-dfad31017764a3baf232a0f03a9c73b1"

// publicKey returns the key that borrowed licences are signed with, as anybody has it.
func (c *counterOf) publicKey() []byte {
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, httptest.NewRequest("GET", awslm.SigningKeyPath, nil))
	return w.Body.Bytes()
}

// What was borrowed verifies offline, by a stock library and by Usher's own format; it is had whole or not at all.
func TestDialectBorrow(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	var got, again awslm.BorrowResponse
	in := lend("b", ent("streams", "Count", "3"), ent("hd", "None"), ent("tier", "None"))
	c.good(awslm.OpBorrow, in, &got)
	if until := awslm.LocalTime(c.desk.Now().Add(24 * time.Hour)); got.Expiration != until ||
		got.IssuedAt != awslm.LocalTime(c.desk.Now()) ||
		names(got.EntitlementsAllowed) != "streams=3 hd=Enabled tier=gold" {
		t.Errorf("%+v", got)
	}
	block, _ := pem.Decode(c.publicKey())
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || key.(*rsa.PublicKey).N.BitLen() != 3072 {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(got.SignedToken, []jose.SignatureAlgorithm{jose.PS384})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify(key)
	if err != nil {
		t.Fatal(err)
	}
	var said map[string]any
	if err := json.Unmarshal(payload, &said); err != nil ||
		said["licenseConsumptionToken"] != got.LicenseConsumptionToken || said["nodeId"] != agentThumb ||
		said["expiration"] != got.Expiration || said["licenseArn"] != nativeArn {
		t.Errorf("%v, %v", said, err)
	}
	anchor, err := awslm.NewAnchor("acme", c.publicKey(), "")
	if err != nil {
		t.Fatal(err)
	}
	l, p := awslm.Format{}.Verify([]byte(got.SignedToken), []plugin.Anchor{anchor})
	if p != nil || l.Pools["streams"].Max != 3 || !l.Features["hd"].Bool || l.Features["tier"].Text != "gold" ||
		l.AgentKeys[0] != agentThumb {
		t.Fatalf("%+v, %+v", l, p)
	}
	c.restart()
	if c.good(awslm.OpBorrow, in, &again); again.SignedToken != got.SignedToken || c.used("streams") != 3 {
		t.Errorf("%+v", again)
	}
	c.bad(awslm.OpBorrow, lend("b", ent("streams", "Count", "1")), awslm.ErrValidation, "ClientToken")
	c.bad(awslm.OpBorrow, lend("c", ent("hd", "None"), ent("streams", "Count", "2")), awslm.ErrNoEntitlements, "3 of 4")
	c.bad(awslm.OpBorrow, lend("d", ent("streams", "Count", "1"), ent("beta", "None")), awslm.ErrNoEntitlements,
		"whole or not at all", "beta")
	c.bad(awslm.OpBorrow, lend("e", ent("data", "Gigabytes", "1")), awslm.ErrEntitlementNot, "consumed")
	other := lend("f", ent("streams", "Count", "1"))
	other.LicenseArn = otherID
	c.bad(awslm.OpBorrow, other, awslm.ErrResourceNotFound)
	token := got.LicenseConsumptionToken
	c.bad(awslm.OpExtend, awslm.ExtendRequest{LicenseConsumptionToken: token}, awslm.ErrInvalidParameter, "borrow it")
	if c.used("streams") != 3 {
		t.Errorf("%d used", c.used("streams"))
	}
	c.good(awslm.OpCheckIn, awslm.CheckInRequest{LicenseConsumptionToken: token, Beneficiary: "anybody"}, nil)
	if c.used("streams") != 0 {
		t.Errorf("%d used", c.used("streams"))
	}
	late := native()
	late.EarlyReturn, late.Expires = false, c.desk.Now().Add(time.Hour)
	c.desk.Judge(late)
	c.good(awslm.OpBorrow, in, &again)
	if again.LicenseConsumptionToken == token || again.Expiration != awslm.LocalTime(late.Expires) {
		t.Errorf("%+v: a borrow does not outlive the licence", again)
	}
	c.bad(awslm.OpCheckIn, awslm.CheckInRequest{LicenseConsumptionToken: again.LicenseConsumptionToken},
		awslm.ErrInvalidParameter, "borrowed until")
	none := native()
	none.MaxBorrow = 0
	c.desk.Judge(none)
	c.bad(awslm.OpBorrow, lend("g", ent("seats", "Count", "1")), awslm.ErrNoEntitlements, "BorrowConfiguration")
	c.desk.Judge()
	c.bad(awslm.OpBorrow, lend("g", ent("seats", "Count", "1")), awslm.ErrResourceNotFound)
	long := lend("h", ent("seats", "Count", "1"))
	long.NodeID = string(make([]byte, 3000))
	c.desk.Judge(native())
	c.bad(awslm.OpBorrow, long, awslm.ErrValidation, "too long")
}
