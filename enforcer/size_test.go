package enforcer

import (
	"testing"
	"unsafe"
)

// A lease takes 192 bytes, which is a size class of the allocator: one field more would cost each lease 16.
func TestLeaseSize(t *testing.T) {
	if n := unsafe.Sizeof(Lease{}); n > 192 {
		t.Errorf("a lease takes %d bytes", n)
	}
}
