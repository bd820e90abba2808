//go:build !race

package bubble

// alone does nothing: without the race detector, bubbles may have all processors.
func alone() (end func()) { return func() {} }
