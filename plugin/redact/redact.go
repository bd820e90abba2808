// Package redact hides secrets and e-mail addresses by what they mean, wherever they stand. All that leaves the agent
// for callers who are not admins, for the log and for the support bundle passes here: docs/privacy.md has the table of
// what may leave to whom.
//
// A text is searched for e-mail addresses (RFC 5322 §3.4.1), compact JOSE objects (RFC 7515 §7.1), PEM blocks (RFC
// 7468) and passwords in URLs (RFC 3986 §3.2.1). A member of an object is hidden whole where its name speaks of a
// secret: see [Secret].
package redact

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// Hidden stands for what has been hidden.
const Hidden = "(hidden)"

const (
	// local is what stands before the @ of an address, in any script: atoms with dots, or a quoted string.
	local = `(?:"[^"\n]{1,64}"|[\p{L}\p{M}\p{N}.!#$%&'*+/?^_` + "`" + `{|}~-]+)`
	// at is the @ itself, and what people and encoders write for it.
	at = `(?:[@＠﹫]|%40|&#64;|&#x40;|&commat;|\\u0040|\s?[\[({<](?i:at)[\])}>]\s?)`
	// dot likewise.
	dot = `(?:[.。．｡]|\s?[\[({<](?i:dot)[\])}>]\s?)`
	// domain is one with a dot in it, an address in brackets, or this very host.
	domain = `(?:(?:[\p{L}\p{M}\p{N}_-]+` + dot + `)+[\p{L}\p{M}\p{N}-]+|\[[0-9A-Fa-f:.IPv]+\]|localhost\b)`
)

var (
	mail = regexp.MustCompile(local + at + domain)
	// pem is a block of PEM, or what is left of one that was cut off.
	pem = regexp.MustCompile(`(?s)-----BEGIN [^\n-]*-----.*?(?:-----END [^\n-]*-----|\z)`)
	// jose is a compact JWS or JWE, or one that was cut off: its header is a JSON object in base64url.
	jose = regexp.MustCompile(`\bey[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*`)
	// signed is a licence key that is a signed data set: key/DATA.SIGNATURE.
	signed = regexp.MustCompile(`\b(?:key|machine|license)/[A-Za-z0-9+/_=-]{8,}\.[A-Za-z0-9+/_=-]{16,}`)
	// login is the password in a URL.
	login = regexp.MustCompile(`(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@]+@`)
	// setting is a value beside its name, as queries, environments and headers have it.
	setting = regexp.MustCompile(`([A-Za-z][A-Za-z0-9_.-]*)(=)("[^"]*"|'[^']*'|[^\s&;,"'()]+)`)
	bearer  = regexp.MustCompile(`\b(?i:(bearer|basic))\s+[A-Za-z0-9+/_=.~-]{8,}`)
)

// Text returns a text without e-mail addresses, JOSE objects, PEM blocks, passwords in URLs and values that stand
// beside the name of
// a secret. A text that is JSON is hidden member by member. What was hidden before stays as it is.
func Text(s string) string {
	has := func(part string) bool { return strings.Contains(s, part) }
	if t := strings.TrimSpace(s); len(t) > 1 && (t[0] == '{' || t[0] == '[') {
		if out, ok := inside(t); ok {
			return out
		}
	}
	// Most texts have nothing of these, and cost no more than the looking.
	if has("-----BEGIN") {
		s = pem.ReplaceAllString(s, Hidden)
	}
	if has("ey") && has(".") {
		s = jose.ReplaceAllString(s, Hidden)
	}
	if has("/") && has(".") {
		s = signed.ReplaceAllString(s, Hidden)
	}
	if has("://") && has("@") {
		s = login.ReplaceAllString(s, "${1}"+Hidden+"@")
	}
	if strings.ContainsAny(s, "@＠﹫%&\\[({<") {
		s = mail.ReplaceAllString(s, Hidden)
	}
	if has("earer ") || has("asic ") || has("EARER ") || has("ASIC ") {
		s = bearer.ReplaceAllString(s, "${1} "+Hidden)
	}
	if !has("=") {
		return s
	}
	return setting.ReplaceAllStringFunc(s, func(pair string) string {
		name, text, _ := strings.Cut(pair, "=")
		var v any = text
		if !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' }) {
			v = json.Number(text)
		}
		if Member(name, v) {
			return name + "=" + Hidden
		}
		return pair
	})
}

// inside hides what a JSON text says; false: it is none.
func inside(s string) (string, bool) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return "", false
	}
	hidden := Value(v)
	if reflect.DeepEqual(v, hidden) {
		return s, true
	}
	b, err := json.Marshal(hidden)
	return string(b), err == nil
}

// Value returns a copy of a JSON value (as encoding/json decodes into any) in which every text is as [Text] leaves it,
// and what stands
// under the name of a secret is [Hidden], be it a text, a number, a list or an object. The names of members are texts
// too. true, false
// and null are no secrets. Of an object that gives a name in one member and its value in another, the value is hidden.
func Value(v any) any { return value(v, true) }

// Texts is [Value] for shapes whose members' names are known to be no secrets: it hides what texts say, whatever they
// are called.
func Texts(v any) any { return value(v, false) }

func value(v any, names bool) any {
	switch v := v.(type) {
	case map[string]any:
		pair := names && paired(v)
		out := make(map[string]any, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			x := v[k]
			switch {
			case names && Member(k, x), pair && slices.Contains(valued, strings.ToLower(k)) && !flag(x):
				x = Hidden
			default:
				x = value(x, names)
			}
			out[free(out, Text(k))] = x
		}
		return out
	case []any:
		if v == nil {
			return v
		}
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = value(x, names)
		}
		return out
	case string:
		return Text(v)
	case json.RawMessage:
		if out, ok := inside(string(v)); ok {
			return json.RawMessage(out)
		}
		return json.RawMessage(`"` + Hidden + `"`)
	case nil, bool, float64, float32, int, int64, int32, uint64, uint32, json.Number:
		return v
	default:
		return other(v, names)
	}
}

// other is value for what is no plain JSON value: it is looked at as the JSON that it becomes.
func other(v any, names bool) any {
	b, err := json.Marshal(v)
	if err != nil {
		return Hidden
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	var plain any
	if d.Decode(&plain) != nil {
		return Hidden
	}
	return value(plain, names)
}

// Where an object states a member by two of its own: what it is called, and what it is.
var (
	naming = []string{"name", "key", "id", "code", "field", "label", "title", "property", "attribute"}
	valued = []string{"value", "values", "val", "data", "content", "text", "default"}
)

func paired(v map[string]any) bool {
	for k, x := range v {
		if s, ok := x.(string); ok && slices.Contains(naming, strings.ToLower(k)) && Secret(s) {
			return true
		}
	}
	return false
}

// Member reports whether the value of a member is hidden for the member's name.
func Member(name string, v any) bool {
	if flag(v) {
		return false
	}
	m := meaningOf(name)
	switch v.(type) {
	case float64, float32, int, int64, int32, uint64, uint32, json.Number:
		return m == secret
	}
	return m == secret || m == counted
}

// flag reports whether a value is one that tells no secret.
func flag(v any) bool {
	switch v := v.(type) {
	case nil, bool:
		return true
	case string:
		return v == "" || v == Hidden
	}
	return false
}

// free returns a name that a map does not have yet.
func free(m map[string]any, name string) string {
	out := name
	for i := 2; ; i++ {
		if _, taken := m[out]; !taken {
			return out
		}
		out = fmt.Sprintf("%s %d", name, i)
	}
}

// Shape returns a deep copy of a shape of the wire (a struct, or what it is made of) in which every text is as [Text]
// leaves it. The
// shape's own fields are known by their types; what is of type any in it, and the maps in it, are hidden by name as
// [Value] does, and so is a field
// Value beside a field Name. A
// value that is no text, nor one of these, is copied as it is.
func Shape[T any](v T) T {
	in := reflect.ValueOf(v)
	if !in.IsValid() {
		return v
	}
	return shape(in).Interface().(T)
}

func shape(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		out.SetString(Text(v.String()))
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		out.Set(reflect.New(v.Type().Elem()))
		out.Elem().Set(shape(v.Elem()))
	case reflect.Interface:
		if hidden := Value(v.Interface()); hidden != nil {
			out.Set(reflect.ValueOf(hidden))
		}
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(shape(v.Index(i)))
		}
	case reflect.Map:
		return shapeMap(v)
	case reflect.Struct:
		out.Set(v) // what is not exported is as it was: times
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(shape(v.Field(i)))
			}
		}
		if name := out.FieldByName("Name"); name.IsValid() && name.Kind() == reflect.String {
			hideMember(name.String(), out.FieldByName("Value"))
		}
	default:
		return v
	}
	return out
}

// shapeMap copies a map. One of any is hidden by names; so are the members of type any in the structs that another has.
func shapeMap(v reflect.Value) reflect.Value {
	if v.IsNil() || v.Type().Key().Kind() != reflect.String {
		return v
	}
	if m, ok := v.Interface().(map[string]any); ok {
		return reflect.ValueOf(Value(m))
	}
	out := reflect.MakeMap(v.Type())
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		x := shape(v.MapIndex(k))
		hideMembers(k.String(), x)
		name := Text(k.String())
		for i := 2; out.MapIndex(reflect.ValueOf(name).Convert(k.Type())).IsValid(); i++ {
			name = fmt.Sprintf("%s %d", Text(k.String()), i)
		}
		out.SetMapIndex(reflect.ValueOf(name).Convert(k.Type()), x)
	}
	return out
}

// hideMembers hides the members of type any of a struct, and the text itself, which stands under a name.
func hideMembers(name string, x reflect.Value) {
	hideMember(name, x)
	if x.Kind() == reflect.Struct {
		for i := range x.NumField() {
			if f := x.Field(i); f.Kind() == reflect.Interface {
				hideMember(name, f)
			}
		}
	}
}

// hideMember hides a text, or a value of type any, that stands under a name.
func hideMember(name string, x reflect.Value) {
	switch {
	case !x.IsValid() || !x.CanSet():
	case x.Kind() == reflect.String && Member(name, x.String()):
		x.SetString(Hidden)
	case x.Kind() == reflect.Interface && !x.IsNil() && Member(name, x.Interface()):
		x.Set(reflect.ValueOf(Hidden))
	}
}
