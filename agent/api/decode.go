package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// MaxBody is the largest JSON body, in bytes.
const MaxBody = 64 << 10

func badRequest(field, hint, format string, args ...any) *enforcer.Denial {
	return &enforcer.Denial{Code: enforcer.BadRequest, Field: field, Hint: hint, Detail: fmt.Sprintf(format, args...)}
}

// body reads a request's body up to a limit.
func body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *enforcer.Denial) {
	tooLarge := &enforcer.Denial{Code: enforcer.TooLarge,
		Detail: fmt.Sprintf("the body is larger than %d bytes", limit), Hint: "send less"}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	var b []byte
	var err error
	if r.ContentLength >= 0 {
		b = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, b)
	} else {
		b, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	}
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case err != nil:
		return nil, badRequest("", "", "the body could not be read to its end")
	}
	return b, nil
}

// smallBody is the largest body, in bytes, that counts for nothing beside its connection.
const smallBody = 4 << 10

// keepBody counts the memory for a request's body of at most so many bytes in. give counts it out.
func (s *Server) keepBody(k key, r *http.Request, most int64) (give func(), d *enforcer.Denial) {
	n := r.ContentLength
	if n < 0 || n > most {
		n = most
	}
	if n <= smallBody {
		return func() {}, nil
	}
	if !s.kept.take(k, int(n)) {
		return nil, tooMuchAtOnce(k)
	}
	return func() { s.kept.give(k, int(n)) }, nil
}

func tooMuchAtOnce(k key) *enforcer.Denial {
	return &enforcer.Denial{Code: enforcer.RateLimited,
		Detail: fmt.Sprintf(
			"long messages of %s take as much memory as one user may have, which is no more than is left for all "+
				"others, of %d bytes", k, maxKept),
		Hint: "send shorter messages, or fewer at once"}
}

// decode reads a JSON body strictly into a request: it takes no unknown or duplicate member, no other case, no invalid
// UTF-8, and nothing after the object. An empty body is an error unless empty is allowed.
func decode(w http.ResponseWriter, r *http.Request, into any, mayBeEmpty bool) *enforcer.Denial {
	if c, ok := w.(*call); ok {
		give, d := c.server.keepBody(c.peer.key(), r, MaxBody)
		if d != nil {
			w.Header().Set("Connection", "close") // nothing more of the request is read
			return d
		}
		defer give()
	}
	b, d := body(w, r, MaxBody)
	if d != nil {
		return d
	}
	if len(bytes.TrimSpace(b)) == 0 {
		if mayBeEmpty {
			return nil
		}
		return badRequest("", "send a JSON object", "the body is empty")
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return badRequest("Content-Type", "send Content-Type: application/json (curl --json does)",
			"the Content-Type is %q, and only application/json is read", plugin.Short(r.Header.Get("Content-Type")))
	}
	if jsontext.Value(b).Kind() != '{' {
		return badRequest("", "send a JSON object", "the body is not a JSON object")
	}
	return unmarshal(b, into)
}

// isJSON reports whether a Content-Type says JSON.
func isJSON(value string) bool {
	if value == "application/json" {
		return true
	}
	kind, _, err := mime.ParseMediaType(value)
	return err == nil && kind == "application/json"
}

// badJSON names the field at fault, and never quotes its value.
func badJSON(err error, into any) *enforcer.Denial {
	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	field := func(p jsontext.Pointer) string {
		return plugin.Short(strings.ReplaceAll(strings.TrimPrefix(string(p), "/"), "/", "."))
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		at := ""
		if errors.As(err, &syntactic) {
			at = field(syntactic.JSONPointer)
		}
		return badRequest(at, "name each member once", "the JSON names %q twice", at)
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		at := field(semantic.JSONPointer)
		return badRequest(at, suggest(at, into), "field %q is not known", at)
	case errors.As(err, &semantic):
		at := field(semantic.JSONPointer)
		if at == "" {
			return badRequest("", "docs/openapi.yaml has every field's type", "the body %s", plugin.JSONWrong(semantic))
		}
		return badRequest(at, "docs/openapi.yaml has every field's type", "%s %s", at, plugin.JSONWrong(semantic))
	case errors.As(err, &syntactic):
		if !utf8.ValidString(syntactic.Error()) || strings.Contains(syntactic.Error(), "UTF-8") {
			return badRequest("", "send UTF-8", "the JSON is not valid UTF-8, at byte %d", syntactic.ByteOffset)
		}
		return badRequest("", "", "the body is not valid JSON, at byte %d", syntactic.ByteOffset)
	default:
		return badRequest("", "", "the body is not valid JSON")
	}
}

// suggest names a field of the request that differs from the given one in case or dashes only.
func suggest(name string, of any) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	t := reflect.TypeOf(of).Elem()
	var known []string
	for i := range t.NumField() {
		n, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if t.Field(i).Tag.Get("wire") == "refused" {
			continue // it is known, and yet no use to anybody
		}
		if plain(n) == plain(name) {
			return fmt.Sprintf("did you mean %q?", n)
		}
		known = append(known, n)
	}
	return "known are: " + strings.Join(known, ", ")
}
