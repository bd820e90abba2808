package plugin

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/usher-agent/usher/plugin/textual"
)

// Bounds of a file of licence keys.
const (
	maxKeys    = 256
	maxKeySize = 16 << 10 // bytes of one
)

// MaxLicenseKeys is the size in bytes of the largest file of licence keys that is read.
const MaxLicenseKeys = maxKeys * maxKeySize

// LicenseKeys reads the licence keys of [Secrets], one per line: at most 256 of at most 16 KiB. An error never quotes
// one.
func LicenseKeys(b []byte) ([]string, error) {
	var out []string
	for _, s := range textual.Lines(b) {
		switch {
		case len(s) > maxKeySize || !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable):
			return nil, errors.New("a line of it is not a licence key: a text of at most 16 KiB")
		default:
			out = append(out, s)
		}
	}
	switch {
	case len(out) == 0:
		return nil, errors.New("there is no licence key in it")
	case len(out) > maxKeys:
		return nil, fmt.Errorf("it has %d lines; at most %d licence keys may be in one file", len(out), maxKeys)
	}
	return out, nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
