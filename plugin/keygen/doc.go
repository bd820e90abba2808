// Package keygen reads the documents of Keygen (keygen.sh): licence files, machine files, and signed licence keys of
// every scheme. docs/systems/keygen.md says what becomes of each attribute, and why.
//
// The algorithm is the anchor's and never the file's. A signature is checked before anything is decrypted: whoever has
// the licence key can encrypt, so that a good tag proves nothing. Start reading at [Format.Open].
package keygen

// System is the system's name.
const System = "keygen"

// Component is the component of a host's fingerprint under which Usher keeps what Keygen calls this host. See
// [Fingerprint].
const Component = "keygen-fingerprint"
