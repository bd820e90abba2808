package textual

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"iter"
	"maps"
	"mime/quotedprintable"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is tried for one document.
const (
	maxReadings = 512
	maxDepth    = 3 // base64 within a mail within base64
	minBlock    = 40
	maxCopies   = 6 // of the document's length, for all readings together
)

// Readings returns the ways to read a document that has changed on its way, the most faithful one first and the
// document itself never: decoded from UTF-16, without invisible characters and blanks of other kinds, without quotes
// and quoting, with its line ends put back, decoded from quoted-printable or base64, and taken out of a mail or a JSON
// answer. A reading is believed only where its signature verifies. There are at most 512, and together they cost a
// small multiple of the document's length.
func Readings(document []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		seen := map[string]bool{string(document): true}
		budget := maxCopies*len(document) + 512<<10
		read(document, 0, func(b []byte) bool {
			b = bytes.TrimSpace(b)
			if len(b) == 0 || seen[string(b)] {
				return true
			}
			seen[string(b)] = true
			budget -= len(b)
			return len(seen) <= maxReadings && budget > 0 && yield(b)
		})
	}
}

// read yields the readings of a text. It returns false once yield has.
func read(b []byte, depth int, yield func([]byte) bool) bool {
	decoded := Decode(b)
	if !utf8.Valid(decoded) || bytes.IndexByte(decoded, 0) >= 0 {
		return true // not a text
	}
	s := clean(string(decoded))
	whole := Value(s)
	for _, candidate := range []string{string(decoded), s, whole} {
		if !yield([]byte(candidate)) {
			return false
		}
	}
	texts := []string{whole}
	add := func(t string, ok bool) {
		if ok && !slices.Contains(texts, t) {
			texts = append(texts, t)
		}
	}
	add(unescaped(whole))
	add(unprintable(whole))
	add(unquoted(whole))
	for _, t := range texts {
		if blocks := armours(t); blocks != "" && !yield([]byte(blocks)) {
			return false
		}
		if !yield([]byte(t)) {
			return false
		}
	}
	if joined := strings.Join(strings.Fields(whole), ""); !yield([]byte(joined)) {
		return false
	}
	if depth == maxDepth {
		return true
	}
	for _, inner := range slices.Concat(values(string(decoded)), values(whole), blocks(whole)) {
		if !read(inner, depth+1, yield) {
			return false
		}
	}
	for _, t := range append(texts[1:], strings.Join(strings.Fields(whole), "")) {
		if t != whole && !read([]byte(t), depth+1, yield) {
			return false
		}
	}
	return true
}

// clean takes out of a text what editors and mail clients put in: invisible characters go, blanks of all kinds become
// spaces, and typographic dashes and quotes their plain kin. Line ends become newlines.
func clean(s string) string {
	s = strings.NewReplacer("\r\r\n", "\n", "\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029",
		"\n").Replace(s)
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || ' ' <= r && r <= '~':
			return r
		case invisible(r):
			return -1
		case unicode.IsSpace(r):
			return ' '
		case unicode.Is(unicode.Pd, r) || r == '−':
			return '-'
		case strings.ContainsRune("“”„‟", r):
			return '"'
		case strings.ContainsRune("‘’‚‛", r):
			return '\''
		}
		return r
	}, s)
}

// unescaped puts the line ends back that a program has written as \n.
func unescaped(s string) (string, bool) {
	if !strings.Contains(s, `\n`) && !strings.Contains(s, `\r`) && !strings.Contains(s, `\"`) {
		return s, false
	}
	return strings.NewReplacer(`\\r`, "\r", `\\n`, "\n", `\r`, "\r", `\n`, "\n", `\t`, "\t", `\"`, `"`, `\/`, `/`,
		`\\`, `\`).Replace(s), true
}

// quoted is what quoted-printable has in a text.
var quoted = regexp.MustCompile(`=(\n|[0-9A-F]{2})`)

// unprintable decodes quoted-printable (RFC 2045 §6.7), in which mail carries texts.
func unprintable(s string) (string, bool) {
	if !quoted.MatchString(s) {
		return s, false
	}
	b, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(s)))
	return string(b), err == nil && utf8.Valid(b)
}

// unquoted removes a mail's quoting, indentation and blanks at the ends of lines.
func unquoted(s string) (string, bool) {
	var lines []string
	changed := false
	for line := range strings.SplitSeq(s, "\n") {
		t := strings.TrimLeft(line, " \t>|")
		t = strings.TrimRight(t, " \t\\")
		changed = changed || t != line
		lines = append(lines, t)
	}
	return strings.Join(lines, "\n"), changed
}

// armour is a block between BEGIN and END lines, whose line ends may be lost and whose dashes may be joined into one.
var armour = regexp.MustCompile(
	`(?s)-{2,}\s*BEGIN ([A-Z0-9 ]{1,40}?)\s*-{2,}(.*?)-{2,}\s*END ([A-Z0-9 ]{1,40}?)\s*-{2,}`)

// armours returns the armoured blocks of a text with their lines put back, each block once; empty: there are none. Text
// around them is left out. A block with headers (RFC 1421) keeps its lines.
func armours(s string) string {
	if !strings.Contains(s, "BEGIN ") {
		return ""
	}
	var out []string
	for _, m := range armour.FindAllStringSubmatch(s, -1) {
		if m[1] != m[3] {
			continue
		}
		body := m[2]
		if !strings.Contains(body, ":") {
			body = unspaced(body)
		}
		block := "-----BEGIN " + m[1] + "-----\n" + strings.Trim(body, "\n") + "\n-----END " + m[1] + "-----\n"
		if !slices.Contains(out, block) {
			out = append(out, block)
		}
	}
	return strings.Join(out, "")
}

// unspaced removes the blanks and quoting of a block, and writes it in lines of 64 characters, as PEM has them.
func unspaced(body string) string {
	body = strings.NewReplacer(`\\n`, "", `\\r`, "", `\n`, "", `\r`, "", `\t`, "").Replace(body)
	body = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || strings.ContainsRune(`>|\"',`, r) {
			return -1
		}
		return r
	}, body)
	const width = 64
	var b strings.Builder
	for len(body) > width {
		b.WriteString(body[:width] + "\n")
		body = body[width:]
	}
	return b.String() + body
}

// values returns the texts of a JSON text that may be a document: those of a licence system's answer.
func values(s string) (out [][]byte) {
	if s = strings.TrimSpace(s); !strings.HasPrefix(s, "{") && !strings.HasPrefix(s, "[") &&
		!strings.HasPrefix(s, `"`) {
		return nil
	}
	var v any
	if json.Unmarshal([]byte(s), &v) != nil {
		return nil
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) >= minBlock && len(out) < maxReadings {
				out = append(out, []byte(v))
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(v[k])
			}
		}
	}
	walk(v)
	return out
}

// blocks returns what the base64 blocks of a text hold where that is text: a whole file of it, or a mail's attachments.
func blocks(s string) (out [][]byte) {
	var block strings.Builder
	end := func() {
		if block.Len() >= minBlock && len(out) < maxReadings/4 {
			t := strings.TrimRight(block.String(), "=")
			enc := base64.RawStdEncoding
			if strings.ContainsAny(t, "-_") {
				enc = base64.RawURLEncoding
			}
			if b, err := enc.DecodeString(t); err == nil && utf8.Valid(Decode(b)) {
				out = append(out, b)
			}
		}
		block.Reset()
	}
	for line := range strings.SplitSeq(s, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "--") || strings.ContainsFunc(line, func(r rune) bool {
			return !base64Letter(r)
		}) {
			end()
			continue
		}
		block.WriteString(line)
	}
	end()
	return out
}

func base64Letter(r rune) bool {
	return 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("+/-_=", r)
}
