package brainframe

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Format reads licence keys: base64 of a signed document of another system. Its zero value knows no other system, and
// recognises nothing but terms without a signature. See [Format.Within].
type Format struct {
	within []plugin.Format
}

var _ plugin.Wrapper = Format{}

// Within returns the format with the systems whose documents a licence key may hold.
func (Format) Within(others []plugin.Format) plugin.Format {
	return Format{within: slices.Clone(others)}
}

// System returns "brainframe".
func (Format) System() string { return System }

// recognisedBy is how many bytes of a key are looked at to recognise it.
const recognisedBy = 4096

// Recognise reports whether the bytes are a licence key, or the beginning of one.
func (f Format) Recognise(document []byte) bool {
	if len(document) > plugin.MaxDocument {
		return false
	}
	text := trim(document[:min(len(document), recognisedBy)])
	inside, err := decode(text[:len(text)/4*4]) // whole groups decode by themselves
	if err != nil {
		inside, err = decode(text)
	}
	return err == nil && (f.inside(inside) != nil || isBare(inside))
}

// inside returns the format of a wrapped document; nil: none knows it.
func (f Format) inside(document []byte) plugin.Format {
	for _, other := range f.within {
		if len(document) > 0 && other.Recognise(document) {
			return other
		}
	}
	return nil
}

// Verify checks a licence key; see [plugin.Format]. The format of the wrapped document verifies that document with the
// keys that are in trust for BrainFrame. A key that is in trust for the wrapped document's own system too is refused,
// because then one licence could count twice.
func (f Format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if len(document) > plugin.MaxDocument {
		return nil, malformed("", "it has %d bytes; a licence key has at most %d (1 MiB)", len(document),
			plugin.MaxDocument)
	}
	wrapped, err := Unwrap(document)
	if err != nil {
		return nil, malformed("copy the whole key again, as the vendor sent it", "%v", err)
	}
	other := f.inside(wrapped)
	switch {
	case other == nil && isBare(wrapped):
		return nil, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
			Reason: "it states terms that nobody has signed",
			Hint:   "ask the vendor for a signed licence in base64"}
	case other == nil:
		return nil, malformed("ask the vendor for a licence that this agent can verify, in base64",
			"what it holds is no licence that can be verified")
	}
	as, both := relabel(anchors, other.System())
	l, p := other.Verify(wrapped, as)
	if p != nil {
		q := *p
		q.System = System
		if q.Code == enforcer.UntrustedKey {
			q.Hint = "a key under license.trust counts here with system: brainframe; " + q.Hint
		}
		p = &q
	}
	if l == nil {
		return nil, p
	}
	out := *l
	out.System = System
	if p == nil && slices.Contains(both, out.KeyID) {
		p = &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
			Reason: fmt.Sprintf("signed by key %q, which is in trust for both %s and %s: the licence could count "+
				"twice", plugin.Short(out.KeyID), System, other.System()),
			Hint: "leave the key under license.trust for one of the two systems"}
	}
	return &out, p
}

// relabel returns BrainFrame's anchors as those of another system, and the ids of those whose key is in trust for that
// system as well.
func relabel(anchors []plugin.Anchor, system string) (as []plugin.Anchor, both []string) {
	for _, a := range anchors {
		if a.System != System {
			continue
		}
		if slices.ContainsFunc(anchors, func(b plugin.Anchor) bool { return b.System == system && sameKey(a, b) }) {
			both = append(both, a.KeyID)
		}
		a.System = system
		as = append(as, a)
	}
	return as, both
}

// sameKey reports whether two anchors have one key.
func sameKey(a, b plugin.Anchor) bool {
	switch k := a.Key.(type) {
	case ed25519.PublicKey:
		return k.Equal(b.Key)
	case *ecdsa.PublicKey:
		return k.Equal(b.Key)
	case *rsa.PublicKey:
		return k.Equal(b.Key)
	}
	return false
}

// Unwrap returns the document in a licence key. White space, a byte order mark and the quoting of mail are forgiven,
// either alphabet of base64 is read, and padding may be missing (RFC 4648, 4 and 5).
func Unwrap(key []byte) ([]byte, error) {
	text := trim(key)
	if len(text) == 0 {
		return nil, errors.New("it is empty")
	}
	wrapped, err := decode(text)
	if err != nil {
		return nil, errors.New("it is not base64: it has been cut off or changed, or is no licence key")
	}
	return wrapped, nil
}

// trim removes all that editors and mail put around and into base64.
func trim(document []byte) []byte {
	out := make([]byte, 0, len(document))
	for line := range bytes.Lines(bytes.TrimPrefix(document, []byte("\xef\xbb\xbf"))) {
		line = bytes.TrimLeft(line, "> \t")
		for _, c := range line {
			if !strings.ContainsRune(" \t\r\n", rune(c)) {
				out = append(out, c)
			}
		}
	}
	return out
}

// decode reads base64 of either alphabet.
func decode(text []byte) ([]byte, error) {
	of := base64.RawStdEncoding.Strict()
	if bytes.ContainsAny(text, "-_") {
		of = base64.RawURLEncoding.Strict()
	}
	padding := len(text) - len(bytes.TrimRight(text, "="))
	if padding > 2 || padding > 0 && len(text)%4 != 0 {
		return nil, base64.CorruptInputError(len(text))
	}
	return of.AppendDecode(nil, text[:len(text)-padding])
}

// isBare reports whether a document states terms as BrainFrame's API shows them, without a signature.
func isBare(document []byte) bool {
	if jsontext.Value(document).Kind() != '{' {
		return false
	}
	var o map[string]jsontext.Value
	if json.Unmarshal(document, &o) != nil {
		return false
	}
	if terms, ok := o["terms"]; ok {
		o = nil
		if json.Unmarshal(terms, &o) != nil {
			return false
		}
	}
	for name := range o {
		if slices.Contains(termNames, name) {
			return true
		}
	}
	return false
}

func malformed(hint, format string, args ...any) *enforcer.Problem {
	return &enforcer.Problem{System: System, Code: enforcer.Malformed, Reason: fmt.Sprintf(format, args...), Hint: hint}
}
