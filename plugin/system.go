package plugin

import (
	"crypto/ed25519"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// System is a licence system, as its folder exports it. Package catalog lists one value per system, and nothing else in
// the code names one. Name, Format and NewAnchor are required. Any other zero field says that the system has no such
// thing.
type System struct {
	Name    string // as Format.System, in lower case
	Format  Format
	Dialect Dialect // nil: its API is not answered locally

	// NewAnchor makes an anchor from a public key in the form that the system's vendors publish. An empty alg means the
	// key's usual algorithm.
	NewAnchor func(keyID string, key []byte, alg string) (Anchor, error)
	// Keyless is the algorithm of anchors without a vendor's key. Own gives them the agent's key.
	Keyless string
	// Own gives the agent's key to the anchors that are believed by it, and returns all anchors. It changes no
	// argument.
	Own func(anchors []Anchor, agent ed25519.PublicKey) []Anchor
	// NameSchemes sets the schemes for which an anchor is believed; none means every scheme that its algorithm serves.
	NameSchemes func(a *Anchor, schemes []string) error

	// IsLicenseKey reports whether a document is also a licence key: one that proves itself, and may open others.
	IsLicenseKey func(document []byte) bool
	// Signed returns the signed part of a document, without what people and mail add to it; a receipt has its digest. A
	// nil function means the whole document.
	Signed func(document []byte) []byte

	// HostComponent names the component of a host's fingerprint that stands for the text by which the system names a
	// host. HostValue makes the component's value from that text. No configuration can state the component.
	HostComponent string
	HostValue     func(fingerprint string) string

	// Settings returns the system's configuration with its defaults: a pointer to a struct with yaml tags, whose fields
	// are texts, numbers, switches, a time.Time, a time.Duration, structs of those, pointers to them, lists, or a
	// map[string]string. The agent decodes what stands under upstream.Section into it.
	Settings func() Settings
	Section  string // where Settings stands below upstream; empty: Name
	Carries  Carries
}

// Carries says what a request to a system's upstream carries beside the components of the fingerprint and the cores.
// The zero value is right for plugins.
type Carries struct {
	// The host's fields of Request with these names. They are empty for any other system.
	Fingerprint, Hostname, Memory, Disk bool
	// Held says that the document, the agent's key and the state stay with the system's client, and do not leave the
	// host.
	Held bool
}

// Settings is a system's configuration, decoded. A field that names a file has the tag file:"use": the file is read for
// each use, so that a renewed one is taken; see [Renewed].
type Settings interface {
	// Used reports whether the configuration asks for an upstream.
	Used() bool
	// Check reports each fault to bad. A key is relative to the section, and empty where no one key is at fault; a text
	// is a whole sentence that names the key in full.
	Check(bad func(key, text string))
	// Open makes the upstream that Used announces. It makes no call. An error names the key in full.
	Open(Environment) (Upstream, error)
}

// DialectSettings is Settings that configure the system's dialect too.
type DialectSettings interface {
	Settings
	// Dialect returns the system's dialect with these settings, in the place of System.Dialect.
	Dialect() Dialect
}

// Environment is what the agent lends an upstream. All functions are safe for concurrent use at any time while the
// agent runs.
type Environment struct {
	Key ed25519.PrivateKey // the agent's own
	// Transport uses the configured proxies and CAs, as their files are now, and shows no certificate. It belongs to
	// the upstream alone.
	Transport http.RoundTripper
	// RootCAs returns the CAs to trust, nil for the host's: another pool only where the files have changed.
	RootCAs    func() *x509.CertPool
	CallWithin time.Duration    // a whole call, with all its tries
	Now        func() time.Time // the licence time
	Anchors    func() []Anchor  // those in trust
	// Verify verifies a document as the agent does, of whichever system it is.
	Verify  func(document []byte) (*enforcer.License, *enforcer.Problem)
	Secrets func() Secrets // the licence keys at hand
	// ReadFile reads a file that the configuration names. It refuses one that others may change.
	ReadFile func(path string) ([]byte, error)
	// FileRefused is told which key's file is bad now, and why, while its last good content is used; with nil, that the
	// file is good. nil: nobody is told.
	FileRefused func(key string, err error)
}
