// Package plugin is the contract between the agent and a licence system.
//
// A system turns documents into the enforcer's nouns by implementing [Format]. The core judges a system's answers
// again: they are input. A system's folder below this one is self-contained, and package catalog lists the built-in
// ones: see [System] for what a folder exports. An [Upstream] speaks with the remote side of a system, a [Dialect]
// answers its API locally, and check.go bounds every answer.
package plugin

import (
	"crypto"
	"log/slog"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// MaxDocument is the size, in bytes, above which a document is not read: 1 MiB.
const MaxDocument = 1 << 20

// Anchor is a vendor's public key for verifying documents. The algorithm is the anchor's, never the document's.
type Anchor struct {
	System      string
	KeyID       string
	Algorithm   string // in the system's own words: "EdDSA", "ES256", …
	Key         crypto.PublicKey
	NotBefore   time.Time // compared with a document's issue time; zero: any
	NotAfter    time.Time // compared with a document's issue time; zero: any
	Revoked     bool      // no signature of it is believed, whatever its date
	Environment enforcer.Environment
	Schemes     []string // the system's own names of what the key is believed for; none: all that its algorithm serves
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
	// two is non-nil, with one exception: a Problem of code BadSignature or UntrustedKey may come with the unverified
	// terms, for people to see. It consults no clock.
	Verify(document []byte, anchors []Anchor) (*enforcer.License, *enforcer.Problem)
}

// Wrapper is a Format whose documents hold documents of other systems. Before it is used, package catalog lends it the
// formats of the other built-in systems that wrap nothing.
type Wrapper interface {
	Format
	// Within returns the format with the formats of what it may hold. It changes nothing of the receiver.
	Within(others []Format) Format
}

// Opener is a Format some of whose documents are encrypted.
type Opener interface {
	Format
	// Open is Verify with secrets. A document that none of them opens has the code Unavailable, and the hint says what
	// is missing. No secret may be found in a licence or a problem.
	Open(document []byte, anchors []Anchor, s Secrets) (*enforcer.License, *enforcer.Problem)
}

// Secrets open encrypted documents. They print as nothing.
type Secrets struct {
	Keys        []string // licence keys
	Fingerprint string   // the text by which some systems name this host; empty: not known
}

// String hides the keys.
func (Secrets) String() string { return "(secrets)" }

// GoString hides the keys.
func (Secrets) GoString() string { return "(secrets)" }

// LogValue hides the keys.
func (Secrets) LogValue() slog.Value { return slog.StringValue("(secrets)") }
