// Package identity is what an agent is known by: its Ed25519 key, the proofs that the key signs for products, the
// certificate that it speaks TLS with, and the vendors' attestations of it. The key never leaves the package's callers:
// it is read from one file, and made where there is none. Start reading at [File.Load].
package identity
