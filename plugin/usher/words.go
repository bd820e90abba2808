package usher

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func mapKeys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// short keeps what a document says out of messages but for a few harmless characters.
func short(s string) string {
	if len(s) > 32 {
		s = s[:32] + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s), "?")
}

// plainJSON puts a JSON error into words that name the place and never quote the value.
func plainJSON(err error) error {
	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		if errors.As(err, &syntactic) {
			return fmt.Errorf("it names %q twice", short(syntactic.JSONPointer.LastToken()))
		}
		return fmt.Errorf("it names a member twice")
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return fmt.Errorf("%q is not known",
			short(strings.ReplaceAll(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/", ".")))
	case errors.As(err, &semantic):
		at := strings.ReplaceAll(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/", ".")
		if semantic.GoType == nil {
			return fmt.Errorf("claim %q has the wrong type", short(at))
		}
		return fmt.Errorf("claim %q: a JSON %s does not do here", short(at), kindName(semantic.JSONKind))
	case errors.As(err, &syntactic):
		return fmt.Errorf("it is not JSON, at byte %d", syntactic.ByteOffset)
	default:
		return err
	}
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "text"
	case '0':
		return "number, of this sign, size or precision,"
	case '{':
		return "object"
	case '[':
		return "list"
	default:
		return "value"
	}
}

// suggestion names the known claim that is most like a name.
func suggestion(name string) string {
	best, least := "", 3
	for _, n := range claimNames {
		if d := distance(name, n); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance of two short texts.
func distance(a, b string) int {
	if len(a) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last, row[j+1] = row[j+1], min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
