package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// shifted is a clock that is off by a span.
func shifted(by time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(by) }
}

var licenceFaults = []fault{
	{"there is no licence", func(w *ward) []string {
		w.run()
		return w.doctor()
	}, []string{"bad", "LICENSE_MISSING", "/l; put", "usher license install"}},
	{"the trusted key is another", func(w *ward) []string {
		w.usher(0, "vendor", "keygen", "--kid", "k2", "--out", w.path("other"))
		w.usher(0, "vendor", "sign", "--key", w.path("other/k2.key"), "--product", "acme", "--licensee", "L", "--limit",
			"streams=2", "--scope", "host", "--out", w.path("l/a.lic"))
		w.run()
		return w.doctor()
	}, []string{"bad", "LICENSE_KEY", "k2", "license.trust"}},
	{"the host is another", func(w *ward) []string {
		request := read(w.T, w.request())
		other := regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllStringFunc(request, func(v string) string {
			return strings.Repeat("0", 32) + v[32:]
		})
		w.sign("a.lic", "--bind", w.write("other.json", other), "--strategy", "all")
		w.run()
		return w.doctor()
	}, []string{"bad", "LICENSE_HOST", "FINGERPRINT_MISMATCH", "usher fingerprint --request"}},
	{"the host has no machine-id", func(w *ward) []string {
		w.must(os.Mkdir(w.path("etc"), 0o755))
		w.write("etc/machine-id", "0123456789abcdef0123456789abcd00\n")
		w.Setenv("HOST_ETC", w.path("etc"))
		w.sign("a.lic", "--bind", w.request(), "--strategy", "all")
		w.must(os.Remove(w.path("etc/machine-id")))
		w.run()
		return w.doctor()
	}, []string{"bad", "HOST_NO_ID", "machine-id", "systemd-machine-id-setup", "FINGERPRINT_MISMATCH"}},
	{"the licence ends soon", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any", "--expires", "5d")
		w.run()
		return w.doctor()
	}, []string{"warning", "LICENSE_ENDS_SOON", "EXPIRES_SOON", "ask the vendor for a renewal"}},
	{"a licence file is root's", func(w *ward) []string {
		w.sign("a.lic")
		w.must(os.Chmod(w.path("l/a.lic"), 0o600))
		w.give("state", "run", "sockets")
		w.socket = w.path("sockets/s")
		w.configure("", "")
		w.unit(fmt.Sprint(stranger))
		cmd := w.command()
		asStranger(cmd)
		w.start(cmd)
		return w.doctor()
	}, []string{"bad", "LICENSE_UNREADABLE", "a.lic", "chown 61234"}},
	{"a meter is used up", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any", "--meter", "renders=3")
		w.run()
		w.usher(0, "draw", "renders", "3", "--socket", w.socket)
		return w.doctor()
	}, []string{"warning", "POOL_FULL", "meter renders", "all 3 draws are drawn", "ask for more draws"}},
	{"a pool is full", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
		w.run()
		w.acquire(2)
		return w.doctor()
	}, []string{"warning", "POOL_FULL", "pool streams", "all 2 slots", "usher leases"}},
	{"the share of a site's pool is lost", func(w *ward) []string {
		w.sign("a.lic", "--scope", "site")
		w.run()
		return w.doctor()
	}, []string{"warning", "POOL_SHARE", "streams", "site server"}},
	{"the clock is in 1970", func(w *ward) []string {
		w.sign("a.lic")
		w.inProcess(shifted(time.Until(time.Unix(60, 0))))
		return w.doctor()
	}, []string{"bad", "CLOCK_PAST", "1970-01-01", "set the clock"}},
	{"the clock of a fresh host is two years ahead", func(w *ward) []string {
		w.sign("a.lic", "--expires", "300d")
		w.inProcess(shifted(2 * 365 * 24 * time.Hour))
		return w.doctor()
	}, []string{"bad", "CLOCK_AHEAD", "compare the clock", "set it", "EXPIRED"}},
}

// authority is a CA and what it vouches for.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

// newAuthority makes a CA, and puts its certificate beside the configuration.
func (w *ward) newAuthority() *authority {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	w.must(err)
	cert, err := x509.ParseCertificate(der)
	w.must(err)
	return &authority{key, cert, w.write("ca.pem",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))}
}

// serve serves over TLS with a certificate for a name or an address that ends then.
func (w *ward) serve(ca *authority, name string, until time.Time, handler http.HandlerFunc) (url string) {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: until.Add(-48 * time.Hour), NotAfter: until}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	w.must(err)
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = nil
	s.StartTLS()
	w.Cleanup(s.Close)
	return s.URL
}

// soon is an end of a good certificate.
func soon() time.Time { return time.Now().Add(12 * time.Hour) }

func status(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
}

// nobody returns an address at which nobody listens.
func (w *ward) nobody() string {
	w.Helper()
	return ownAddress(w)
}

// upstream configures an upstream, runs an agent with a good licence, and has the doctor visit.
func (w *ward) upstream(section string) []string {
	w.Helper()
	w.configure("", "upstream: {"+section+"}\n")
	w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
	w.run()
	return w.doctor()
}

var upstreamFaults = []fault{
	{"the upstream's name is unknown", func(w *ward) []string {
		return w.upstream("url: https://licences.invalid")
	}, []string{"UPSTREAM_DNS", "licences.invalid", "upstream.url"}},
	{"the upstream refuses the connection", func(w *ward) []string {
		return w.upstream("url: https://" + w.nobody())
	}, []string{"UPSTREAM_CONNECT", "connection refused", "start the server"}},
	{"the upstream's CA is unknown", func(w *ward) []string {
		return w.upstream("url: " + w.serve(w.newAuthority(), "127.0.0.1", soon(), status(404)))
	}, []string{"UPSTREAM_CA", "Test CA", "upstream.ca_file"}},
	{"the upstream's certificate has expired", func(w *ward) []string {
		ca := w.newAuthority()
		return w.upstream("ca_file: " + ca.pem + ", url: " +
			w.serve(ca, "127.0.0.1", time.Now().Add(-time.Hour), status(404)))
	}, []string{"UPSTREAM_CERT_EXPIRED", "has expired at", "renew the server's certificate"}},
	{"the upstream's certificate is for another name", func(w *ward) []string {
		ca := w.newAuthority()
		return w.upstream("ca_file: " + ca.pem + ", url: " + w.serve(ca, "licences.example.com", soon(), status(404)))
	}, []string{"UPSTREAM_CERT_NAME", "licences.example.com", "127.0.0.1"}},
	{"the upstream speaks no TLS", func(w *ward) []string {
		s := httptest.NewServer(status(404))
		w.Cleanup(s.Close)
		return w.upstream("url: " + strings.Replace(s.URL, "http:", "https:", 1))
	}, []string{"UPSTREAM_TLS", "does not speak TLS", "http://"}},
	{"the upstream answers 401", func(w *ward) []string {
		ca := w.newAuthority()
		return w.upstream("ca_file: " + ca.pem + ", url: " + w.serve(ca, "127.0.0.1", soon(), status(401)))
	}, []string{"UPSTREAM_DENIED", "401", "credentials"}},
	{"the upstream answers 403", func(w *ward) []string {
		ca := w.newAuthority()
		return w.upstream("ca_file: " + ca.pem + ", url: " + w.serve(ca, "127.0.0.1", soon(), status(403)))
	}, []string{"UPSTREAM_DENIED", "403", "credentials"}},
	{"the upstream answers 500", func(w *ward) []string {
		ca := w.newAuthority()
		return w.upstream("ca_file: " + ca.pem + ", url: " + w.serve(ca, "127.0.0.1", soon(), status(500)))
	}, []string{"UPSTREAM_FAILING", "500", "the server's log"}},
	{"the upstream's clock is another", func(w *ward) []string {
		ca := w.newAuthority()
		return w.upstream("ca_file: " + ca.pem + ", url: " + w.serve(ca, "127.0.0.1", soon(),
			func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			}))
	}, []string{"CLOCK_AHEAD", "upstream", "set the clock"}},
	{"the proxy is wrong", func(w *ward) []string {
		w.env = []string{"HTTPS_PROXY=http://" + w.nobody()}
		return w.upstream("url: https://licences.invalid")
	}, []string{"UPSTREAM_PROXY", "the proxy http://127.", "connection refused", "HTTPS_PROXY"}},
	{"the proxy lets nobody through", func(w *ward) []string {
		s := httptest.NewServer(status(407))
		w.Cleanup(s.Close)
		w.env = []string{"HTTPS_PROXY=" + s.URL}
		return w.upstream("url: https://licences.invalid")
	}, []string{"UPSTREAM_PROXY", "407", "HTTPS_PROXY"}},
	{"the check-in is overdue", func(w *ward) []string {
		at := w.nobody()
		w.configure("", "upstream: {url: 'http://"+at+"'}\n")
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any", "--check-in", "2s")
		server := exec.Command(w.bin, "upstream", "--data", w.path("server"), "--key", w.path("keys/k1.key"),
			"--license",
			w.path("l"), "--listen", at)
		w.must(server.Start())
		ended := make(chan struct{})
		go func() { server.Wait(); close(ended) }()
		w.Cleanup(func() { server.Process.Kill(); <-ended })
		w.run()
		w.until("checked in", func(l *wire.License) bool { return l.CheckIn != nil && l.CheckIn.Last != nil })
		w.must(server.Process.Kill())
		<-ended
		w.until("overdue", func(l *wire.License) bool { return l.Code == "OVERDUE" })
		return w.doctor()
	}, []string{"bad", "UPSTREAM_CONNECT", "connection refused", "OVERDUE", "start the server"}},
	{"the licence's upstream is not configured", func(w *ward) []string {
		w.sign("a.lic", "--bind", w.request(), "--strategy", "any", "--check-in", "1s", "--activation", "1s")
		w.run()
		w.until("overdue", func(l *wire.License) bool { return l.State != "valid" })
		return w.doctor()
	}, []string{"bad", "UPSTREAM_NONE", "upstream.url", "and so licence"}},
	{"the site server is dead", func(w *ward) []string {
		w.configure("", "upstream: {pools_url: 'http://"+w.nobody()+"'}\n")
		w.sign("a.lic", "--scope", "site")
		w.run()
		return w.doctor()
	}, []string{"UPSTREAM_CONNECT", "site server", "connection refused", "start the server"}},
}
