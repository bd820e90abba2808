package textual

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain reports whether a terminal shows a character and does nothing else with it. Marks that change the writing
// direction and other invisible characters are no plain ones: they make a text look like another.
func plain(r rune) bool {
	return r == ' ' || unicode.IsPrint(r) && r != utf8.RuneError
}

// Printable returns a foreign text fit for one line of a terminal or a log: control characters, line ends, invisible
// characters and bytes that are no UTF-8 are written as escapes, \x1b and \u202e. A text that has none of them comes
// back as it is.
func Printable(s string) string { return escape(s, plain, sequence) }

// Screen is [Printable] for a text that may have lines and tabs of its own.
func Screen(s string) string {
	return escape(s, func(r rune) bool { return r == '\n' || r == '\t' || plain(r) }, sequence)
}

// ScreenJSON is [Screen] for a JSON text, which it leaves a JSON text of the same values. Only a byte that is no UTF-8
// becomes U+FFFD.
func ScreenJSON(s string) string {
	return escape(s, func(r rune) bool { return r == '\n' || r == '\t' || r == '\r' || plain(r) },
		func(r rune, _ string) string {
			if r > 0xffff {
				r -= 0x10000
				return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
			}
			return fmt.Sprintf(`\u%04x`, r)
		})
}

// Valid returns a text that JSON can carry: each byte that is no UTF-8 is written as \xe9, so that two names that
// differ in such bytes alone stay two.
func Valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return escape(s, func(r rune) bool { return r != utf8.RuneError }, func(r rune, raw string) string {
		if len(raw) > 1 {
			return raw // U+FFFD itself
		}
		return sequence(r, raw)
	})
}

// escape replaces the characters that are not good. write gets a character and its bytes.
func escape(s string, good func(rune) bool, write func(r rune, raw string) string) string {
	at := strings.IndexFunc(s, func(r rune) bool { return !good(r) })
	if at < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:at])
	for s = s[at:]; s != ""; {
		r, n := utf8.DecodeRuneInString(s)
		if good(r) {
			b.WriteString(s[:n])
		} else {
			b.WriteString(write(r, s[:n]))
		}
		s = s[n:]
	}
	return b.String()
}

// sequence writes a character as Go and most languages do.
func sequence(r rune, raw string) string {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		return fmt.Sprintf(`\x%02x`, raw[0])
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r == '\t':
		return `\t`
	case r < 0x80:
		return fmt.Sprintf(`\x%02x`, r)
	case r > 0xffff:
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}
