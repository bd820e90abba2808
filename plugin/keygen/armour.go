package keygen

import (
	"bytes"
	"encoding/base64"
	"strings"

	"github.com/go-json-experiment/json"
)

// kind is the kind of a document.
type kind string

const (
	licenseFile kind = "license"
	machineFile kind = "machine"
	signedKey   kind = "key"
)

// The lines that armour a file.
const (
	armourBegin = "-----BEGIN "
	armourEnd   = "-----END "
	armourTail  = " FILE-----"
)

// kindOf returns the kind of file that an armour line begins or ends; empty: the line is no armour.
func kindOf(line, prefix string) kind {
	s, ok := strings.CutPrefix(line, prefix)
	if !ok {
		return ""
	}
	switch s, _ := strings.CutSuffix(s, armourTail); s {
	case "LICENSE":
		return licenseFile
	case "MACHINE":
		return machineFile
	}
	return ""
}

// lines returns a document's lines and removes the traces of e-mail and editors: a byte order mark, CRLF, indentation,
// quoting. The signature covers none of these.
func lines(document []byte) (out []string) {
	for line := range bytes.Lines(bytes.TrimPrefix(document, []byte("\xef\xbb\xbf"))) {
		s := strings.Trim(string(line), " \t\r\n")
		for strings.HasPrefix(s, ">") {
			s = strings.TrimLeft(s[1:], " \t")
		}
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// armoured reports whether the lines are a Keygen file, or the remains of one.
func armoured(lines []string) bool {
	for i, s := range lines {
		if kindOf(s, armourBegin) != "" {
			// An empty armour may belong to any format.
			return i+1 < len(lines) && kindOf(lines[i+1], armourEnd) == ""
		}
		if kindOf(s, armourEnd) != "" {
			return i > 0
		}
	}
	return false
}

// envelope is the content of the armour.
type envelope struct {
	Enc string `json:"enc"`
	Sig string `json:"sig"`
	Alg string `json:"alg"`
}

// strip removes the armour and returns the text inside, or the problem with it.
func strip(lines []string) (k kind, body string, problem string) {
	var b strings.Builder
	ended := false
	for _, s := range lines {
		begins, ends := kindOf(s, armourBegin), kindOf(s, armourEnd)
		switch {
		case begins != "" && k != "":
			return "", "", "it holds two files; give each a file of its own"
		case begins != "":
			k = begins
		case ends != "" && (k != ends || ended):
			return "", "", "its END line has no BEGIN line of the same kind"
		case ends != "":
			ended = true
		case k != "" && !ended:
			b.WriteString(s)
		}
	}
	if k == "" || !ended {
		return "", "", "its END line is missing: the file is cut off; copy the whole file again"
	}
	return k, b.String(), ""
}

// open reads the envelope within the armour.
func (e *envelope) open(body string) (problem string) {
	raw, ok := unbase64(body)
	if !ok {
		return "the text in its armour is not base64: it has been changed on the way"
	}
	if err := json.Unmarshal(raw, e); err != nil || e.Enc == "" || e.Sig == "" || e.Alg == "" {
		return "the text in its armour is not JSON with enc, sig and alg: it has been changed on the way"
	}
	return ""
}

// unbase64 decodes standard base64 with padding. It accepts one spelling of each value.
func unbase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // the decoder would pass over them
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil
}

// unbase64url decodes base64url, padded or not.
func unbase64url(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	enc := base64.RawURLEncoding
	if strings.HasSuffix(s, "=") {
		enc = base64.URLEncoding
	}
	b, err := enc.Strict().DecodeString(s)
	return b, err == nil
}
