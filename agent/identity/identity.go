// Package identity is how others know an agent: its Ed25519 key, the proofs that the key signs for products, the
// certificate that it speaks TLS with, and the vendors' attestations of it. The key comes from one file, which Load
// makes where there is none, and never leaves the package's callers. Start reading at [File.Load].
package identity
