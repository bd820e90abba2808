package upstreams

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin"
)

// section is a used system's configuration, and keeps the environment that it gets.
type section struct{ lent plugin.Environment }

func (*section) Used() bool { return true }

func (*section) Check(func(key, text string)) {}

func (s *section) Open(e plugin.Environment) (plugin.Upstream, error) {
	s.lent = e
	return fetcher{system: "toy"}, nil
}

// A system's section opens its upstream with the transport and the files that the configuration names, but not with the
// certificate of the native protocol. An error of reading names the key of the file.
func TestOpen(t *testing.T) {
	c := config.Default()
	s := &section{}
	c.Upstream.Systems = config.Systems{"toys": s}
	o := &Opener{Settings: func() *config.Config { return c }}
	got, err := o.Open(map[string]plugin.Upstream{"given": fetcher{system: "given"}})
	if err != nil || len(got) != 2 || got["toy"] == nil || got["given"] == nil {
		t.Fatalf("%v, %v", got, err)
	}
	through, err := s.lent.Transport.(*way).present()
	if e := s.lent; err != nil || through.Proxy == nil || len(through.TLSClientConfig.Certificates) != 0 ||
		e.CallWithin != c.Upstream.Timeout.Duration() {
		t.Errorf("it is lent %+v", e)
	}
	named := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(named, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := s.lent.ReadFile(named); err != nil || string(b) != "secret" {
		t.Errorf("the token is %q, %v", b, err)
	}
	for want, set := range map[string]func(*config.Upstream){
		"upstream.ca_file: ": func(u *config.Upstream) { u.CAFile = named + "s" },
		"upstream.ca_file " + named + ": there is no certificate": func(u *config.Upstream) { u.CAFile = named },
		"upstream.client_cert_file: ": func(u *config.Upstream) {
			u.URL, u.ClientCertFile, u.ClientKeyFile = "https://localhost", named, named
		},
	} {
		bad := *c
		set(&bad.Upstream)
		o := &Opener{Settings: func() *config.Config { return &bad }}
		if _, err := o.Open(nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
