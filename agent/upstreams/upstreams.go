// Package upstreams makes the upstreams that a configuration asks for, and fetches first documents from them. It names
// no system: a system's own part of the configuration opens the system's upstream (see [plugin.System]). Start reading
// at [Opener.Open].
package upstreams

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// maxNamed is the size in bytes of the largest key, token or CA file that is read.
const maxNamed = 1 << 20

// maxEnrolment is the size in bytes of the largest file of enrolment tokens that is read.
const maxEnrolment = 64 << 10

// Opener makes upstreams. All other fields than FileRefused are required; the functions are safe for concurrent use.
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
	// FileRefused is told of files that are bad now; see [plugin.Environment]. nil: nobody is.
	FileRefused func(key string, err error)
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
			return nil, keyed("upstream.url", err)
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

// keyed says of an error that names no key of the upstream's yet which one is at fault.
func keyed(key string, err error) error {
	if strings.HasPrefix(err.Error(), "upstream.") {
		return err
	}
	return fmt.Errorf("%s: %w", key, err)
}

// environment is what one system's upstream may use of the agent.
func (o *Opener) environment(c *config.Config) (plugin.Environment, error) {
	w := o.way(c)
	if _, err := w.present(); err != nil {
		return plugin.Environment{}, err
	}
	return plugin.Environment{
		Key:         o.Key,
		Transport:   w,
		RootCAs:     w.rootCAs,
		CallWithin:  c.Upstream.Timeout.Duration(),
		Now:         o.Now,
		Anchors:     o.Anchors,
		Secrets:     o.Secrets,
		Verify:      o.Verify,
		ReadFile:    func(path string) ([]byte, error) { return c.ReadFile(path, maxNamed) },
		FileRefused: o.FileRefused,
	}, nil
}

// Native makes the client of a server of the native protocol: of upstream.url or upstream.pools_url.
func (o *Opener) Native(url string) (*online.Client, error) {
	c := o.Settings()
	w := o.way(c)
	w.shown = func() (*tls.Certificate, error) { return &o.Own, nil }
	if c.Upstream.ClientCertFile != "" {
		w.shown = o.clientCertificate(c).Get
	}
	if _, err := w.present(); err != nil {
		return nil, err
	}
	return online.NewClient(online.Config{URL: url, Key: o.Key, HTTP: &http.Client{Transport: w}, Now: o.Dated,
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

// Check looks at the files that a configuration names for upstreams, as Open and Native do, and opens nothing that
// lasts. It reports the first that is bad.
func (o *Opener) Check(c *config.Config) error {
	dry := *o
	dry.Settings, dry.FileRefused = func() *config.Config { return c }, nil
	if _, err := dry.Open(nil); err != nil {
		return err
	}
	if c.Upstream.PoolsURL != "" {
		if _, err := dry.Native(c.Upstream.PoolsURL); err != nil {
			return keyed("upstream.pools_url", err)
		}
	}
	for _, at := range c.Upstream.PoolsURLs {
		if _, err := dry.Native(at); err != nil {
			return keyed("upstream.pools_urls", err)
		}
	}
	if _, err := dry.enrolment(); err != nil && !errors.Is(err, fs.ErrNotExist) { // the tokens may come later
		return err
	}
	return nil
}
