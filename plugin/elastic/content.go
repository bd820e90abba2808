package elastic

import (
	"strconv"
	"unicode/utf16"
)

// escaping says how a string enters the signed content. The platforms that sign differ, and JSON allows either form.
type escaping struct {
	upper      bool // control characters as \u001B, else \u001b
	separators bool // U+2028 and U+2029 as \u2028, \u2029, else raw
	surrogates bool // above U+FFFF as two escapes, else raw
}

var (
	byJava    = escaping{upper: true, surrogates: true} // Elasticsearch until 2026
	byNewJava = escaping{upper: true}                   // and since
	byGo      = escaping{separators: true}              // ECK
)

// appendString appends a string, quoted. It is valid UTF-8.
func (e escaping) appendString(b []byte, s string) []byte {
	const lower, upper = "0123456789abcdef", "0123456789ABCDEF"
	escape := func(r uint16) {
		digits := lower
		if e.upper {
			digits = upper
		}
		b = append(b, '\\', 'u', digits[r>>12], digits[r>>8&15], digits[r>>4&15], digits[r&15])
	}
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, '\\', 'b')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\f':
			b = append(b, '\\', 'f')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r < ' ', e.separators && (r == '\u2028' || r == '\u2029'):
			escape(uint16(r))
		case r > 0xffff && e.surrogates:
			hi, lo := utf16.EncodeRune(r)
			escape(uint16(hi))
			escape(uint16(lo))
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

// content is compact JSON in the making.
type content struct {
	escaping
	b []byte
}

func (c *content) name(name string) {
	if c.b == nil {
		c.b = append(c.b, '{')
	} else {
		c.b = append(c.b, ',')
	}
	c.b = c.appendString(c.b, name)
	c.b = append(c.b, ':')
}

func (c *content) text(name, s string) {
	c.name(name)
	c.b = c.appendString(c.b, s)
}

func (c *content) number(name string, n int64) {
	c.name(name)
	c.b = strconv.AppendInt(c.b, n, 10)
}

// orNull writes a number, or null where there is none.
func (c *content) orNull(name string, n number) {
	if n.set {
		c.number(name, n.n)
		return
	}
	c.name(name)
	c.b = append(c.b, "null"...)
}

// unlessZero writes a number that is not 0.
func (c *content) unlessZero(name string, n number) {
	if n.n != 0 {
		c.number(name, n.n)
	}
}

// stackContent returns what a signature of a version covers of a stack licence.
func (f *fields) stackContent(version int32, e escaping) []byte {
	c := content{escaping: e}
	c.text("uid", f.uid.s)
	c.text("type", f.typ.s)
	if version == 1 {
		c.text("subscription_type", f.subscription.s)
	}
	c.number("issue_date_in_millis", f.issue.n)
	if version == 1 {
		c.text("feature", f.feature.s)
	}
	if !f.neverExpires() {
		c.number("expiry_date_in_millis", f.expiry.n)
	}
	if version < enterpriseSignature {
		c.number("max_nodes", f.nodes.n)
	} else {
		c.orNull("max_nodes", f.nodes)
		c.orNull("max_resource_units", f.units)
	}
	c.text("issued_to", f.issuedTo.s)
	c.text("issuer", f.issuer.s)
	if version >= startSignedSince {
		c.number("start_date_in_millis", f.startOrNone())
	}
	return append(c.b, '}')
}

// orchestrationContent returns what a signature covers of an orchestration licence, whatever its version.
func (f *fields) orchestrationContent(e escaping) []byte {
	c := content{escaping: e}
	c.text("uid", f.uid.s)
	c.text("type", f.typ.s)
	c.unlessZero("issue_date_in_millis", f.issue)
	c.unlessZero("start_date_in_millis", f.start)
	c.unlessZero("expiry_date_in_millis", f.expiry)
	c.unlessZero("max_instances", f.instances)
	c.unlessZero("max_resource_units", f.units)
	c.text("issued_to", f.issuedTo.s)
	c.text("issuer", f.issuer.s)
	return append(c.b, '}')
}

// noStart stands in the signed content for a stack licence that does not say when it starts.
const noStart = -1

func (f *fields) startOrNone() int64 {
	if f.start.set {
		return f.start.n
	}
	return noStart
}
