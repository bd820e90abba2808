package config

import (
	"strings"
	"testing"
)

// A value that holds an address with a password is quoted by no error, and shown by no output, with it.
func TestNoOutputHasAPassword(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	const at = "'https://ann:" + secret + "@x.example.com'"
	for _, key := range []string{"upstream: {url: %}", "upstream: {pools_url: %}", "upstream: {pools_urls: [%]}",
		"upstream: {timeout: %}", "upstream: {keygen: {account: a, url: %}}", "upstream: {brainframe: {url: %}}",
		"upstream: {elastic: {url: %}}", "upstream: {ucloud: {url: %}}", "upstream: {aws: {endpoint: %}}",
		"upstream: {aws: {sts_endpoint: %}}", "fleet: {endpoints: [http://e], prefix: %}", "ops: {listen: %}",
		"log: {level: %}"} {
		yaml := "product: acme\n" + strings.Replace(key, "%", at, 1) + "\n"
		if _, err := Load(Source{File: "usher.yaml", Data: []byte(yaml)}); err == nil ||
			strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", key, err)
		}
	}
	c, err := Load(Source{File: "usher.yaml", Data: []byte("product: acme\nlicense: {path: " + at + "}\n")})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Show() {
		if strings.Contains(s.Value, secret) {
			t.Errorf("%s is shown as %s", s.Key, s.Value)
		}
	}
}
