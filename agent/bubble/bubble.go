// Package bubble runs tests in which no real time passes, as testing/synctest does, also with the race detector. Tests
// alone import it. Start reading at [Test].
package bubble

import (
	"testing"
	"testing/synctest"
)

// Test is [synctest.Test] for the house's tests. While it runs with the race detector, the process has one processor:
// see alone.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer alone()()
	synctest.Test(t, f)
}
