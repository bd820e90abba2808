package plugin

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

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
			return fmt.Errorf("it cannot be a JSON %s", JSONKind(semantic))
		case semantic.GoType == nil || semantic.JSONKind == 0:
			return fmt.Errorf("%s %q has the wrong type", noun, at)
		}
		return fmt.Errorf("%s %q cannot be a JSON %s", noun, at, JSONKind(semantic))
	case errors.As(err, &syntactic):
		return fmt.Errorf("it is not JSON, at byte %d", syntactic.ByteOffset)
	}
	return errors.New("it is not JSON")
}

// JSONKind says in the words of an error message which kind of JSON value does not fit.
func JSONKind(fault *json.SemanticError) string {
	switch fault.JSONKind {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "text"
	case '0':
		if t := fault.GoType; t != nil && t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64 {
			return "number of this sign, size or precision"
		}
		return "number"
	case '{', '}':
		return "object"
	case '[', ']':
		return "list"
	}
	return "value"
}
