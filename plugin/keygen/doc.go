// Package keygen reads the documents of Keygen (keygen.sh): licence files, machine files, and signed licence keys of
// every scheme. docs/systems/keygen.md lists what each attribute becomes, and why.
//
// The algorithm is the anchor's and never the file's. A signature is checked before anything is decrypted: everybody
// with the licence key can encrypt, so a good tag proves nothing. Start reading at [Format.Open].
package keygen

// System is the system's name.
const System = "keygen"

// Component is the component of a host's fingerprint that holds Keygen's name for this host. See [Fingerprint].
const Component = "keygen-fingerprint"
