package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// An address of a fleet that has a password in it is not quoted, and the fault names the keys that are for it.
func TestPasswordInAnAddress(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"https://ann:s3cr3t@etcd-1:2379", "ann:s3cr3t@etcd-1",
		"https://ann:s3 cr3t@/s3cr3t@etcd-1", "https://:s3cr3t@etcd-1", "http://s3cr3t@etcd-1",
		"https://ann:s3cr3t@etcd-1:99999"} {
		_, err := Load(Source{File: "usher.yaml", Data: []byte(
			"product: acme\nfleet: {endpoints: ['" + at + "']}\n")})
		if err == nil || strings.Contains(err.Error(), "cr3t") ||
			!strings.Contains(err.Error(), "set fleet.user and fleet.password_file") {
			t.Errorf("%s: %v", at, err)
		}
		is := Fleet{Endpoints: []string{at}, Prefix: "/usher/", TTL: Duration(time.Minute)}
		for _, f := range is.Faults() {
			says := f.Of("--fleet-endpoint")
			if !strings.Contains(says, "set --fleet-user and --fleet-password-file") {
				t.Error(says)
			}
		}
	}
}

// A pool of the fleet without a name, or with one that none can have, is refused with its place.
func TestFleetPools(t *testing.T) {
	t.Parallel()
	const pools = "product: acme\nfleet:\n  endpoints: ['http://e']\n  pools:\n  - streams\n  - '%s'\n"
	for name, want := range map[string]string{"renders": "", "": `u.yaml:6: fleet.pools[1] is "", and needs`,
		strings.Repeat("x", 65): "u.yaml:6: fleet.pools[1] is \"xxx"} {
		_, err := Load(Source{File: "u.yaml", Data: fmt.Appendf(nil, pools, name)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// Addresses of etcd that could only fail later, or for another reason, are refused with the configuration.
func TestFleetEndpoints(t *testing.T) {
	t.Parallel()
	for endpoints, want := range map[string]string{
		"[https://etcd-1:2379, 'https://[::1]:2379/', https://etcd-3]": "",
		"[http://127.0.0.1:2379]":                                      "",
		"[https://etcd-1:99999]":                                       "needs addresses such as",
		"[https://etcd-1:0]":                                           "needs addresses such as",
		"['https://:2379']":                                            "needs addresses such as",
		"[HTTPS://etcd-1:2379]":                                        "needs addresses such as",
		"['unix:///run/etcd.sock']":                                    "needs addresses such as",
		"[https://etcd-1:2379, http://etcd-2:2379]":                    "must speak TLS, or none",
		"[http://etcd-1:2379, https://etcd-2:2379]":                    "must speak TLS, or none",
	} {
		yaml := "product: acme\nfleet: {endpoints: " + endpoints + "}\n"
		_, err := Load(Source{File: "usher.yaml", Data: []byte(yaml)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", endpoints, err, want)
		}
	}
}
