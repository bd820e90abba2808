// Package redact hides secrets and e-mail addresses, recognised by their form and by the names of members. Everything
// that leaves the agent for callers other than admins, for the log and for the support bundle passes through it.
// docs/privacy.md has the table of what may leave, and to whom. It searches texts for e-mail addresses (RFC 5322
// §3.4.1), compact JOSE objects (RFC 7515 §7.1), PEM blocks (RFC 7468) and passwords in URLs (RFC 3986 §3.2.1). It
// hides the whole value of a member whose name means a secret: see [Secret].
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

// Hidden replaces a hidden value.
const Hidden = "(hidden)"

const (
	// local is the part of an address before the @, in any script: atoms with dots, or a quoted string.
	local = `(?:"[^"\n]{1,64}"|[\p{L}\p{M}\p{N}.!#$%&'*+/?^_` + "`" + `{|}~-]+)`
	// at is the @ and its substitutes by people and encoders.
	at = `(?:[@＠﹫]|%40|&#64;|&#x40;|&commat;|\\u0040|\s?[\[({<](?i:at)[\])}>]\s?)`
	// dot is the dot and its substitutes.
	dot = `(?:[.。．｡]|\s?[\[({<](?i:dot)[\])}>]\s?)`
	// domain is a name with a dot, an address in brackets, or localhost.
	domain = `(?:(?:[\p{L}\p{M}\p{N}_-]+` + dot + `)+[\p{L}\p{M}\p{N}-]+|\[[0-9A-Fa-f:.IPv]+\]|localhost\b)`
)

var (
	mail = regexp.MustCompile(local + at + domain)
	// unit is an instance of a unit of systemd, which has the form of an address; no domain ends so.
	unit = regexp.MustCompile(`^[A-Za-z0-9:_.-]+@[A-Za-z0-9:_.-]*\.(?:service|socket)$`)
	// pem is a block of PEM, or the beginning of one that was cut off.
	pem = regexp.MustCompile(`(?s)-----BEGIN [^\n-]*-----.*?(?:-----END [^\n-]*-----|\z)`)
	// jose is a compact JWS or JWE, or one that was cut off: its header is a JSON object in base64url.
	jose = regexp.MustCompile(`\bey[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*`)
	// signed is a licence key that is a signed data set: key/DATA.SIGNATURE.
	signed = regexp.MustCompile(`\b(?:key|machine|license)/[A-Za-z0-9+/_=-]{8,}\.[A-Za-z0-9+/_=-]{16,}`)
	// login is the password in a URL.
	login = regexp.MustCompile(`(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@]+@`)
	// setting is a name with its value, as in queries, environments and headers.
	setting = regexp.MustCompile(`([A-Za-z][A-Za-z0-9_.-]*)(=)("[^"]*"|'[^']*'|[^\s&;,"'()]+)`)
	bearer  = regexp.MustCompile(`\b(?i:(bearer|basic))\s+[A-Za-z0-9+/_=.~-]{8,}`)
)

// Text returns a text without e-mail addresses, JOSE objects, PEM blocks, passwords in URLs, and values of settings
// whose names mean a secret. It treats a JSON text member by member. Applied again, it changes nothing more.
func Text(s string) string {
	has := func(part string) bool { return strings.Contains(s, part) }
	if t := strings.TrimSpace(s); len(t) > 1 && (t[0] == '{' || t[0] == '[') {
		if out, ok := inside(t); ok {
			return out
		}
	}
	// Most texts contain none of these, and cost only these searches.
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
		s = mail.ReplaceAllStringFunc(s, func(found string) string {
			if unit.MatchString(found) {
				return found
			}
			return Hidden
		})
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

// inside redacts a JSON text; false: it is not JSON.
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

// Value returns a redacted copy of a JSON value (in the types that encoding/json decodes into any). [Text] treats every
// text, names of members included. Any value of a member whose name means a secret becomes [Hidden], except true, false
// and null. If an object has a secret's name in one member and the value in another, that value is hidden too.
func Value(v any) any { return value(v, true) }

// Texts is [Value] for objects whose members are known to be no secrets: it redacts the texts and ignores the names.
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

// other is value for other Go types: it redacts the JSON that they become.
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

// The members of an object that has a name in one member and its value in another.
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

// Member reports whether the name of a member hides its value.
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

// flag reports whether a value cannot be a secret.
func flag(v any) bool {
	switch v := v.(type) {
	case nil, bool:
		return true
	case string:
		return v == "" || v == Hidden
	}
	return false
}

// free returns a name that the map does not have yet.
func free(m map[string]any, name string) string {
	out := name
	for i := 2; ; i++ {
		if _, taken := m[out]; !taken {
			return out
		}
		out = fmt.Sprintf("%s %d", name, i)
	}
}

// Shape returns a redacted deep copy of a wire shape (a struct, or a part of one). [Text] treats every text. Fields of
// type any and maps are redacted by name like [Value], and so is a field Value next to a field Name. Other values stay
// unchanged.
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
		out.Set(v) // unexported fields, as of times, stay unchanged
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

// shapeMap redacts a map: values of type any by name, and also the fields of type any in structs.
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

// hideMembers hides a text under a secret's name, or the fields of type any of a struct under one.
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

// hideMember hides a text or a value of type any if its name means a secret.
func hideMember(name string, x reflect.Value) {
	switch {
	case !x.IsValid() || !x.CanSet():
	case x.Kind() == reflect.String && Member(name, x.String()):
		x.SetString(Hidden)
	case x.Kind() == reflect.Interface && !x.IsNil() && Member(name, x.Interface()):
		x.Set(reflect.ValueOf(Hidden))
	}
}
