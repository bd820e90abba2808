//go:build amd64 || arm64

package enforcer

// prefetch has the processor fetch what lies at p, and does not wait for it. It changes nothing.
//
//go:noescape
func prefetch(p *uint32)
