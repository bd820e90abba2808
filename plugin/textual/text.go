// Package textual reads texts as people hand them over, and writes foreign texts for people. A licence, a key, a
// request or a secret comes by e-mail, editor, ticket and shell, and each of them leaves traces: a byte order mark,
// UTF-16, carriage returns, quotes, blanks of many kinds. Nothing of these is signed, so that nothing is lost with
// them.
//
// Reading: [Decode] for texts of a grammar of their own (JSON, YAML), [JSON], [PEM], [Value] for one value on one line,
// [Lines] for one value a line, [Readings] for licence documents. Writing: [Printable] for names and lines,
// [Valid] for texts that become JSON.
package textual

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Decode returns a text in UTF-8 without a byte order mark: it may come in UTF-8, or in UTF-16 of either order, with a
// mark or without. Everything else stays as it is.
func Decode(b []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xfe")):
		order, b = binary.LittleEndian, b[2:]
	case bytes.HasPrefix(b, []byte("\xfe\xff")):
		order, b = binary.BigEndian, b[2:]
	case zeros(b, 1):
		order = binary.LittleEndian
	case zeros(b, 0):
		order = binary.BigEndian
	}
	if order != nil {
		units := make([]uint16, len(b)/2)
		for i := range units {
			units[i] = order.Uint16(b[2*i:])
		}
		b = []byte(string(utf16.Decode(units)))
	}
	for bytes.HasPrefix(b, []byte("\ufeff")) {
		b = b[len("\ufeff"):]
	}
	return b
}

// zeros reports whether every second byte of the beginning is zero, from the given one on, and no other: so looks
// UTF-16 of ASCII without a byte order mark.
func zeros(b []byte, from int) bool {
	const look = 128
	if len(b) < 4 || len(b)%2 != 0 {
		return false
	}
	head, zero := b[:min(len(b), look)], 0
	for i, c := range head {
		switch {
		case c != 0:
		case i%2 != from:
			return false
		default:
			zero++
		}
	}
	return zero*8 >= len(head)*3
}

// quotes are the pairs that stand around a value by mistake.
var quotes = map[rune]rune{'"': '"', '\'': '\'', '`': '`', '“': '”', '„': '“', '‘': '’', '«': '»'}

// blank reports whether a character at the end of a value stands for nothing: white space, and what
// takes no room.
func blank(r rune) bool { return unicode.IsSpace(r) || invisible(r) }

// invisible reports whether a character takes no room: a zero-width space or joiner, a soft hyphen, a byte order mark,
// a change of the writing direction.
func invisible(r rune) bool { return unicode.Is(unicode.Cf, r) }

// Trim returns a value without white space and invisible characters at its ends.
func Trim(s string) string { return strings.TrimFunc(s, blank) }

// Value returns one value without what its way here has put around it: white space, carriage returns, invisible
// characters and one pair of quotes. A quote at one end alone stays.
func Value(s string) string {
	s = Trim(s)
	first, n := utf8.DecodeRuneInString(s)
	last, m := utf8.DecodeLastRuneInString(s)
	if closing, ok := quotes[first]; ok && closing == last && len(s) >= n+m {
		s = Trim(s[n : len(s)-m])
	}
	return s
}

// Around names what [Value] takes off a value, for a message; empty: nothing.
func Around(s string) string {
	var found []string
	trimmed := Trim(s)
	if trimmed != s {
		at := strings.Index(s, trimmed)
		rest := s[:at] + s[at+len(trimmed):]
		switch {
		case strings.ContainsRune(rest, '\r'):
			found = append(found, "a carriage return")
		case strings.ContainsFunc(rest, unicode.IsSpace):
			found = append(found, "blanks")
		default:
			found = append(found, "invisible characters")
		}
	}
	if Value(trimmed) != trimmed {
		found = append(found, "quotes")
	}
	return strings.Join(found, " and ")
}

// Lines returns the values of a text that has one a line, such as a file of keys or tokens, each as [Value] reads it.
// Empty lines are left out.
func Lines(b []byte) (out []string) {
	for line := range strings.FieldsFuncSeq(string(Decode(b)), func(r rune) bool { return r == '\n' || r == '\r' }) {
		if s := Value(line); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// Values is [Lines] as one text that keeps its number of lines, for messages that name one.
func Values(b []byte) []byte {
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(Decode(b))), "\n")
	for i, line := range lines {
		lines[i] = Value(line)
	}
	return []byte(strings.Join(lines, "\n"))
}

// JSON returns a JSON text without what its way here has put around it: see [Readings]. A text that is no JSON object
// or list comes back as [Decode] has it.
func JSON(b []byte) []byte {
	decoded := Decode(b)
	if likeJSON(decoded) {
		return decoded
	}
	for r := range Readings(b) {
		if likeJSON(r) {
			return r
		}
	}
	return decoded
}

func likeJSON(b []byte) bool {
	b = bytes.TrimSpace(b)
	return len(b) > 1 && (b[0] == '{' && b[len(b)-1] == '}' || b[0] == '[' && b[len(b)-1] == ']')
}

// PEM returns a key or a certificate in PEM as encoding/pem reads it, without what its way here has done to it: see
// [Readings]. A text without PEM comes back as [Value] reads it: some keys are one word.
func PEM(b []byte) []byte {
	decoded := Decode(b)
	if block, _ := pem.Decode(decoded); block != nil {
		return decoded
	}
	for r := range Readings(b) {
		blocks := []byte(armours(string(r)))
		if block, _ := pem.Decode(blocks); block != nil {
			return blocks
		}
	}
	if isBinary(decoded) {
		return decoded
	}
	return []byte(Value(string(decoded)))
}

// isBinary reports whether bytes are no text, such as a key in DER.
func isBinary(b []byte) bool {
	return !utf8.Valid(b) || bytes.ContainsFunc(b, func(r rune) bool {
		return unicode.IsControl(r) && !unicode.IsSpace(r)
	})
}
