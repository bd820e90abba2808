package plugintest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// FormatSamples is the material for trying a format.
type FormatSamples struct {
	Good    [][]byte        // documents that verify with Anchors; at least one
	Anchors []plugin.Anchor // of the format's system
	Foreign [][]byte        // documents of other systems; some are tried anyway
	Broken  [][]byte        // documents of the system that must not verify
	// Statement is what a good document states, as JSON, with every term that binds or ends a licence. Sign returns the
	// document of another statement, or an error where it signs no such thing. The suite puts zeros into each member,
	// and none may take a term away. nil: it is not tried.
	Statement []byte
	Sign      func(statement []byte) ([]byte, error)
	// Absent are the zeros by which the system itself says that a term is absent: "pools.a.max=<nil>".
	Absent []string
}

// anotherRSA is an RSA key that has signed nothing. To make one takes long, so that there is one for all.
var anotherRSA = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// rubbish is what lies in folders beside documents.
func rubbish() [][]byte {
	return [][]byte{nil, []byte("\n"), []byte("{}"), []byte("[]"), []byte("null"), []byte("\x00\xff\xfe"),
		[]byte("# README\n\nPut licences here.\n"),
		[]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
		[]byte("-----BEGIN LICENSE FILE-----\n\n-----END LICENSE FILE-----\n"),
		[]byte("eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.e30.AAAA"), bytes.Repeat([]byte("A"), plugin.MaxDocument),
		bytes.Repeat([]byte("{\"a\":"), 50_000), bytes.Repeat([]byte("."), 1000)}
}

// CheckFormat returns each promise that a format does not keep: see [plugin.Format].
func CheckFormat(f plugin.Format, s FormatSamples) []error {
	out := &faults{}
	if err := plugin.CheckName(f.System()); err != nil {
		out.add("its name: %w", err)
		return *out
	}
	if len(s.Good) == 0 || len(s.Anchors) == 0 {
		out.add("there is no good document, or no anchor, to try it with")
		return *out
	}
	for i, doc := range s.Good {
		c := &formatCheck{faults: out, format: f, samples: s, doc: doc, name: fmt.Sprintf("good document %d", i+1)}
		if out.intime(c.name, c.good) && c.license != nil {
			out.intime(c.name+", by other keys", c.otherKeys)
			out.intime(c.name+", changed", c.changed)
			out.intime(c.name+", at once", c.atOnce)
		}
	}
	if s.Statement != nil {
		c := &formatCheck{faults: out, format: f, samples: s}
		out.intime("the statement", c.zeroed)
	}
	for i, doc := range s.Broken {
		name := fmt.Sprintf("broken document %d", i+1)
		out.intime(name, func() { out.refused(name, f, doc, s.Anchors) })
	}
	for i, doc := range append(rubbish(), s.Foreign...) {
		name := fmt.Sprintf("foreign document %d (%.20q)", i+1, doc)
		out.intime(name, func() {
			if f.Recognise(doc) {
				out.add("%s: it is recognised", name)
			}
			out.refused(name, f, doc, s.Anchors)
		})
	}
	out.intime("a document of the largest size", func() {
		large := append(slices.Clone(s.Good[0]), bytes.Repeat([]byte("\n"), plugin.MaxDocument-len(s.Good[0]))...)
		f.Recognise(large)
		f.Verify(large, s.Anchors)
	})
	return *out
}

// refused checks that a document does not verify, and that the reason can be shown.
func (f *faults) refused(name string, format plugin.Format, doc []byte, anchors []plugin.Anchor) *enforcer.Problem {
	l, p := format.Verify(doc, anchors)
	if p == nil {
		f.add("%s: it verifies, and must not", name)
		return nil
	}
	if l != nil && p.Code != enforcer.BadSignature && p.Code != enforcer.UntrustedKey {
		f.add("%s: a licence comes with the problem %s", name, p.Code)
	}
	_, safe := plugin.CheckVerified(format.System(), anchors, l, p)
	switch {
	case safe.Code != p.Code:
		f.add("%s: %s", name, safe.Reason)
	case safe.Reason != p.Reason || safe.Hint != p.Hint || safe.SystemCode != p.SystemCode:
		f.add("%s: the reason is empty, too long or not one line of text: %.80q", name, p.Reason)
	case p.Code == enforcer.Unavailable:
		f.add("%s: there is no answer: %s", name, p.Reason)
	}
	const quoted = 32
	for i := 0; i+quoted <= len(doc); i += quoted / 2 {
		if part := string(doc[i : i+quoted]); strings.Count(part, part[:1]) < quoted &&
			strings.Contains(p.Reason+p.Hint, part) {
			f.add("%s: the reason quotes the document", name)
			break
		}
	}
	return p
}

type formatCheck struct {
	*faults
	format  plugin.Format
	samples FormatSamples
	doc     []byte
	name    string
	license *enforcer.License
}

func (c *formatCheck) good() {
	before := slices.Clone(c.doc)
	if !c.format.Recognise(c.doc) {
		c.add("%s: it is not recognised", c.name)
	}
	l, p := c.format.Verify(c.doc, c.samples.Anchors)
	if p != nil || l == nil {
		c.add("%s: it does not verify: %+v", c.name, p)
		return
	}
	l, p = plugin.CheckVerified(c.format.System(), c.samples.Anchors, l, p)
	if p != nil {
		c.add("%s: %s", c.name, p.Reason)
		return
	}
	if len(l.Terms) == 0 {
		c.add("%s: the licence has no terms: nothing that a document says is to be dropped", c.name)
	}
	if !bytes.Equal(before, c.doc) {
		c.add("%s: the document's bytes were changed", c.name)
		return
	}
	if again, _ := c.format.Verify(c.doc, c.samples.Anchors); !reflect.DeepEqual(again, l) {
		c.add("%s: verified twice, it says two things", c.name)
	}
	c.license = l
}

// otherKeys tries the document with anchors that must not verify it.
func (c *formatCheck) otherKeys() {
	try := func(what string, change func(*plugin.Anchor) bool) {
		var anchors []plugin.Anchor
		for _, a := range c.samples.Anchors {
			if change(&a) {
				anchors = append(anchors, a)
			}
		}
		c.refused(c.name+", with "+what, c.format, c.doc, anchors)
	}
	try("no key", func(*plugin.Anchor) bool { return false })
	try("another key of the same name", func(a *plugin.Anchor) bool {
		switch a.Key.(type) {
		case ed25519.PublicKey:
			a.Key, _, _ = ed25519.GenerateKey(rand.Reader)
		case *ecdsa.PublicKey:
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return false
			}
			a.Key = &k.PublicKey
		case *rsa.PublicKey:
			k, err := anotherRSA()
			if err != nil {
				return false
			}
			a.Key = &k.PublicKey
		default:
			return false
		}
		return true
	})
	try("revoked keys", func(a *plugin.Anchor) bool { a.Revoked = true; return true })
	try("keys of another system", func(a *plugin.Anchor) bool { a.System = "another"; return true })
}

// changed tries changed documents: one that still verifies says what the vendor has signed.
func (c *formatCheck) changed() {
	try := func(what string, doc []byte) bool {
		c.format.Recognise(doc)
		l, p := c.format.Verify(doc, c.samples.Anchors)
		if p == nil && !reflect.DeepEqual(l, c.license) {
			c.add("%s: %s, it verifies and says something else", c.name, what)
			return false
		}
		if p == nil && l == nil {
			c.add("%s: %s, there is neither a licence nor a problem", c.name, what)
			return false
		}
		return true
	}
	const places = 61 // prime, so that no period of the document's escapes it
	step := max(1, len(c.doc)/places)
	for i := 0; i < len(c.doc); i += step {
		for _, bit := range []byte{0x01, 0x20, 0x80} {
			doc := slices.Clone(c.doc)
			doc[i] ^= bit
			if !try(fmt.Sprintf("byte %d changed", i), doc) {
				return
			}
		}
		if !try(fmt.Sprintf("cut off at %d", i), c.doc[:i]) {
			return
		}
	}
	try("doubled", append(slices.Clone(c.doc), c.doc...))
}

// atOnce asks from many goroutines.
func (c *formatCheck) atOnce() {
	var wg sync.WaitGroup
	var mu sync.Mutex
	bad := 0
	for range 8 {
		wg.Go(func() {
			for range 8 {
				if l, _ := c.format.Verify(c.doc, c.samples.Anchors); !c.format.Recognise(c.doc) ||
					!reflect.DeepEqual(l, c.license) {
					mu.Lock()
					bad++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if bad > 0 {
		c.add("%s: asked from many sides at once, %d of 64 answers differ", c.name, bad)
	}
}
