package agent_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

// renewKeygenKeys renews the licence keys of license.key_file.
func renewKeygenKeys(t *testing.T, key string) {
	l := keygentest.License{ID: "lic-1", Key: "SECRET-KEY-1", Product: "acme",
		Attributes: keygen.Attributes{Name: new("Example")}}
	h, _, _ := keygenHouse(t, l)
	if err := os.Remove(h.path("l/acme.key")); err != nil {
		t.Fatal(err)
	}
	file := h.path("keys")
	put(t, file, "ANOTHER-KEY-99\n")
	h.config = strings.Replace(h.config, "license:\n", "license:\n  key_file: "+file+"\n", 1)
	h.start()
	h.until("not opened", func(l *wire.License) bool { return l.State != "valid" })
	put(t, file, l.Key+"\n")
	h.reloads(key, file)
	h.until("opened", func(l *wire.License) bool { return l.State == "valid" })
}

func init() {
	renewals["license.key_file"] = renewKeygenKeys
	askers["upstream.keygen.token_file"] = asker{"keygen: {account: " + keygentest.New(time.Now).Account +
		", url: '%[1]s', token_file: %[2]s}",
		func(t *testing.T, o *upstreams.Opener, r *recorder) func(context.Context, plugin.Upstream) error {
			account := keygentest.New(time.Now)
			account.Put(keygentest.License{ID: "lic-1", Key: "KEY-1", Product: "acme"})
			a, err := catalog.Anchor("keygen", "account", []byte(account.PublicKey()), "")
			if err != nil {
				t.Fatal(err)
			}
			o.Anchors = func() []plugin.Anchor { return []plugin.Anchor{a} }
			r.answers = account
			return checksIn(account.LicenseFile("lic-1", "base64+ed25519", 30*24*time.Hour))
		}}
}
