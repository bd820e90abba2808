package plugin

import (
	"slices"
	"strings"
	"testing"
)

// Licence keys are read a line each, whatever a mail client did to the lines; a fault never quotes a key.
func TestLicenseKeys(t *testing.T) {
	t.Parallel()
	if got, err := LicenseKeys([]byte("\xef\xbb\xbf one \r\n\n\ttwo")); err != nil ||
		!slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("%q, %v", got, err)
	}
	for text, want := range map[string]string{
		"":                                    "no licence key in it",
		" \n\n":                               "no licence key in it",
		"SECRET\x00":                          "a line of it is not a licence key",
		"SECRET\xff":                          "a line of it is not a licence key",
		strings.Repeat("x", maxKeySize+1):     "at most 16 KiB",
		strings.Repeat("SECRET\n", maxKeys+1): "at most 256 licence keys",
	} {
		if _, err := LicenseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}
