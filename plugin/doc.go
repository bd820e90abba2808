// Package plugin is the contract between the agent and a licence system.
//
// A system turns documents into the enforcer's nouns by implementing [Format]. What a system says is input: the core
// judges it again. A system's folder below this one is self-contained, and package catalog lists the built-in ones.
package plugin

import (
	"crypto"
	"log/slog"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// MaxDocument is the size, in bytes, above which a document is not read: 1 MiB.
const MaxDocument = 1 << 20

// Anchor is a vendor's public key that documents are verified with. The algorithm is the anchor's, never the
// document's.
type Anchor struct {
	System      string
	KeyID       string
	Algorithm   string // in the system's own words: "EdDSA", "ES256", …
	Key         crypto.PublicKey
	NotBefore   time.Time // compared with a document's issue time; zero: any
	NotAfter    time.Time // compared with a document's issue time; zero: any
	Revoked     bool      // nothing that it signed is believed, whenever it says it was
	Environment enforcer.Environment
	Schemes     []string // of the system's own: what the key is believed for; none: whatever its algorithm serves
	Embedded    bool     // compiled in by the vendor
}

// Format recognises and verifies the documents of one licence system. Implementations are stateless and safe for
// concurrent use.
type Format interface {
	// System returns the system's name, such as "usher".
	System() string
	// Recognise reports whether the bytes look like a document of this system, however broken or forged. It is cheap
	// and never panics.
	Recognise(document []byte) bool
	// Verify checks the document against the anchors and returns its terms, or precisely why not. Exactly one of the
	// two is non-nil, but for Describe's sake a Problem of code BadSignature or UntrustedKey may come with the
	// unverified terms. It consults no clock.
	Verify(document []byte, anchors []Anchor) (*enforcer.License, *enforcer.Problem)
}

// Opener is a Format some of whose documents are encrypted.
type Opener interface {
	Format
	// Open is Verify with secrets. A document that none of them opens has the code Unavailable, and the hint says what
	// is missing. No secret may be found in a licence or a problem.
	Open(document []byte, anchors []Anchor, s Secrets) (*enforcer.License, *enforcer.Problem)
}

// Secrets is what encrypted documents are opened with. It prints as nothing.
type Secrets struct {
	Keys        []string // licence keys
	Fingerprint string   // what a system that names hosts by one text calls this one; empty: not known
}

// String hides the keys.
func (Secrets) String() string { return "(secrets)" }

// GoString hides the keys.
func (Secrets) GoString() string { return "(secrets)" }

// LogValue hides the keys.
func (Secrets) LogValue() slog.Value { return slog.StringValue("(secrets)") }
