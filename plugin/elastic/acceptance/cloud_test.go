package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/elastic/cloud-sdk-go/pkg/api"
	"github.com/elastic/cloud-sdk-go/pkg/auth"
	infra "github.com/elastic/cloud-sdk-go/pkg/client/platform_infrastructure"
	"github.com/elastic/cloud-sdk-go/pkg/models"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
)

// cloud is the vendor's SDK.
type cloud struct {
	api  *api.API
	auth auth.Writer
	ctx  context.Context
}

func sdk(t *testing.T, host, key string, c *http.Client) *cloud {
	t.Helper()
	a, err := auth.NewAPIKey(key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := api.NewAPI(api.Config{Client: c, AuthWriter: a, Host: host})
	if err != nil {
		t.Fatal(err)
	}
	return &cloud{out, a, api.WithRegion(within(t), "ece-region")}
}

func (c *cloud) get() (*models.LicenseObject, error) {
	out, err := c.api.V1API.PlatformInfrastructure.GetLicense(infra.NewGetLicenseParamsWithContext(c.ctx), c.auth)
	if err != nil {
		return nil, err
	}
	return out.Payload, nil
}

func (c *cloud) set(l *models.LicenseObject) error {
	_, err := c.api.V1API.PlatformInfrastructure.SetLicense(infra.NewSetLicenseParamsWithContext(c.ctx).WithBody(l),
		c.auth)
	return err
}

func (c *cloud) delete() error {
	_, err := c.api.V1API.PlatformInfrastructure.DeleteLicense(infra.NewDeleteLicenseParamsWithContext(c.ctx), c.auth)
	return err
}

func object(t *testing.T, doc []byte) *models.LicenseObject {
	t.Helper()
	out := &models.LicenseObject{}
	if err := json.Unmarshal(doc, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The SDK's whole life with a platform licence: none, put, shown, put back, in use, refused, deleted.
func TestCloudSDK(t *testing.T) {
	p := settle(t)
	c := sdk(t, "http://localhost", "any", &http.Client{Transport: p.transport()})
	var none *infra.GetLicenseNotFound
	if _, err := c.get(); !errors.As(err, &none) || none.XCloudErrorCodes != "license.license_not_found" {
		t.Fatalf("none is installed: %v", err)
	}
	l := elastictest.License{UID: "u-1", Units: 3, Unsigned: map[string]any{"operation_mode": "prod", "version": 4,
		"cluster_licenses": []any{map[string]any{"license": map[string]any{"uid": "in", "n": 12345678901}}}}}
	put := object(t, p.signer.Orchestration(l))
	if err := c.set(put); err != nil {
		t.Fatal(err)
	}
	got, err := c.get()
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(nil); err != nil {
		t.Error(err)
	}
	if was, is := text(t, put.License), text(t, got.License); was != is {
		t.Errorf("put %s, got %s", was, is)
	}
	if got.UsageStats == nil || *got.UsageStats.TotalConnectedMemoryTotal != 0 {
		t.Errorf("usage: %+v", got.UsageStats)
	}
	if err := c.set(got); err != nil {
		t.Errorf("put back: %v", err)
	}
	// A slot is taken by the local API, and seen by this one.
	own := client.New(p.path("s"))
	defer own.Close()
	lease, err := own.Acquire(c.ctx, wire.AcquireRequest{Pool: "resource_units", N: new(int64(2)), Lifetime: "ttl"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.get(); err != nil || *got.UsageStats.TotalConnectedMemoryTotal != 2*65536 {
		t.Errorf("usage: %+v, %v", got, err)
	}
	if err := own.Release(c.ctx, lease.ID, false); err != nil {
		t.Error(err)
	}
	// Refusals.
	var bad *infra.SetLicenseBadRequest
	changed := object(t, p.signer.Orchestration(l))
	changed.License.MaxResourceUnits = 99
	if err := c.set(changed); !errors.As(err, &bad) || bad.XCloudErrorCodes != "license.invalid_license" ||
		len(bad.Payload.Errors) != 1 || strings.Join(bad.Payload.Errors[0].Fields, "") != "body.license.signature" {
		t.Errorf("changed: %v", err)
	}
	if err := c.set(&models.LicenseObject{License: &models.LicenseInfo{}}); !errors.As(err, &bad) ||
		len(bad.Payload.Errors[0].Fields) != 8 {
		t.Errorf("empty: %v", err)
	}
	expired := elastictest.License{UID: "u-2", Units: 3, Issued: time.Now().Add(-48 * time.Hour),
		Expires: time.Now().Add(-24 * time.Hour)}
	if err := c.set(object(t, p.signer.Orchestration(expired))); !errors.As(err, &bad) {
		t.Errorf("expired: %v", err)
	}
	if got, err := c.get(); err != nil || *got.License.UID != "u-1" {
		t.Errorf("what is in force does not stay: %+v, %v", got, err)
	}
	if err := c.delete(); err != nil {
		t.Error(err)
	}
	var gone *infra.DeleteLicenseNotFound
	if err := c.delete(); !errors.As(err, &gone) {
		t.Errorf("deleted twice: %v", err)
	}
}

// Over TCP the SDK reads with a credential, and changes licences with one that the listener names.
func TestCloudSDKOverTCP(t *testing.T) {
	p := settle(t)
	admin := sdk(t, "http://"+p.tcp, installer, &http.Client{})
	doc := object(t, p.signer.Orchestration(elastictest.License{UID: "u-1", Instances: 8}))
	if err := admin.set(doc); err != nil {
		t.Fatal(err)
	}
	c := sdk(t, "http://"+p.tcp, credential, &http.Client{})
	if got, err := c.get(); err != nil || *got.License.Signature != *doc.License.Signature ||
		got.License.MaxInstances != 8 {
		t.Errorf("%+v, %v", got, err)
	}
	for name, err := range map[string]error{"put": c.set(doc), "delete": c.delete()} {
		if err == nil || !strings.Contains(err.Error(), "403") && !strings.Contains(err.Error(), "root.unauthorized") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := admin.delete(); err != nil {
		t.Error(err)
	}
	if _, err := sdk(t, "http://"+p.tcp, "another-credential", &http.Client{}).get(); err == nil {
		t.Error("another credential is good")
	}
}
