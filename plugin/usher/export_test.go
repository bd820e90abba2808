package usher

import "testing"

// Encode writes claims for tests.
func Encode(t testing.TB, c *Claims) []byte {
	t.Helper()
	b, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
