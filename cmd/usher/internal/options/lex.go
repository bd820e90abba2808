package options

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// line is one option with its words: a line of the file, or several that backslashes join.
type line struct {
	first, last int      // numbers of its lines in the file, from 1 on
	source      []string // its lines as they stand in the file
	words       []word
	fault       *Fault // of its words; nil: they can be read
}

// word is a word of a line, without the quotes that were in it.
type word struct {
	text   string
	quoted bool // at least a part of it
}

// maxLine is how many bytes of a line FlexNet and RLM read; RLM drops the rest of a longer one.
func (s System) maxLine() int {
	if s == RLM {
		return 1023
	}
	return 4000
}

// linesOf cuts a file into options, comments and blank lines. Each line of the file is in exactly one of them.
func linesOf(text string) (out []line) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.TrimSuffix(strings.ReplaceAll(text, "\r", "\n"), "\n")
	if text == "" {
		return nil
	}
	continued := false
	n := 0
	for raw := range strings.SplitSeq(text, "\n") {
		n++
		if continued {
			l := &out[len(out)-1]
			l.last = n
			l.source = append(l.source, raw)
		} else {
			out = append(out, line{first: n, last: n, source: []string{raw}})
		}
		// A comment ends with its line, whatever is at its end.
		body := strings.TrimRightFunc(raw, unicode.IsSpace)
		continued = strings.HasSuffix(body, `\`) && (continued || !isComment(raw))
	}
	for i := range out {
		out[i].split()
	}
	return out
}

func isComment(s string) bool {
	return strings.HasPrefix(strings.TrimLeftFunc(s, unicode.IsSpace), "#")
}

// text returns the line's content with what a backslash joins.
func (l *line) text() string {
	parts := make([]string, len(l.source))
	for i, s := range l.source {
		s = strings.TrimRightFunc(s, unicode.IsSpace)
		if i < len(l.source)-1 || len(l.source) == 1 && !isComment(s) {
			s = strings.TrimSuffix(s, `\`)
		}
		parts[i] = s
	}
	return strings.Join(parts, " ")
}

// split finds the words of a line. A comment and a blank line have none.
func (l *line) split() {
	text := l.text()
	if isComment(text) {
		return
	}
	var (
		word    word
		inside  bool // of a word
		quoting bool
	)
	end := func() {
		if inside {
			l.words = append(l.words, word)
		}
		word.text, word.quoted, inside = "", false, false
	}
	for _, r := range text {
		switch {
		case r == '"':
			quoting, inside, word.quoted = !quoting, true, true
		case unicode.IsSpace(r) && !quoting:
			end()
		default:
			word.text += string(r)
			inside = true
		}
	}
	end()
	switch {
	case quoting:
		l.fault = &Fault{Line: l.first, Cause: `a quote (") is not closed`, Mend: `close it, or leave it out`}
	case strings.ContainsAny(text, "“”„"):
		l.fault = &Fault{Line: l.first, Cause: "typographic quotes, as word processors make them",
			Mend: `write " instead, or leave them out`}
	case strings.ContainsFunc(text, unreadable):
		l.fault = &Fault{Line: l.first, Cause: "a character that is no text", Mend: "write the line once more"}
	}
	for _, w := range l.words {
		if l.fault == nil && strings.HasPrefix(w.text, "#") && !w.quoted {
			l.fault = &Fault{Line: l.first, Cause: fmt.Sprintf("a comment (%s) behind an option", clip(w.text)),
				Mend: "put the comment on a line of its own"}
		}
	}
}

// unreadable reports a character that has no place in an options file.
func unreadable(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) && r != '\t' }

// latin1 returns a text whose bytes are not UTF-8 as ISO 8859-1 has them: options files may be in that.
func latin1(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

// clip shortens a text for a message.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
