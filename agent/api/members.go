package api

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// unmarshal reads a request strictly: it takes no unknown or duplicate member, no other case, no invalid UTF-8, and
// nothing after the object. A member that the request's type marks wire:"required" must be there and not be null; one
// that it marks wire:"positive" may be left out, but not be zero.
func unmarshal(b []byte, into any) *enforcer.Denial {
	if err := json.Unmarshal(b, into, json.RejectUnknownMembers(true)); err != nil {
		return badJSON(err, into)
	}
	return missing(b, reflect.ValueOf(into).Elem(), "")
}

// missing returns a denial that names the first member of an object that is required and not there, or zero and must
// not be. Only a member whose value is zero is looked up in the text: no other can be either.
func missing(object []byte, v reflect.Value, above string) *enforcer.Denial {
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		rule := f.Tag.Get("wire")
		at := above + name
		switch value := v.Field(i); {
		case value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
			for k, element := range elements(object, name) {
				if k >= value.Len() {
					break
				}
				if d := missing(element, value.Index(k), at+"."+strconv.Itoa(k)+"."); d != nil {
					return d
				}
			}
		case rule == "" || !value.IsZero():
		case rule == "required":
			switch raw := member(object, name); {
			case raw == nil:
				return badRequest(at, "docs/openapi.yaml has every field", "%s is missing", at)
			case raw.Kind() == 'n':
				return badRequest(at, "docs/openapi.yaml has every field's type", "%s is null, and must have a value",
					at)
			}
		case rule == "positive" && bytes.Contains(object, []byte(name)):
			if raw := member(object, name); raw != nil && raw.Kind() != 'n' {
				return badRequest(at, "leave it out for the default", "%s is %s, and must be more than 0", at,
					plugin.Short(string(raw)))
			}
		}
	}
	return nil
}

// member returns the value of an object's member; nil: it is not there. The object is valid.
func member(object []byte, name string) jsontext.Value {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := d.ReadToken(); err != nil {
		return nil
	}
	for d.PeekKind() == '"' {
		key, err := d.ReadToken()
		if err != nil {
			return nil
		}
		if key.String() == name {
			value, err := d.ReadValue()
			if err != nil {
				return nil
			}
			return value
		}
		if d.SkipValue() != nil {
			return nil
		}
	}
	return nil
}

// elements returns the elements of an object's member that is a list.
func elements(object []byte, name string) (out []jsontext.Value) {
	if !bytes.Contains(object, []byte(name)) {
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(member(object, name)))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return nil
	}
	for d.PeekKind() != ']' {
		value, err := d.ReadValue()
		if err != nil {
			return out
		}
		out = append(out, bytes.Clone(value))
	}
	return out
}
