package awslm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// short keeps what others say out of messages but for a few harmless characters.
func short(s string) string {
	if len(s) > 32 {
		s = s[:31] + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s), "?")
}

// plainJSON puts a JSON error into words that name the place and never quote the value.
func plainJSON(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("it names a member twice")
	case errors.As(err, &semantic):
		return fmt.Errorf("member %q has the wrong type",
			short(strings.ReplaceAll(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/", ".")))
	case errors.As(err, &syntactic):
		return fmt.Errorf("it is not JSON, at byte %d", syntactic.ByteOffset)
	}
	return errors.New("it is not JSON")
}

// clip keeps a name out of harm's way, at more length.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s), "?")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
