package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/keygen"
)

// A configuration file from before the systems had sections of their own says what it said, by file and by variable.
func TestKeygenAndAWSSections(t *testing.T) {
	c, err := Load(
		Source{
			File: "usher.yaml",
			Env:  []string{"USHER_UPSTREAM_KEYGEN_ENVIRONMENT=sandbox", "USHER_UPSTREAM_AWS_REGION=eu-west-1"},
			Data: []byte(`product: acme
license:
  trust:
    - {system: awslm, alg: sealed, kid: 'aws:294406891311:AWS/Marketplace:issuer-fingerprint'}
upstream:
  ca_file: /etc/ca.pem
  keygen: {account: acme, url: https://keygen.example.com, token_file: /etc/token}
  aws:
    product_sku: sku
    key_fingerprint: 'aws:294406891311:AWS/Marketplace:issuer-fingerprint'
    license_arn: arn
    beneficiary: b
    node_id: n
    borrow: {streams: 4, hd: 0}
    endpoint: https://lm.example.com
    refresh_token_file: /etc/refresh
    role_arn: role
    sts_endpoint: https://sts.example.com
`),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	if g := *c.Upstream.Systems["keygen"].(*keygen.Settings); g !=
		(keygen.Settings{Account: "acme", URL: "https://keygen.example.com", TokenFile: "/etc/token",
			Environment: "sandbox"}) {
		t.Errorf("keygen: %+v", g)
	}
	a := *c.Upstream.Systems["aws"].(*awslm.Settings)
	if a.ProductSKU != "sku" || a.LicenseARN != "arn" || a.Beneficiary != "b" || a.NodeID != "n" ||
		a.Borrow["streams"] != "4" || a.Borrow["hd"] != "0" || a.Region != "eu-west-1" ||
		a.Endpoint != "https://lm.example.com" || a.RefreshTokenFile != "/etc/refresh" ||
		a.RoleARN != "role" ||
		a.STSEndpoint != "https://sts.example.com" {
		t.Errorf("aws: %+v", a)
	}
	for key, want := range map[string]string{"upstream.keygen.account": "file usher.yaml:7",
		"upstream.aws.borrow": "file usher.yaml:14", "upstream.aws.region": "env USHER_UPSTREAM_AWS_REGION"} {
		if got := c.Origin(key); got != want {
			t.Errorf("%s comes from %s", key, got)
		}
	}
	if i := slices.IndexFunc(c.Show(), func(s Setting) bool { return s.Key == "upstream.aws.borrow" }); i < 0 ||
		c.Show()[i].Value != "hd=0, streams=4" {
		t.Error("upstream.aws.borrow is not shown")
	}
	if taken, restart := Diff(Default(), c); !slices.Contains(restart, "upstream.keygen.url") ||
		slices.Contains(taken, "upstream.keygen.url") {
		t.Errorf("the difference: %v, %v", taken, restart)
	}
}

// Faults in the sections of the systems are refused with the same words as ever.
func TestKeygenAndAWSFaults(t *testing.T) {
	for _, test := range []struct{ yaml, want string }{
		{"upstream:\n  keygen: {acount: a}\n",
			`usher.yaml:2: unknown key "upstream.keygen.acount"; did you mean "upstream.keygen.account"?`},
		{"upstream:\n  keygn: {account: a}\n",
			`usher.yaml:2: unknown key "upstream.keygn"; did you mean "upstream.keygen"?`},
		{"upstream: {keygen: {url: https://a}}\n",
			`usher.yaml:1: upstream.keygen.account is missing, and the other keys of upstream.keygen need it; ` +
				`set it, or leave them out`},
		{"upstream: {keygen: {account: a, url: nowhere}}\n",
			`usher.yaml:1: upstream.keygen.url must be an address such as https://keygen.example.com, without user ` +
				`and query`},
		{"upstream: {aws: {product_sku: a}}\n",
			`usher.yaml:1: upstream.aws.product_sku and upstream.aws.key_fingerprint go together; set both, or ` +
				`neither`},
		{"upstream: {aws: {borrow: {a: x}}}\n",
			`usher.yaml:1: upstream.aws.borrow: "x" of "a" cannot be borrowed; give a whole number, and 0 for ` +
				`an entitlement without a unit`},
		{"upstream: {ca_file: /a}\n",
			`usher.yaml:1: upstream.url and upstream.pools_url are missing, and the other keys of upstream are for ` +
				`them; set one, or leave them out`},
		{"license: {trust: [{system: keygen, alg: sealed, kid: a}]}\n",
			`usher.yaml:1: license.trust[0] (a): the key is missing; give key_file, or key`},
	} {
		if _, err := Load(Source{File: "usher.yaml", Data: []byte(test.yaml)}); err == nil ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s\ngot  %v\nwant %s", test.yaml, err, test.want)
		}
	}
}
