package plugintest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/usher-agent/usher/enforcer"
)

// Sender sends a request to a dialect.
type Sender func(*http.Request) *httptest.ResponseRecorder

// DialectCall is a call of a dialect with a JSON body, which the suite takes apart member by member.
type DialectCall struct {
	Name string
	// Body brings about what the call needs and returns a good body, with each member that the API documents: with it
	// the call is answered 2xx.
	Body func(Sender) string
	Send func(body io.Reader) *http.Request
	// Required are the members that the API documents as required, as paths in the body: "data.type", "items.0.id".
	// Without one, and with one of another type or null, the call is refused.
	Required []string
	// Nullable are those of Required for which the API's clients also write null.
	Nullable []string
	// Caller makes the call; nil: the desk's own caller.
	Caller *enforcer.Caller
}

// spoiled is a value in place of a member's own.
type spoiled struct {
	name    string
	value   string // as it is on the wire
	never   bool   // no JSON, or none that is read: it is refused wherever it stands
	hostile bool
}

// hostileText would clear a terminal, forge a header and a line, and turn the writing direction.
const hostileText = "\x1b[2J\x1b]0;owned\x07\r\nX-Forged: 1\r\n\r\n<b>\u202egnp.\u009b31m\u2028\x00\ufeff"

// brokenText is no UTF-8.
const brokenText = "a\xe9\x1b\xff"

var spoils = func() []spoiled {
	hostile, _ := json.Marshal(hostileText) // cannot fail
	long := strings.Repeat("a", 1<<19)
	return []spoiled{{name: "null", value: "null"}, {name: "true", value: "true"}, {name: "false", value: "false"},
		{name: "an empty text", value: `""`}, {name: "a text", value: `"x"`}, {name: "zero", value: "0"},
		{name: "less than zero", value: "-1"}, {name: "a fraction", value: "1.5"}, {name: "1e400", value: "1e400"},
		{name: "a number above 64 bits", value: "18446744073709551616"}, {name: "a list", value: "[]"},
		{name: "a list of null", value: "[null]"}, {name: "an object", value: "{}"},
		{name: "an object with a number", value: `{"x":1}`},
		{name: "a hostile text", value: string(hostile), hostile: true},
		{name: "a text of 512 KiB", value: `"` + long + `"`},
		{name: "bytes that are no UTF-8", value: `"` + brokenText + `"`, never: true},
		{name: "raw control characters", value: "\"\x1b[2J\n\"", never: true},
		{name: "half a surrogate pair", value: `"\ud800"`, never: true},
		{name: "20000 lists in each other", value: strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000),
			never: true}}
}()

// mark stands for a value that is put in later, since not all of them are JSON.
const mark = "\u2020value\u2020"

// places returns the paths of all members and elements of a value.
func places(v any, path string, out []string) []string {
	below := func(name string, v any) {
		p := strings.TrimPrefix(path+"."+name, ".")
		out = places(v, p, append(out, p))
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			below(name, v[name])
		}
	case []any:
		for i := range v {
			below(strconv.Itoa(i), v[i])
		}
	}
	return out
}

// place has f change the value at a path. gone: f removes it.
func place(v any, path string, f func(was any) (is any, gone bool)) any {
	name, rest, deeper := strings.Cut(path, ".")
	switch v := v.(type) {
	case map[string]any:
		v = maps.Clone(v)
		is, gone := place(v[name], rest, f), false
		if !deeper {
			is, gone = f(v[name])
		}
		if v[name] = is; gone {
			delete(v, name)
		}
		return v
	case []any:
		v = slices.Clone(v)
		i, _ := strconv.Atoi(name) // a path of places has numbers here
		is, gone := place(v[i], rest, f), false
		if !deeper {
			is, gone = f(v[i])
		}
		if v[i] = is; gone {
			return slices.Delete(v, i, i+1)
		}
		return v
	}
	return v
}

// text writes a value, with raw where mark stands.
func text(v any, raw string) string {
	b, _ := json.Marshal(v) // cannot fail: v was JSON
	return strings.Replace(string(b), `"`+mark+`"`, raw, 1)
}

// attempt is a body of the walk.
type attempt struct {
	name    string
	body    func() string
	refuse  bool // it must be refused
	hostile bool // a text in it is hostile
}

// attempts are all bodies that the walk makes of a good one.
func (call DialectCall) attempts(good string) (out []attempt, err error) {
	var root any
	d := json.NewDecoder(strings.NewReader(good))
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		return nil, fmt.Errorf("its body is no JSON: %w: %s", err, good)
	}
	all := places(root, "", nil)
	for _, r := range call.Required {
		if !slices.Contains(all, r) {
			return nil, fmt.Errorf("the required member %s is not in its body %s", r, good)
		}
	}
	for _, p := range all {
		must := slices.Contains(call.Required, p)
		var was any
		place(root, p, func(v any) (any, bool) { was = v; return v, false })
		own := text(was, "")
		with := func(raw string) string {
			return text(place(root, p, func(any) (any, bool) { return mark, false }), raw)
		}
		out = append(out, attempt{name: p + " is missing", refuse: must, body: func() string {
			return text(place(root, p, func(any) (any, bool) { return nil, true }), "")
		}})
		for _, s := range spoils {
			other := kind(s.value) != kind(own) && (s.value != "null" || !slices.Contains(call.Nullable, p))
			out = append(out, attempt{name: p + " is " + s.name, hostile: s.hostile,
				refuse: s.never || must && other, body: func() string { return with(s.value) }})
		}
		name := p[strings.LastIndexByte(p, '.')+1:]
		if _, err := strconv.Atoi(name); err != nil {
			out = append(out, attempt{name: p + " is there twice", refuse: true,
				body: func() string { return with(own + "," + strconv.Quote(name) + ":" + own) }})
		}
	}
	return out, nil
}

// kind tells JSON's types apart.
func kind(value string) byte {
	switch c := value[0]; c {
	case '{', '[', '"', 'n':
		return c
	case 't', 'f':
		return 't'
	default:
		return '0'
	}
}

// memory is all that a dialect can have changed, as text.
func (c *dialectCheck) memory() string {
	var out strings.Builder
	for _, p := range c.desk.Pools() {
		fmt.Fprintf(&out, "%s %d\n", p.Name, p.InUse)
	}
	c.desk.mu.Lock()
	defer c.desk.mu.Unlock()
	fmt.Fprintf(&out, "%d events\n%d documents\n", len(c.desk.events), len(c.desk.Documents))
	for _, key := range slices.Sorted(maps.Keys(c.desk.store)) {
		fmt.Fprintf(&out, "%s %s\n", key, c.desk.store[key])
	}
	return out.String()
}

// proper says what no client or terminal should get of an answer; nil: nothing.
func proper(w *httptest.ResponseRecorder) error {
	for name, values := range w.Header() {
		for _, v := range append(values, name) {
			if i := strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
				return fmt.Errorf("the header %s is %q", name, v)
			}
		}
	}
	b := w.Body.Bytes()
	switch {
	case !utf8.Valid(b):
		return fmt.Errorf("its body is no UTF-8: %.300q", b)
	case len(b) > 0 && strings.Contains(w.Header().Get("Content-Type"), "json") && !json.Valid(b):
		return fmt.Errorf("its body is no JSON: %.300q", b)
	case bytes.ContainsFunc(b, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f
	}):
		return fmt.Errorf("its body has control characters: %.300q", b)
	}
	return nil
}

// answered checks an answer to a bad request: no failure of the dialect's own, and in the system's form.
func (c *dialectCheck) answered(what string, w *httptest.ResponseRecorder) {
	if err := proper(w); err != nil {
		c.fault("%s: the answer %d: %w", what, w.Code, err)
	}
	switch {
	case w.Code >= 500 && w.Code != http.StatusNotImplemented:
		c.fault("%s: the answer is %d %.300s", what, w.Code, w.Body)
	case w.Code >= 400:
		c.refused(what, w)
	}
}

// reopen starts with a new desk.
func (c *dialectCheck) reopen() {
	c.desk = NewDesk(c.dialect.System(), c.samples.Now)
	if c.samples.Prepare != nil {
		c.samples.Prepare(c.desk)
	}
	c.desk.Judge(c.samples.License)
	c.handler = c.dialect.Handler(c.desk)
}

// members takes the body of each call apart.
func (c *dialectCheck) members() {
	for _, call := range c.samples.Calls {
		k := *c
		k.what = call.Name
		k.inTimeOf(1, c.sent, call.Name, func() { k.apart(call) })
	}
}

// apart spoils each member of a call's body in turn. What is refused has changed nothing, and what is taken leaves
// answers that every client can read.
func (c *dialectCheck) apart(call DialectCall) {
	c.reopen()
	if call.Caller != nil {
		c.desk.Sender = call.Caller
	}
	if w := c.send(call.Send(strings.NewReader(call.Body(c.send)))); !good(w) {
		c.fault("the good body is answered %d %.300s", w.Code, w.Body)
		return
	}
	before := ""
	var all []attempt
	for i := 0; i == 0 || i < len(all); i++ {
		if before == "" { // a new desk, whose ids the body may name
			c.reopen()
			if call.Caller != nil {
				c.desk.Sender = call.Caller
			}
			var err error
			if all, err = call.attempts(call.Body(c.send)); err != nil {
				c.fault("%w", err)
				return
			}
			before = c.memory()
		}
		a := all[i]
		w := c.send(call.Send(strings.NewReader(a.body())))
		c.answered(a.name, w)
		switch after := c.memory(); {
		case w.Code < 400 && a.refuse:
			c.fault("%s: it is answered %d and should be refused: %.300s", a.name, w.Code, w.Body)
		case w.Code >= 400 && after != before:
			c.fault("%s: it is refused, and yet changes something:\n%s\n%s", a.name, before, after)
		}
		if w.Code < 400 {
			if a.hostile {
				c.read(a.name)
			}
			before = ""
		}
	}
}

// read checks that each answer can be read.
func (c *dialectCheck) read(what string) {
	for _, r := range c.samples.Reads {
		w := c.send(httptest.NewRequest(http.MethodGet, r, http.NoBody))
		if err := proper(w); err != nil || w.Code >= 500 {
			c.fault("%s: then GET %s is answered %d: %v", what, r, w.Code, err)
		}
	}
}

// texts sends hostile bytes in each part of a request but its body, under a licence whose texts are hostile.
func (c *dialectCheck) texts() {
	l := *c.samples.License
	l.Licensee, l.Issuer = hostileText, hostileText
	c.desk.Judge(&l)
	var requests []func() *http.Request
	for _, target := range c.samples.Reads {
		requests = append(requests, func() *http.Request {
			return httptest.NewRequest(http.MethodGet, target, http.NoBody)
		})
	}
	for _, call := range c.samples.Calls {
		body := call.Body(c.send)
		requests = append(requests, func() *http.Request { return call.Send(strings.NewReader(body)) })
	}
	c.read("the licence's texts are hostile")
	for _, r := range requests {
		for name, bad := range map[string]string{"a hostile text": hostileText, "bytes that are no UTF-8": brokenText,
			"a long text": strings.Repeat("x", 1<<16)} {
			for where, spoil := range map[string]func(*http.Request){
				"behind the path": func(r *http.Request) { target(r, r.URL.Path+"/"+bad, r.URL.RawQuery) },
				"the end of the path": func(r *http.Request) {
					target(r, r.URL.Path[:strings.LastIndexByte(r.URL.Path, '/')+1]+bad, r.URL.RawQuery)
				},
				"the query": func(r *http.Request) {
					q := r.URL.Query()
					for name := range q {
						q.Set(name, bad)
					}
					for _, name := range []string{"id", "include", "limit", "page[size]", "ttl", "itemsPerPage", "next",
						bad} {
						q.Set(name, bad)
					}
					target(r, r.URL.Path, q.Encode())
				},
				"a query of no form": func(r *http.Request) {
					target(r, r.URL.Path, "id=%zz&%&;="+url.QueryEscape(bad))
				},
				"each header": func(r *http.Request) {
					own := r.Header
					for _, name := range append(slices.AppendSeq(slices.Clone(c.samples.Headers), maps.Keys(own)),
						"Accept", "Content-Type", "User-Agent", "Origin", "Date", "Digest", "Idempotency-Key",
						"X-Request-Id") {
						r.Header.Set(name, header(bad))
					}
				},
				"the host": func(r *http.Request) { r.Host = header(bad) },
			} {
				q := r()
				spoil(q)
				c.answered(fmt.Sprintf("%s %s, %s is %s", q.Method, r().URL.Path, where, name), c.send(q))
			}
		}
	}
}

// target sets what a request is for. path is not escaped.
func target(r *http.Request, path, query string) {
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = path, "", query
	r.RequestURI = r.URL.RequestURI()
}

// header leaves what a server lets into a header's value.
func header(v string) string {
	var out []byte
	for _, b := range []byte(v) {
		if b >= ' ' && b != 0x7f {
			out = append(out, b)
		}
	}
	return string(out)
}
