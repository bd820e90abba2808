package usher

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// The lines that armour a document. Between them stands the compact form, with line breaks anywhere.
const (
	armourBegin = "-----BEGIN USHER LICENSE-----"
	armourEnd   = "-----END USHER LICENSE-----"
)

// armourWidth is the length of the lines that Armour writes.
const armourWidth = 64

// Armour wraps a compact document for e-mail and for people.
func Armour(compact []byte) []byte {
	var b bytes.Buffer
	b.WriteString(armourBegin + "\n")
	for rest := bytes.TrimSpace(compact); len(rest) > 0; {
		n := min(armourWidth, len(rest))
		b.Write(rest[:n])
		b.WriteByte('\n')
		rest = rest[n:]
	}
	b.WriteString(armourEnd + "\n")
	return b.Bytes()
}

// Compact returns a document as it was signed, without its armour and without the changes of e-mail; nil where they
// cannot be told apart.
func Compact(document []byte) []byte {
	s, problem := strip(document)
	if problem != "" {
		return nil
	}
	return []byte(s)
}

// jws is the form of a compact document.
var jws = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// strip removes the armour, and the changes that e-mail and editors make. None of these is signed. It reports faults of
// the armour.
func strip(document []byte) (compact string, problem string) {
	compact, problem = unarmour(document)
	if problem == "" && jws.MatchString(compact) || len(document) > plugin.MaxDocument {
		return compact, problem
	}
	for reading := range textual.Readings(document) {
		if s, p := unarmour(reading); p == "" && jws.MatchString(s) {
			return s, ""
		}
	}
	return compact, problem
}

// unarmour removes the armour, a byte order mark, CRLF, indentation and quoting ("> "), line breaks.
func unarmour(document []byte) (compact string, problem string) {
	document = bytes.TrimPrefix(document, []byte("\xef\xbb\xbf"))
	var lines []string
	begun, ended := false, false
	for line := range bytes.Lines(document) {
		s := strings.Trim(string(line), " \t\r\n")
		for strings.HasPrefix(s, ">") {
			s = strings.TrimLeft(s[1:], " \t")
		}
		switch {
		case s == armourBegin:
			if begun {
				return "", "it holds two licences; give each a file of its own"
			}
			begun, lines = true, nil
		case s == armourEnd:
			if !begun || ended {
				return "", "its END line has no BEGIN line"
			}
			ended = true
		case begun && ended:
			if s == armourBegin {
				return "", "it holds two licences; give each a file of its own"
			}
			// Text that a mail client adds below is not part of the licence.
		case s != "":
			lines = append(lines, s)
		}
	}
	if begun && !ended {
		return "", "its END line is missing: it has been cut off; copy the whole file again"
	}
	return strings.Join(lines, ""), ""
}
