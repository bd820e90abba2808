package awslm_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
)

// TestMain hides the machine's own AWS configuration.
func TestMain(m *testing.M) {
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE":             filepath.Join(os.TempDir(), "none", "config"),
		"AWS_SHARED_CREDENTIALS_FILE": filepath.Join(os.TempDir(), "none", "credentials")} {
		os.Setenv(k, v)
	}
	for _, k := range []string{"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL",
		"AWS_ENDPOINT_URL_LICENSE_MANAGER", "HTTP_PROXY", "http_proxy"} {
		os.Unsetenv(k)
	}
	os.Exit(m.Run())
}

const (
	sku     = "prod-transcoder"
	issuer  = "aws:294406891311:AWS/Marketplace:issuer-fingerprint"
	arn     = "arn:aws:license-manager::294406891311:license:l-0123456789abcdef0123456789abcdef"
	otherID = "arn:aws:license-manager::294406891311:license:l-ffffffffffffffffffffffffffffffff"
	drawn   = "AWS::Marketplace::Usage/Drawdown/DataConsumption"
)

func count(n int64) *int64 { return &n }

// granted is a licence of every kind of entitlement.
func granted() awslm.License {
	return awslm.License{LicenseArn: arn, LicenseName: "Transcoder", ProductName: "Transcoder", ProductSKU: sku,
		HomeRegion: "us-east-1", Status: awslm.StatusAvailable,
		Issuer:   awslm.Issuer{Name: "AWS/Marketplace", KeyFingerprint: issuer},
		Validity: awslm.Validity{Begin: "2026-01-01T00:00:00Z", End: "2036-01-01T00:00:00Z"},
		Entitlements: []awslm.Entitlement{
			{Name: "streams", Unit: "Count", MaxCount: count(8), AllowCheckIn: true},
			{Name: "Named Users", Unit: "Count", MaxCount: count(2), AllowCheckIn: true, Overage: true},
			{Name: "renders", Unit: "Count", MaxCount: count(1000)},
			{Name: drawn, Unit: "Gigabytes", MaxCount: count(50)},
			{Name: "hd", Unit: "None", Value: "Enabled"},
			{Name: "tier", Unit: "None", Value: "gold"},
			{Name: "bandwidth", Unit: "Megabits/Second", MaxCount: count(100)},
			{Name: "load", Unit: "Percent", MaxCount: count(80)},
		},
		ConsumptionConfiguration: awslm.ConsumptionConfiguration{RenewType: awslm.RenewMonthly,
			ProvisionalConfiguration: &awslm.Consumption{MaxTimeToLiveInMinutes: 60},
			BorrowConfiguration:      &awslm.Consumption{AllowEarlyCheckIn: new(true), MaxTimeToLiveInMinutes: 1440}},
		LicenseMetadata: []awslm.Metadata{{Name: "usher.grace", Value: "36h"}, {Name: "contract", Value: "42"}},
		CreateTime:      "2026-01-01T00:00:00Z", Version: "1",
		ReceivedMetadata: &awslm.ReceivedMetadata{ReceivedStatus: awslm.ReceivedActive,
			AllowedOperations: []string{"CheckoutLicense", "ExtendConsumptionLicense"}}}
}

// agentKey is the agent's.
var agentKey = ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", ed25519.SeedSize)))

// agentThumb is its thumbprint.
var agentThumb = func() string {
	sum, err := plugin.Thumbprint(agentKey.Public())
	if err != nil {
		panic(err)
	}
	return sum
}()

func sealedAnchor(t testing.TB) plugin.Anchor {
	t.Helper()
	a, err := awslm.NewAnchor(issuer, nil, awslm.AlgorithmSealed)
	if err != nil {
		t.Fatal(err)
	}
	return awslm.Own([]plugin.Anchor{a}, agentKey.Public().(ed25519.PublicKey))[0]
}

func sellerAnchor(t testing.TB, s *awstest.Server, kid string) plugin.Anchor {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	a, err := awslm.NewAnchor(kid, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// site is a License Manager with one licence, and a client of it.
type site struct {
	*awstest.Server
	*awslm.Client
	doc []byte
}

func (site) System() string { return awslm.System }

func client(t testing.TB, s *awstest.Server, change ...func(*awslm.Config)) *awslm.Client {
	t.Helper()
	cfg := awslm.Config{Key: agentKey, ProductSKU: sku, KeyFingerprint: issuer, Endpoint: s.URL, Now: s.Now}
	for _, f := range change {
		f(&cfg)
	}
	c, err := awslm.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newSite(t testing.TB, change ...func(*awslm.License)) *site {
	t.Helper()
	s := awstest.New(t, time.Now().UTC().Truncate(time.Second))
	l := granted()
	for _, f := range change {
		f(&l)
	}
	s.Put(l)
	c := client(t, s)
	r, err := c.Fetch(t.Context(), &plugin.Request{AgentKey: "a"})
	if err != nil {
		t.Fatal(err)
	}
	return &site{s, c, r.Document}
}

// request returns the agent's part of each call.
func (s *site) request() *plugin.Request {
	return &plugin.Request{LicenseID: arn, Document: s.doc, Product: sku, AgentKey: agentThumb,
		Nonce: []byte("0123456789abcdef")}
}

func (s *site) checkOut(t testing.TB, n, least int64, token string) (*plugin.Block, error) {
	t.Helper()
	return s.CheckOut(t.Context(), &plugin.CheckOut{Request: *s.request(), Pool: "streams", Slots: n, AtLeast: least,
		For: time.Hour, Token: token})
}

// failed checks an error's class and code.
func failed(t testing.TB, err error, class plugin.Class, code string, says ...string) *plugin.Error {
	t.Helper()
	e, ok := err.(*plugin.Error)
	if !ok {
		t.Fatalf("it is %v (%T), not an error of the contract", err, err)
	}
	if c := e.Checked(); *c != *e {
		t.Errorf("it cannot be said so: %+v becomes %+v", e, c)
	}
	if e.Class != class || e.SystemCode != code {
		t.Errorf("%v is %s with %q, want %s with %q", e, e.Class, e.SystemCode, class, code)
	}
	for _, s := range says {
		if !strings.Contains(e.Reason+" / "+e.Hint, s) {
			t.Errorf("%q does not say %q (hint %q)", e.Reason, s, e.Hint)
		}
	}
	return e
}
