//go:build !amd64 && !arm64

package enforcer

// prefetch does nothing: no instruction of this architecture is used for it.
func prefetch(*uint32) {}
