package upstreams

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// way is the way to one upstream, with the proxies of the environment. It trusts the configured CAs and shows the
// configured certificate as their files are at each call; connections that are open stay as they are.
type way struct {
	trusted func() (*x509.CertPool, error)   // nil, or of a nil pool: the host's CAs
	shown   func() (*tls.Certificate, error) // nil: no certificate is shown

	mu      sync.Mutex // guards all below
	cas     *x509.CertPool
	cert    *tls.Certificate
	through *http.Transport // made for cas and cert; nil: none is yet
}

func (o *Opener) way(c *config.Config) *way {
	w := &way{}
	if path := c.Upstream.CAFile; path != "" {
		w.trusted = (&plugin.Renewed[*x509.CertPool]{Told: o.refused("upstream.ca_file"),
			Read: func() ([]byte, error) {
				b, err := c.ReadFile(path, maxNamed)
				if err != nil {
					err = fmt.Errorf("upstream.ca_file: %w; put the CA's certificate there, in PEM", err)
				}
				return b, err
			},
			Parse: func(pem []byte) (*x509.CertPool, error) {
				pool, err := x509.SystemCertPool()
				if err != nil {
					pool = x509.NewCertPool()
				}
				if !pool.AppendCertsFromPEM(textual.PEM(pem)) {
					return nil, fmt.Errorf("upstream.ca_file %s: there is no certificate in PEM in it", path)
				}
				return pool, nil
			}}).Get
	}
	return w
}

// refused returns what is told of a key's file; nil where nobody wants to know.
func (o *Opener) refused(key string) func(error) {
	if o.FileRefused == nil {
		return nil
	}
	return func(err error) { o.FileRefused(key, err) }
}

// clientCertificate is the configured client certificate with its key. While one of the two files is renewed already,
// and the other is not, the former pair is shown.
func (o *Opener) clientCertificate(c *config.Config) *plugin.Renewed[*tls.Certificate] {
	const between = "\x00"
	return &plugin.Renewed[*tls.Certificate]{Told: o.refused("upstream.client_cert_file"),
		Read: func() ([]byte, error) {
			public, err := c.ReadFile(c.Upstream.ClientCertFile, maxNamed)
			if err != nil {
				return nil, fmt.Errorf("upstream.client_cert_file: %w; put the certificate there, in PEM", err)
			}
			private, err := c.ReadFile(c.Upstream.ClientKeyFile, maxNamed)
			if err != nil {
				return nil, fmt.Errorf("upstream.client_key_file: %w; put the key there, in PEM", err)
			}
			return bytes.Join([][]byte{textual.PEM(public), textual.PEM(private)}, []byte(between)), nil
		},
		Parse: func(both []byte) (*tls.Certificate, error) {
			public, private, _ := bytes.Cut(both, []byte(between))
			pair, err := tls.X509KeyPair(public, private)
			if err != nil {
				return nil, fmt.Errorf("upstream.client_cert_file: %w", err)
			}
			return &pair, nil
		}}
}

// rootCAs returns the CAs to trust now; nil: the host's.
func (w *way) rootCAs() *x509.CertPool {
	t, err := w.present()
	if err != nil { // the files were good when the way was made
		return nil
	}
	return t.TLSClientConfig.RootCAs
}

// present returns what leads there with the files as they are.
func (w *way) present() (*http.Transport, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var cas *x509.CertPool
	var cert *tls.Certificate
	var failed, err error
	if w.trusted != nil {
		cas, failed = w.trusted()
	}
	if w.shown != nil {
		cert, err = w.shown()
	}
	if err := errors.Join(failed, err); err != nil {
		return nil, err
	}
	if w.through != nil && cas == w.cas && cert == w.cert {
		return w.through, nil
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.IdleConnTimeout, t.MaxResponseHeaderBytes = 1, 30*time.Second, 64<<10
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cas}
	if cert != nil {
		t.TLSClientConfig.Certificates = []tls.Certificate{*cert}
	}
	if w.through != nil {
		w.through.CloseIdleConnections()
	}
	w.cas, w.cert, w.through = cas, cert, t
	return t, nil
}

// RoundTrip implements [http.RoundTripper].
func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	t, err := w.present()
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return t.RoundTrip(r)
}

// CloseIdleConnections is for [http.Client].
func (w *way) CloseIdleConnections() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.through != nil {
		w.through.CloseIdleConnections()
	}
}
