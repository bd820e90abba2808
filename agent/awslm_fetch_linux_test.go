package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
)

// A licence in AWS License Manager is found, sealed, renewed and suspended, outlives an outage and a restart, and is of
// no use to another agent.
func TestAWS(t *testing.T) {
	t.Parallel()
	const issuer = "aws:294406891311:AWS/Marketplace:issuer-fingerprint"
	const arn = "arn:aws:license-manager::294406891311:license:l-0123456789abcdef0123456789abcdef"
	s := awstest.New(t, time.Now())
	eight := int64(8)
	l := awslm.License{LicenseArn: arn, ProductSKU: "acme", Status: awslm.StatusAvailable,
		Issuer: awslm.Issuer{KeyFingerprint: issuer}, Version: "1",
		Entitlements: []awslm.Entitlement{{Name: "hd", Unit: "None"},
			{Name: "streams", Unit: "Count", MaxCount: &eight, AllowCheckIn: true}},
		ConsumptionConfiguration: awslm.ConsumptionConfiguration{
			ProvisionalConfiguration: &awslm.Consumption{MaxTimeToLiveInMinutes: 60}},
		ReceivedMetadata: &awslm.ReceivedMetadata{ReceivedStatus: awslm.ReceivedActive}}
	config := "    - {system: awslm, alg: sealed, kid: '" + issuer +
		"'}\nupstream: {aws: {product_sku: acme, key_fingerprint: '" + issuer + "', endpoint: '" + s.URL + "'}}\n"
	h := open(t, config)
	call := func() {
		t.Helper()
		if err := h.UpstreamCall(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if l, err := h.License(t.Context()); err != nil || l.State == "valid" {
		t.Fatalf("before there is one: %+v, %v", l, err)
	}
	s.Put(l)
	until := h.until("fetched", code("VALID"))
	if d := until.Licenses[0]; d.ID != arn || d.System != "awslm" || !until.Features["hd"].Enabled ||
		until.CheckIn == nil {
		t.Errorf("%+v", until)
	}
	files, err := filepath.Glob(h.path("l/*.lic"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	l.Version, l.Validity.End = "2", "2036-01-01T00:00:00Z"
	s.Put(l)
	s.Advance(time.Second) // a renewed document is the later one, by the service's clock
	call()
	h.until("renewed", func(l *wire.License) bool { return l.State == "valid" && l.Licenses[0].ExpiresAt != nil })

	l.Status = "SUSPENDED"
	s.Put(l)
	call()
	h.until("suspended", code("SUSPENDED"))
	l.Status = awslm.StatusAvailable
	s.Put(l)
	call()
	h.until("good again", code("VALID"))

	down := make([]awstest.Fault, 1000)
	for i := range down {
		down[i] = awstest.Drop
	}
	s.Fail(awslm.OpListReceived, down...)
	h.stop()
	h.start()
	h.until("after a restart, without AWS", code("VALID"))

	// The document in the hands of another agent.
	h.stop()
	if err := os.Rename(h.path("state"), h.path("was")); err != nil {
		t.Fatal(err)
	}
	h.start()
	if l := h.until("refused", code("UNTRUSTED_KEY")); !strings.Contains(l.Reason, "another agent sealed it") {
		t.Errorf("%s: %s", l.Code, l.Reason)
	}
	s.Heal()
	h.until("its own", code("VALID"))
}
