package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	lm "github.com/aws/aws-sdk-go-v2/service/licensemanager"
	"github.com/aws/aws-sdk-go-v2/service/licensemanager/types"

	"github.com/usher-agent/usher/plugin/usher"
)

const (
	awsKey    = "AKIAUSHERTEST0000001"
	awsSecret = "a-secret-of-the-first-product-0001"
	awsIssuer = "aws:123456789012:Acme:issuer-fingerprint"
	awsOther  = "AKIAUSHERTEST0000002"
)

// awsCounter is a house whose agent answers License Manager's API on a Unix socket and, for those with a key, over TCP.
type awsCounter struct {
	*house
	unix, tcp string
}

func awsHouse(t *testing.T, limit int64, change func(*usher.Claims)) *awsCounter {
	t.Helper()
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	keys := fmt.Sprintf(
		"[first]\naws_access_key_id = %s\naws_secret_access_key = "+
			"%s\n[second]\naws_access_key_id=%s\naws_secret_access_key=%s\n", awsKey, awsSecret, awsOther, awsSecret)
	if err := os.WriteFile(dir+"/keys", []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	h := open(t,
		fmt.Sprintf(
			"listeners:\n  - {address: %[1]q, dialect: awslm}\n  - {address: \"127.0.0.1:0\", dialect: awslm, "+
				"credentials_file: %[2]q}\n", dir+"/aws", dir+"/keys"))
	h.drop("a.lic", h.sign("a", limit, func(c *usher.Claims) {
		c.Issuer = awsIssuer
		withMeters(c)
		if change != nil {
			change(c)
		}
	}))
	h.until("dropped", inForce("a"))
	a := &awsCounter{house: h}
	a.where()
	return a
}

// where reads the addresses of the listeners.
func (a *awsCounter) where() {
	at := a.listening()
	a.unix, a.tcp = strings.TrimPrefix(at[0].Address, "unix:"), at[1].Address
}

// sdk is AWS's own client, over the Unix socket without credentials, or over TCP with a key.
func (a *awsCounter) sdk(key string) *lm.Client {
	o := lm.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://" + a.tcp),
		Credentials: credentials.NewStaticCredentialsProvider(key, awsSecret, "")}
	tr := &http.Transport{}
	if key == "" {
		o.BaseEndpoint, o.Credentials = aws.String("http://localhost"), aws.AnonymousCredentials{}
		path := a.unix
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	a.t.Cleanup(tr.CloseIdleConnections)
	o.HTTPClient = &http.Client{Transport: tr}
	return lm.New(o)
}

func awsAsked(name string, unit types.EntitlementDataUnit, value string) types.EntitlementData {
	e := types.EntitlementData{Name: aws.String(name), Unit: unit}
	if value != "" {
		e.Value = aws.String(value)
	}
	return e
}

func awsCheckout(token string, kind types.CheckoutType, list ...types.EntitlementData) *lm.CheckoutLicenseInput {
	return &lm.CheckoutLicenseInput{ProductSKU: aws.String("acme"), KeyFingerprint: aws.String(awsIssuer),
		CheckoutType: kind, ClientToken: aws.String(token), Entitlements: list,
		NodeId: aws.String("node-1")}
}

// AWS's own client checks out to the limit and no further, extends, checks in, and a retry takes no second slot: over
// the Unix socket and over TCP.
func TestAWSClient(t *testing.T) {
	t.Parallel()
	a := awsHouse(t, 2, nil)
	ctx := t.Context()
	for _, key := range []string{"", awsKey} {
		c := a.sdk(key)
		one := awsCheckout("one"+key, types.CheckoutTypeProvisional,
			awsAsked("streams", types.EntitlementDataUnitCount, "1"))
		first, err := c.CheckoutLicense(ctx, one)
		if err != nil {
			t.Fatal(err)
		}
		if *first.EntitlementsAllowed[0].Value != "1" || *first.NodeId != "node-1" || first.SignedToken != nil {
			t.Errorf("%+v", first)
		}
		again, err := c.CheckoutLicense(ctx, one)
		if err != nil || *again.LicenseConsumptionToken != *first.LicenseConsumptionToken ||
			*again.Expiration != *first.Expiration || *again.IssuedAt != *first.IssuedAt {
			t.Errorf("a retry: %+v, %v", again, err)
		}
		var invalid *types.ValidationException
		if _, err := c.CheckoutLicense(ctx, awsCheckout("one"+key, types.CheckoutTypeProvisional,
			awsAsked("streams", types.EntitlementDataUnitCount, "2"))); !errors.As(err, &invalid) {
			t.Errorf("the same token with another request: %v", err)
		}
		second, err := c.CheckoutLicense(ctx, awsCheckout("two"+key, types.CheckoutTypeProvisional,
			awsAsked("streams", types.EntitlementDataUnitCount, "1")))
		if err != nil {
			t.Fatal(err)
		}
		var full *types.NoEntitlementsAllowedException
		if _, err := c.CheckoutLicense(ctx, awsCheckout("three"+key, types.CheckoutTypeProvisional,
			awsAsked("streams", types.EntitlementDataUnitCount, "1"))); !errors.As(err, &full) {
			t.Errorf("beyond the limit: %v", err)
		}
		usage, err := c.GetLicenseUsage(ctx, &lm.GetLicenseUsageInput{LicenseArn: first.LicenseArn})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range usage.LicenseUsage.EntitlementUsages {
			if *u.Name == "streams" && (*u.ConsumedValue != "2" || *u.MaxCount != "2") {
				t.Errorf("usage: %s of %s", *u.ConsumedValue, *u.MaxCount)
			}
		}
		longer, err := c.ExtendLicenseConsumption(ctx,
			&lm.ExtendLicenseConsumptionInput{LicenseConsumptionToken: first.LicenseConsumptionToken})
		if err != nil {
			t.Fatal(err)
		}
		if until, err := time.Parse(time.RFC3339, *longer.Expiration); err != nil ||
			until.Before(time.Now().Add(50*time.Minute)) {
			t.Errorf("extended until %s, %v", *longer.Expiration, err)
		}
		for _, out := range []*lm.CheckoutLicenseOutput{first, second} {
			if _, err := c.CheckInLicense(ctx,
				&lm.CheckInLicenseInput{LicenseConsumptionToken: out.LicenseConsumptionToken}); err != nil {
				t.Error(err)
			}
		}
		var gone *types.ResourceNotFoundException
		if _, err := c.ExtendLicenseConsumption(ctx,
			&lm.ExtendLicenseConsumptionInput{LicenseConsumptionToken: first.LicenseConsumptionToken}); !errors.As(err,
			&gone) {
			t.Errorf("extended after check-in: %v", err)
		}
		anew, err := c.CheckoutLicense(ctx, one)
		if err != nil || *anew.LicenseConsumptionToken == *first.LicenseConsumptionToken {
			t.Fatalf("after the check-in the token is as good as new: %+v, %v", anew, err)
		}
		if _, err := c.CheckInLicense(ctx,
			&lm.CheckInLicenseInput{LicenseConsumptionToken: anew.LicenseConsumptionToken}); err != nil {
			t.Error(err)
		}
	}
}
