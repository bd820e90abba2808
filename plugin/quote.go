package plugin

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// credentials are what an address has between its scheme and the last @ behind that.
var credentials = regexp.MustCompile(`://[^"\n]*@`)

// Conceal makes a text fit for an output where it may have addresses with users and passwords in them, which it covers:
// https://…@host. It covers too much rather than too little.
func Conceal(s string) string {
	if !strings.Contains(s, "@") { // the common case
		return s
	}
	return credentials.ReplaceAllString(s, "://…@")
}

// maxQuote is the length in bytes at which [Short] cuts. A UUID and a SHA-256 in hexadecimal stay whole.
const maxQuote = 64

// Short makes a name that somebody else wrote fit for a message: at most 64 bytes, cut between characters, and a
// question mark for everything that does not print, such as control characters and changes of the writing direction.
func Short(s string) string {
	if len(s) > maxQuote {
		n := maxQuote
		for n > maxQuote-4 && s[n]&0xc0 == 0x80 { // the middle of a character
			n--
		}
		s = s[:n] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// JSONFault names the place of a fault that the json package reports, and never quotes the value there. noun is what
// the reader calls a member of this JSON: "member", "claim", "attribute".
func JSONFault(err error, noun string) error {
	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		if errors.As(err, &syntactic) {
			return fmt.Errorf("it names %q twice", Short(syntactic.JSONPointer.LastToken()))
		}
		return fmt.Errorf("it names a %s twice", noun)
	case errors.As(err, &semantic):
		at := Short(strings.ReplaceAll(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/", "."))
		switch {
		case errors.Is(err, json.ErrUnknownName):
			return fmt.Errorf("%s %q is not known", noun, at)
		case at == "":
			return errors.New("it " + JSONWrong(semantic))
		}
		return fmt.Errorf("%s %q %s", noun, at, JSONWrong(semantic))
	case errors.As(err, &syntactic):
		return fmt.Errorf("it is not JSON, at byte %d", syntactic.ByteOffset)
	}
	return errors.New("it is not JSON")
}

// JSONWrong says in words of a value what it must be, and what it is: "must be a whole number, not a text".
func JSONWrong(fault *json.SemanticError) string {
	is, must := jsonKind(fault.JSONKind), jsonType(fault.GoType)
	switch {
	case must == "" && is == "":
		return "has the wrong type"
	case must == "":
		return "cannot be " + is
	case is == "":
		return "must be " + must
	case strings.HasSuffix(must, "number") && is == "a number":
		return "must be " + must + ", and not of this sign, size or precision"
	case strings.HasPrefix(must, "a t") && is == "a text": // a time, base64, or a text with a form of its own
		return "must be " + must + ", not this text"
	}
	return "must be " + must + ", not " + is
}

// jsonKind names the kind of a JSON value.
func jsonKind(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "true or false"
	case '"':
		return "a text"
	case '0':
		return "a number"
	case '{', '}':
		return "an object"
	case '[', ']':
		return "a list"
	}
	return ""
}

// jsonType names the JSON value that a type is read from; empty: it reads for itself.
func jsonType(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil:
		return ""
	case t == reflect.TypeFor[time.Time]():
		return "a time such as 2027-01-31T18:00:00Z"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return "a text in base64"
	case t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler):
		return ""
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "a list"
	default:
		return ""
	}
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()
