// Package upstreams makes the upstreams that a configuration asks for, and fetches first documents from them. It names
// no system: a system's own part of the configuration opens the system's upstream (see [plugin.System]). Start reading
// at [Opener.Open].
package upstreams

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// maxNamed is the size in bytes of the largest key, token or CA file that is read.
const maxNamed = 1 << 20

// maxEnrolment is the size in bytes of the largest file of enrolment tokens that is read.
const maxEnrolment = 64 << 10

// Opener makes upstreams. All fields are required; the functions are safe for concurrent use.
type Opener struct {
	Settings func() *config.Config // the present ones: a reload replaces them
	Key      ed25519.PrivateKey    // the agent's
	Own      tls.Certificate       // which the agent's key signs for itself
	Now      func() time.Time      // licence time
	Dated    func() time.Time      // the time in requests of the native protocol
	Anchors  func() []plugin.Anchor
	Secrets  func() plugin.Secrets
	// Verify verifies a document with the anchors and secrets.
	Verify    func(document []byte) (*enforcer.License, *enforcer.Problem)
	Activated func(license, word string) // see [online.Config]
}

// Open returns the configured upstreams by system: those given, the native protocol's, and those of the systems' own
// sections.
func (o *Opener) Open(given map[string]plugin.Upstream) (map[string]plugin.Upstream, error) {
	c := o.Settings()
	out := maps.Clone(given)
	if out == nil {
		out = map[string]plugin.Upstream{}
	}
	if c.Upstream.URL != "" {
		u, err := o.Native(c.Upstream.URL)
		if err != nil {
			return nil, fmt.Errorf("upstream.url: %w", err)
		}
		out[u.System()] = u
	}
	for _, section := range c.Upstream.Systems.Used() {
		e, err := o.environment(c)
		if err != nil {
			return nil, err
		}
		u, err := c.Upstream.Systems[section].Open(e)
		if err != nil {
			return nil, err
		}
		out[u.System()] = u
	}
	return out, nil
}

// environment is what one system's upstream may use of the agent.
func (o *Opener) environment(c *config.Config) (plugin.Environment, error) {
	t, err := transport(c)
	if err != nil {
		return plugin.Environment{}, err
	}
	return plugin.Environment{
		Key:        o.Key,
		Transport:  t,
		RootCAs:    t.TLSClientConfig.RootCAs,
		CallWithin: c.Upstream.Timeout.Duration(),
		Now:        o.Now,
		Anchors:    o.Anchors,
		Secrets:    o.Secrets,
		Verify:     o.Verify,
		ReadFile:   func(path string) ([]byte, error) { return c.ReadFile(path, maxNamed) },
	}, nil
}

// Native makes the client of a server of the native protocol: of upstream.url or upstream.pools_url.
func (o *Opener) Native(url string) (*online.Client, error) {
	c := o.Settings()
	t, err := transport(c)
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig.Certificates = []tls.Certificate{o.Own}
	if c.Upstream.ClientCertFile != "" {
		named, err := clientCertificate(c)
		if err != nil {
			return nil, fmt.Errorf("upstream.client_cert_file: %w", err)
		}
		t.TLSClientConfig.Certificates[0] = named
	}
	return online.NewClient(online.Config{URL: url, Key: o.Key, HTTP: &http.Client{Transport: t}, Now: o.Dated,
		Activated: o.Activated, Anchors: o.Anchors, Enrolment: o.enrolment})
}

// enrolment reads the enrolment tokens.
func (o *Opener) enrolment() ([]string, error) {
	c := o.Settings()
	if c.Upstream.EnrolmentFile == "" {
		return nil, nil
	}
	b, err := c.ReadFile(c.Upstream.EnrolmentFile, maxEnrolment)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("upstream.enrolment_file: %w; make it readable for uid %d", err, os.Geteuid())
	case err != nil:
		return nil, fmt.Errorf("upstream.enrolment_file: %w", err)
	}
	return online.ReadTokens(string(b)), nil
}

// clientCertificate reads the configured client certificate and its key.
func clientCertificate(c *config.Config) (tls.Certificate, error) {
	public, err := c.ReadFile(c.Upstream.ClientCertFile, maxNamed)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := c.ReadFile(c.Upstream.ClientKeyFile, maxNamed)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(textual.PEM(public), textual.PEM(private))
}

// transport is the way to an upstream, with the proxies of the environment and the configured CAs.
func transport(c *config.Config) (*http.Transport, error) {
	cas, err := rootCAs(c)
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.IdleConnTimeout, t.MaxResponseHeaderBytes = 1, 30*time.Second, 64<<10
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cas}
	return t, nil
}

// rootCAs returns the CAs to trust on the way: the host's, and the configured one; nil: the host's alone.
func rootCAs(c *config.Config) (*x509.CertPool, error) {
	path := c.Upstream.CAFile
	if path == "" {
		return nil, nil
	}
	pem, err := c.ReadFile(path, maxNamed)
	if err != nil {
		return nil, fmt.Errorf("upstream.ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(textual.PEM(pem)) {
		return nil, fmt.Errorf("upstream.ca_file %s: there is no certificate in PEM in it", path)
	}
	return pool, nil
}
