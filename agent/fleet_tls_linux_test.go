package agent_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// secured runs Debian's etcd with TLS, which takes only agents with a certificate. It returns what ends it.
func secured(t *testing.T, dir, address, peer, server, agents string) (stop func()) {
	t.Helper()
	cmd := exec.Command(openEtcdProgram(t), "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", address,
		"--advertise-client-urls", address, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer, "--log-level", "fatal", "--cert-file", server+".crt", "--key-file",
		server+".key", "--client-cert-auth", "--trusted-ca-file", agents)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait() }
	t.Cleanup(stop)
	return stop
}

// An agent that reaches etcd by TLS with a certificate of its own uses a renewed certificate, and the renewed authority
// of etcd's, without a restart; while a new certificate and its key do not fit, it goes on with the old ones.
func TestFleetCertificatesRenewed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, name := range []string{"server", "server2", "agent", "agent2"} {
		_, certificate, private := selfSigned(t, int64(i+1))
		put(t, filepath.Join(dir, name+".crt"), certificate)
		put(t, filepath.Join(dir, name+".key"), private)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	from := func(name string) string { return read(t, in(name)) }
	put(t, in("ca.pem"), from("server.crt"))
	put(t, in("cert.pem"), from("agent.crt"))
	put(t, in("key.pem"), from("agent.key"))
	address := strings.Replace(freeURL(t), "http:", "https:", 1)
	peer := freeURL(t)
	stop := secured(t, dir, address, peer, in("server"), in("agent.crt"))
	h := open(t, fmt.Sprintf("fleet: {endpoints: ['%s'], ttl: 5s, ca_file: %s, cert_file: %s, key_file: %s}\n", address,
		in("ca.pem"), in("cert.pem"), in("key.pem")))
	until := func(what string, ok func(*wire.Fleet) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
			f, err := h.Fleet(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ok(f) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: not so after a minute: %+v", what, f)
			}
		}
	}
	member := func(f *wire.Fleet) bool { return f.State == "member" || f.State == "quarantine" }
	until("it joins", member)
	put(t, in("cert.pem"), from("agent2.crt")) // the key is to come
	h.until("it says so", warnsOf("CONFIG_REFUSED"))
	until("it goes on", member)
	put(t, in("key.pem"), from("agent2.key"))
	put(t, in("ca.pem"), from("server2.crt"))
	stop()
	secured(t, dir, address, peer, in("server2"), in("agent2.crt"))
	until("it joins with what was renewed", func(f *wire.Fleet) bool { return member(f) && f.Current })
}
