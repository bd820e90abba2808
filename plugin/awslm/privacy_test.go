package awslm_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/awslm"
)

// Answers hide secrets and e-mail addresses of a licence, and a checkout with the redacted fingerprint succeeds.
func TestDialectHides(t *testing.T) {
	t.Parallel()
	l := native()
	l.Licensee, l.Issuer = "Bob <bob@customer.example>", "carol@vendor.example"
	l.Features["apiToken"] = enforcer.Value{Kind: enforcer.KindText, Text: "S3CRET"}
	l.Features["support"] = enforcer.Value{Kind: enforcer.KindText, Text: "dave@vendor.example"}
	c := counter(t, l)
	var all awslm.ListResponse
	var one awslm.LicenseResponse
	var usage awslm.UsageResponse
	var got awslm.CheckoutResponse
	c.good(awslm.OpListReceived, awslm.ListRequest{}, &all)
	listed := byProduct(t, all, "acme")
	c.good(awslm.OpGetLicense, awslm.LicenseRequest{LicenseArn: listed.LicenseArn}, &one)
	c.good(awslm.OpGetUsage, awslm.LicenseRequest{LicenseArn: listed.LicenseArn}, &usage)
	r := out("t1", awslm.Provisional, ent("streams", "Count", "1"), ent("apiToken", "None"), ent("support", "None"))
	r.KeyFingerprint = listed.Issuer.KeyFingerprint
	c.good(awslm.OpCheckout, r, &got)
	r = out("t2", awslm.Provisional, ent("streams", "Count", "1"))
	r.Beneficiary, r.KeyFingerprint = "erin", listed.Issuer.KeyFingerprint
	refused := c.call(awslm.OpCheckout, r, &got)
	for name, answer := range map[string]any{"list": all, "licence": one, "usage": usage, "checkout": got,
		"refusal": refused} {
		b, err := json.Marshal(answer)
		if found := regexp.MustCompile(`S3CRET|[a-z]+@[a-z]+\.example`).FindAllString(string(b), -1); err != nil ||
			len(found) > 0 {
			t.Errorf("%s tells %q, %v", name, found, err)
		}
	}
	if !strings.Contains(listed.Beneficiary, "Bob <") || len(got.EntitlementsAllowed) != 3 {
		t.Errorf("too much is hidden: %+v, %+v", listed, got)
	}
}
