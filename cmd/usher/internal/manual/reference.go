package manual

import (
	"regexp"
	"strings"
)

// key is a line of the reference configuration that has a key, also one that is commented out: its indentation, the
// dash of a list's item, the key, and the value with what is said behind it.
var key = regexp.MustCompile(`^( *)(# )?(- )?([a-z][a-z0-9_-]*):(?: +(.*))?$`)

// remark is what is said behind a value.
var remark = regexp.MustCompile(`^(.*?)\s+# (.*)$`)

// configuration writes the page of the configuration from the reference file, of which program is the reader.
func (c Common) configuration(program string) string {
	p := page{keys: map[string]bool{}}
	p.head(c.ConfigurationPage, 5, c)
	p.section("NAME")
	p.line(`%s \- %s`, escape(c.ConfigurationPage), escape("the configuration of "+program+" agent"))
	head, rest, _ := strings.Cut(c.Text, "\n\n")
	p.section("DESCRIPTION")
	p.text(uncommented(head))
	p.section("KEYS")
	var prose []string
	var above []place
	block := -1 // the indentation of a key whose value is a block of text
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, "\n")
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch m := key.FindStringSubmatch(line); {
		case block >= 0 && indent > block:
			continue
		case strings.TrimSpace(line) == "":
			prose = p.paragraph(prose)
			continue
		case m == nil || m[2] != "" && !commentedKey(m):
			prose = append(prose, strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "#"), " "))
			continue
		default:
			above, block = p.entry(m, above, strings.Join(prose, " "))
			prose = nil
		}
	}
	p.paragraph(prose)
	p.section("SEE ALSO")
	p.line(`\fB%s\fR(1), \fB%s\fR(1)`, escape(program), escape(program+"-agent"))
	return p.String()
}

// place is a key above another, with its indentation.
type place struct {
	indent int
	name   string
}

// commentedKey reports whether a comment is a key with a value, and not a sentence with a colon.
func commentedKey(m []string) bool {
	value := m[5]
	if r := remark.FindStringSubmatch(value); r != nil {
		value = r[1]
	}
	quoted := strings.HasPrefix(value, `"`) || strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[")
	return quoted || !strings.Contains(value, " ")
}

// paragraph writes a remark that no key follows, and returns an empty one.
func (p *page) paragraph(prose []string) []string {
	if len(prose) > 0 {
		p.line(".PP")
		p.line("%s", escape(strings.Join(prose, " ")))
	}
	return nil
}

// entry writes a key below those above it, with what is said of it, and returns the keys above the next line, and the
// key's indentation where its value is a block of text.
func (p *page) entry(m []string, above []place, prose string) ([]place, int) {
	indent, item := len(m[1])+len(m[3]), m[3] != ""
	value, said := m[5], ""
	if r := remark.FindStringSubmatch(value); r != nil {
		value, said = r[1], r[2]
	}
	for len(above) > 0 && above[len(above)-1].indent >= indent {
		above = above[:len(above)-1]
	}
	if n := len(above); item && n > 0 && !strings.HasSuffix(above[n-1].name, "[]") {
		above[n-1].name += "[]"
	}
	name := m[4]
	above = append(above, place{indent, name})
	var full []string
	for _, a := range above {
		full = append(full, a.name)
	}
	called := strings.Join(full, ".")
	text := strings.TrimSpace(strings.TrimSuffix(prose, ".") + ". " + said)
	text = strings.Trim(text, ". ")
	if p.keys[called] && text == "" { // a further example
		return above, blockAt(value, indent)
	}
	p.keys[called] = true
	p.line(".TP")
	if value != "" && value != "|" {
		p.line(`\fB%s\fR: \fI%s\fR`, escape(called), escape(value))
	} else {
		p.line(`\fB%s\fR`, escape(called))
	}
	if text != "" {
		p.line("%s.", escape(text))
	} else {
		p.line(`\&`)
	}
	return above, blockAt(value, indent)
}

// blockAt returns the indentation of a key whose value is a block of text; -1: it is none.
func blockAt(value string, indent int) int {
	if value == "|" {
		return indent
	}
	return -1
}

// uncommented is a comment without its marks.
func uncommented(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		out = append(out, strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "#"), " "))
	}
	return strings.Join(out, "\n")
}
