package acceptance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v9/esapi"

	"github.com/usher-agent/usher/plugin/elastic/elastictest"
)

// stack is the vendor's client of Elasticsearch.
func stack(t *testing.T, host string, over http.RoundTripper, key string) *esapi.API {
	t.Helper()
	u, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := elastictransport.NewClient(elastictransport.WithURLs(u), elastictransport.WithTransport(over),
		elastictransport.WithAPIKey(key))
	if err != nil {
		t.Fatal(err)
	}
	return esapi.New(tr)
}

// answered reads an answer, which must have a status and the product's header.
func answered(t *testing.T, status int, res *esapi.Response, err error) map[string]any {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil || res.StatusCode != status {
		t.Fatalf("%d %v, %v", res.StatusCode, out, err)
	}
	if res.Header.Get("X-Elastic-Product") != "Elasticsearch" {
		t.Error("clients take the server for none of Elastic's")
	}
	return out
}

// The client's whole life with a licence of the stack.
func TestElasticsearchClient(t *testing.T) {
	p := settle(t)
	es := stack(t, "http://localhost", p.transport(), "any")
	res, err := es.Info()
	if out := answered(t, 200, res, err); out["tagline"] != "You Know, for Search" {
		t.Errorf("%v", out)
	}
	get := func(status int) map[string]any {
		t.Helper()
		res, err := es.License.Get()
		out := answered(t, status, res, err)
		license, _ := out["license"].(map[string]any)
		return license
	}
	put := func(doc []byte, o ...func(*esapi.LicensePostRequest)) map[string]any {
		t.Helper()
		o = append(o, es.License.Post.WithBody(strings.NewReader(string(doc))))
		res, err := es.License.Post(o...)
		return answered(t, 200, res, err)
	}
	if l := get(404); l != nil {
		t.Errorf("none is installed: %v", l)
	}
	platinum := p.signer.Stack(elastictest.License{UID: "p", Type: "platinum", Nodes: 5})
	if out := put(platinum); out["acknowledged"] != true || out["license_status"] != "valid" {
		t.Errorf("%v", out)
	}
	if l := get(200); l["uid"] != "p" || l["status"] != "active" || l["type"] != "platinum" || l["max_nodes"] != 5.0 ||
		len(l) != 11 {
		t.Errorf("%v", l)
	}
	gold := p.signer.Stack(elastictest.License{UID: "g", Type: "gold", Nodes: 5})
	if out := put(gold); out["acknowledged"] != false || out["acknowledge"] == nil {
		t.Errorf("a lower tier: %v", out)
	}
	if out := put(gold, es.License.Post.WithAcknowledge(true)); out["acknowledged"] != true || get(200)["uid"] != "g" {
		t.Errorf("acknowledged: %v", out)
	}
	enterprise := p.signer.Stack(elastictest.License{UID: "e", Type: "enterprise", Units: 7})
	if out := put(enterprise); out["license_status"] != "valid" {
		t.Errorf("%v", out)
	}
	if l := get(200); l["max_resource_units"] != 7.0 || l["max_nodes"] != nil || len(l) != 12 {
		t.Errorf("%v", l)
	}
	if out := put(elastictest.New().Stack(elastictest.License{UID: "x", Type: "gold", Nodes: 1}),
		es.License.Post.WithAcknowledge(true)); out["license_status"] != "invalid" {
		t.Errorf("of another key: %v", out)
	}
	if out := put(p.signer.Stack(elastictest.License{UID: "x", Type: "gold", Nodes: 1,
		Issued: time.Now().Add(-48 * time.Hour), Expires: time.Now().Add(-time.Hour)}),
		es.License.Post.WithAcknowledge(true)); out["license_status"] != "expired" {
		t.Errorf("expired: %v", out)
	}
	res, err = es.License.PostStartTrial()
	if out := answered(t, 403, res, err); out["trial_was_started"] != false {
		t.Errorf("%v", out)
	}
	res, err = es.License.GetTrialStatus()
	if out := answered(t, 200, res, err); out["eligible_to_start_trial"] != false {
		t.Errorf("%v", out)
	}
	res, err = es.License.Delete()
	if out := answered(t, 200, res, err); out["acknowledged"] != true || get(404) != nil {
		t.Errorf("%v", out)
	}
}

// Over TCP the client reads with a credential.
func TestElasticsearchClientOverTCP(t *testing.T) {
	p := settle(t)
	res, err := stack(t, "http://"+p.tcp, nil, credential).License.Get()
	answered(t, 404, res, err)
	res, err = stack(t, "http://"+p.tcp, nil, "another-credential").License.Get()
	if out := answered(t, 401, res, err); out["error"] == nil {
		t.Errorf("%v", out)
	}
}
