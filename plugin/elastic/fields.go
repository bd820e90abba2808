package elastic

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// maxClusterLicenses is how many cluster licences one document may have: each costs a check of its signature.
const maxClusterLicenses = 256

// never is the end that Elasticsearch gives a basic licence without one. It is neither written nor signed.
const never = 9223372005318775807

// number is a member that is a whole number; null is as good as absent.
type number struct {
	n   int64
	set bool
}

// word is a member that is a text.
type word struct {
	s   string
	set bool
}

// fields are the members of one licence. Others are passed over, as Elastic's own readers do.
type fields struct {
	uid, typ, issuer, issuedTo, signature    word
	subscription, feature, operation, status word
	issue, start, expiry                     number // milliseconds since the Unix epoch, UTC
	nodes, units, instances, allocators, ram number
	version                                  number
	clusters                                 []jsontext.Value // each an object with a member license
	hasClusters                              bool
	raw                                      jsontext.Value // the licence's object as it was written
}

// fault is what is wrong with a licence, and with which member; an empty one is the whole.
type fault struct{ member, text string }

func (f *fault) Error() string { return f.text }

func faulty(member, format string, args ...any) *fault {
	return &fault{member, fmt.Sprintf(format, args...)}
}

// strip takes off what editors put before a document.
func strip(document []byte) []byte { return bytes.TrimPrefix(document, []byte("\xef\xbb\xbf")) }

// find returns what stands under the first member license or licenses of a document's object. It is false for what has
// no such member. ok may hold although the document is cut off behind its beginning; then the value is nil.
func find(document []byte) (name string, v jsontext.Value, ok bool) {
	d := jsontext.NewDecoder(bytes.NewBuffer(strip(document)))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return "", nil, false
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return "", nil, false
		}
		name = t.String()
		if name != "license" && name != "licenses" {
			if d.SkipValue() != nil {
				return "", nil, false
			}
			continue
		}
		if k := d.PeekKind(); k != '{' && k != '[' {
			return name, nil, k == 0
		}
		v, err := d.ReadValue()
		if err != nil {
			return name, nil, true
		}
		return name, v.Clone(), true
	}
	return "", nil, false
}

// whole reports what is wrong with a document as JSON; nil: it is one value, with no name twice and no bad UTF-8.
func whole(document []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(strip(document)))
	if err := d.SkipValue(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return faulty("", "there is something behind it")
	}
	return nil
}

// parse returns the licences of a document: one, or those of the array that Elasticsearch had before its version 2.
func parse(document []byte) ([]*fields, error) {
	if err := whole(document); err != nil {
		return nil, faulty("", "it is no whole JSON document: it was cut off, changed, or names a member twice")
	}
	_, v, ok := find(document)
	if !ok || v == nil {
		return nil, faulty("", "it has no member license with the licence in it")
	}
	if v.Kind() == '{' {
		f, err := parseFields(v)
		return []*fields{f}, err
	}
	list, err := elements(v)
	if err != nil || len(list) == 0 || len(list) > maxClusterLicenses {
		return nil, faulty("", "its list has %d licences; 1 to %d may be", len(list), maxClusterLicenses)
	}
	var out []*fields
	for _, e := range list {
		f, err := parseFields(e)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// elements takes an array apart.
func elements(v jsontext.Value) (out []jsontext.Value, err error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(v))
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	for d.PeekKind() != ']' {
		e, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		out = append(out, e.Clone())
	}
	return out, nil
}

// parseFields reads one licence. Names are case-sensitive; numbers may stand in quotes.
func parseFields(v jsontext.Value) (*fields, error) {
	if v.Kind() != '{' {
		return nil, faulty("", "a licence in it is no object")
	}
	f := &fields{raw: v}
	words := map[string]*word{"uid": &f.uid, "type": &f.typ, "issuer": &f.issuer, "issued_to": &f.issuedTo,
		"signature": &f.signature, "subscription_type": &f.subscription, "feature": &f.feature,
		"operation_mode": &f.operation, "status": &f.status}
	numbers := map[string]*number{"issue_date_in_millis": &f.issue, "start_date_in_millis": &f.start,
		"expiry_date_in_millis": &f.expiry, "max_nodes": &f.nodes, "max_resource_units": &f.units,
		"max_instances": &f.instances, "max_allocators": &f.allocators, "max_ram_per_allocator_mb": &f.ram,
		"version": &f.version}
	dates := map[string]*number{"issue_date": &f.issue, "start_date": &f.start, "expiry_date": &f.expiry}
	d := jsontext.NewDecoder(bytes.NewBuffer(v))
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		name := t.String()
		at := d.PeekKind()
		value, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		var problem *fault
		switch {
		case words[name] != nil:
			problem = words[name].read(name, at, value)
		case numbers[name] != nil:
			problem = numbers[name].read(name, at, value)
		case dates[name] != nil:
			// Of a date and its twin in milliseconds the later in the text counts.
			problem = dates[name].readDate(name, at, value)
		case name == "cluster_licenses":
			problem = f.readClusters(at, value)
		}
		if problem != nil {
			return nil, problem
		}
	}
	return f, nil
}

func (w *word) read(name string, kind jsontext.Kind, v jsontext.Value) *fault {
	switch kind {
	case 'n':
		*w = word{}
	case '"':
		*w = word{text(v), true}
	default:
		return faulty(name, "its %s is no text", name)
	}
	return nil
}

// text returns a JSON string's text.
func text(v jsontext.Value) string {
	b, err := jsontext.AppendUnquote(nil, v)
	if err != nil { // which the decoder has ruled out
		return ""
	}
	return string(b)
}

// read reads a whole number: of 31 bits, but for dates.
func (n *number) read(name string, kind jsontext.Kind, v jsontext.Value) *fault {
	s := string(v)
	switch kind {
	case 'n':
		*n = number{}
		return nil
	case '"':
		s = text(v)
	}
	x, err := strconv.ParseInt(s, 10, 64)
	long := name == "issue_date_in_millis" || name == "start_date_in_millis" || name == "expiry_date_in_millis"
	switch {
	case err != nil:
		return faulty(name, "its %s is no whole number", name)
	case !long && (x < 0 || x > math.MaxInt32):
		return faulty(name, "its %s is negative or larger than any", name)
	}
	*n = number{x, true}
	return nil
}

// readDate reads a date in ISO form. A day alone is its beginning, and as an expiry its last millisecond, in UTC.
func (n *number) readDate(name string, kind jsontext.Kind, v jsontext.Value) *fault {
	if kind == 'n' {
		*n = number{}
		return nil
	}
	if kind != '"' {
		return faulty(name, "its %s is no date", name)
	}
	s := text(v)
	if t, err := time.Parse("2006-01-02", s); err == nil {
		if name == "expiry_date" {
			t = t.AddDate(0, 0, 1).Add(-time.Millisecond)
		}
		*n = number{t.UnixMilli(), true}
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return faulty(name, "its %s is no date such as 2027-01-31 or 2027-01-31T00:00:00.000Z", name)
	}
	*n = number{t.UnixMilli(), true}
	return nil
}

func (f *fields) readClusters(kind jsontext.Kind, v jsontext.Value) *fault {
	if kind == 'n' {
		f.clusters, f.hasClusters = nil, false
		return nil
	}
	if kind != '[' {
		return faulty("cluster_licenses", "its cluster_licenses are no list")
	}
	list, err := elements(v)
	if err != nil || len(list) > maxClusterLicenses {
		return faulty("cluster_licenses", "it has %d cluster_licenses; at most %d may be", len(list),
			maxClusterLicenses)
	}
	f.clusters, f.hasClusters = list, true
	return nil
}

// neverExpires reports whether it is a basic licence without an end.
func (f *fields) neverExpires() bool {
	return f.typ.s == typeBasic && (!f.expiry.set || f.expiry.n == never)
}
