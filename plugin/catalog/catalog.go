// Package catalog knows the licence systems, built-in ones and plugins, and says which one a document or a licence
// belongs to.
package catalog

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/external"
	"github.com/usher-agent/usher/plugin/textual"
)

// Catalog is the systems of one agent. It never changes, and is safe for concurrent use.
type Catalog struct {
	systems []plugin.System // built in
	plugins []*external.Process
}

// New returns the built-in systems and the plugins. Two systems of one name are an error.
func New(plugins ...*external.Process) (*Catalog, error) {
	c := BuiltIn()
	for _, p := range plugins {
		if slices.Contains(c.Systems(), p.Name()) {
			return nil, fmt.Errorf(
				"plugin %s: there is a system of that name already (known: %s); leave the plugin out, or give it its "+
					"own name", p.Name(), strings.Join(c.Systems(), ", "))
		}
		c.plugins = append(c.plugins, p)
	}
	return c, nil
}

// BuiltIn returns the built-in systems alone.
func BuiltIn() *Catalog { return &Catalog{systems: Systems()} }

// lend gives each system that wraps documents of other systems the formats of those.
func lend(systems []plugin.System) []plugin.System {
	var others []plugin.Format
	for _, s := range systems {
		if _, wraps := s.Format.(plugin.Wrapper); !wraps {
			others = append(others, s.Format)
		}
	}
	for i, s := range systems {
		if w, wraps := s.Format.(plugin.Wrapper); wraps {
			systems[i].Format = w.Within(others)
		}
	}
	return systems
}

// named returns a built-in system; where none has the name, a system that has nothing.
func named(systems []plugin.System, name string) plugin.System {
	for _, s := range systems {
		if s.Name == name {
			return s
		}
	}
	return plugin.System{}
}

// Carries says what of the host the requests to a system's upstream carry.
func (c *Catalog) Carries(system string) plugin.Carries { return named(c.systems, system).Carries }

// Signed returns what the vendor signed of a system's document: see [plugin.System].
func (c *Catalog) Signed(system string, document []byte) []byte {
	s := named(c.systems, system)
	if s.Format != nil {
		document = c.Read(document)
	}
	if s.Signed != nil {
		return s.Signed(document)
	}
	return document
}

// Systems returns the names of the systems.
func (c *Catalog) Systems() []string {
	var out []string
	for _, s := range c.systems {
		out = append(out, s.Name)
	}
	for _, p := range c.plugins {
		out = append(out, p.Name())
	}
	return out
}

// Dialects returns the dialects that listeners can speak, with the settings of their systems by section: see
// [plugin.DialectSettings].
func (c *Catalog) Dialects(settings map[string]plugin.Settings) (out []plugin.Dialect) {
	for _, s := range c.systems {
		if set, ok := settings[cmp.Or(s.Section, s.Name)].(plugin.DialectSettings); ok {
			out = append(out, set.Dialect())
		} else if s.Dialect != nil {
			out = append(out, s.Dialect)
		}
	}
	return out
}

// IsPlugin reports whether a system is a plugin's.
func (c *Catalog) IsPlugin(system string) bool {
	return slices.ContainsFunc(c.plugins, func(p *external.Process) bool { return p.Name() == system })
}

// The errors of Recognise.
var (
	// ErrUnknown reports a document that no system claims.
	ErrUnknown = errors.New("it is not a licence of any known system")
	// ErrAmbiguous reports a document that two systems claim.
	ErrAmbiguous = errors.New("two systems claim this document")
)

// Recognise returns the format that a document belongs to. It is an error if no system claims the document, and if
// several do. Any other error says that a plugin could not be asked, so that the answer is not known. A document that a
// built-in system claims belongs to that system, and no plugin is shown it: so no plugin can take a native licence out
// of force by claiming it too.
func (c *Catalog) Recognise(document []byte) (plugin.Format, error) {
	f, err := c.quickly(document)
	if !errors.Is(err, ErrUnknown) || len(c.plugins) == 0 {
		return f, err
	}
	var silent []error
	f = nil
	for _, p := range c.plugins {
		switch ok, err := p.Format().TryRecognise(document); {
		case err != nil:
			silent = append(silent, fmt.Errorf("the %s plugin cannot be asked: %w", p.Name(), err))
		case ok && f != nil:
			return nil, ambiguous(f, p.Format())
		case ok:
			f = p.Format()
		}
	}
	switch {
	case f != nil:
		return f, nil
	case len(silent) > 0:
		return nil, errors.Join(silent...)
	default:
		return nil, err
	}
}

// quickly is Recognise without the plugins.
func (c *Catalog) quickly(document []byte) (plugin.Format, error) {
	var found plugin.Format
	for _, s := range c.systems {
		switch {
		case !s.Format.Recognise(document):
		case found != nil:
			return nil, ambiguous(found, s.Format)
		default:
			found = s.Format
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w (%s)", ErrUnknown, strings.Join(c.Systems(), ", "))
	}
	return found, nil
}

func ambiguous(a, b plugin.Format) error {
	return fmt.Errorf("%w: %s and %s", ErrAmbiguous, a.System(), b.System())
}

// Verify finds the system of a document, has that system verify it against the anchors, and checks the answer: see
// [plugin.Format] and [plugin.CheckVerified]. It takes as long as a plugin may. Only built-in systems get the secrets.
func (c *Catalog) Verify(document []byte, anchors []plugin.Anchor,
	s plugin.Secrets) (*enforcer.License, *enforcer.Problem) {
	f, err := c.Recognise(document)
	l, p := verify(f, err, document, anchors, s)
	if l, p, ok := c.reread(document, p, anchors, s); ok {
		return l, p
	}
	if len(c.plugins) > 0 && errors.Is(err, ErrUnknown) {
		for reading := range textual.Readings(document) {
			if f, err := c.Recognise(reading); err == nil {
				return verify(f, nil, reading, anchors, s)
			}
		}
	}
	return l, p
}

// VerifyQuickly is Verify without the plugins; ok is false where it would have to ask one.
func (c *Catalog) VerifyQuickly(document []byte, anchors []plugin.Anchor,
	s plugin.Secrets) (l *enforcer.License, p *enforcer.Problem, ok bool) {
	f, err := c.quickly(document)
	l, p = verify(f, err, document, anchors, s)
	if l, p, ok := c.reread(document, p, anchors, s); ok {
		return l, p, true
	}
	if errors.Is(err, ErrUnknown) && len(c.plugins) > 0 {
		return nil, nil, false
	}
	return l, p, true
}

func verify(f plugin.Format, err error, document []byte, anchors []plugin.Anchor,
	s plugin.Secrets) (*enforcer.License, *enforcer.Problem) {
	switch {
	case errors.Is(err, ErrUnknown), errors.Is(err, ErrAmbiguous):
		p := &enforcer.Problem{Code: enforcer.Malformed, Reason: err.Error(),
			Hint: "take it out of the folder, or replace it by the licence file as the vendor sent it"}
		if reason, remedy := textual.Not(document); reason != "" {
			p.Reason, p.Hint = reason, remedy
		}
		return nil, p
	case err != nil:
		return nil, &enforcer.Problem{Code: enforcer.Unavailable,
			Reason: "no system that can be asked knows it, and " + strings.ReplaceAll(err.Error(), "\n", "; "),
			Hint:   "see the agent's log for what the plugin says; the document is tried again when the plugin runs"}
	}
	var l *enforcer.License
	var p *enforcer.Problem
	if o, ok := f.(plugin.Opener); ok {
		l, p = o.Open(document, anchors, s)
	} else {
		l, p = f.Verify(document, anchors)
	}
	if p != nil && p.Code == enforcer.Malformed && textual.IsPacked(document) {
		p.Reason, p.Hint = textual.Not(document)
	}
	return plugin.CheckVerified(f.System(), anchors, l, p)
}

// IsLicenseKey reports whether the bytes of a file whose name ends in .key are licence keys. A document that a built-in
// system recognises is a document under any name. Only a signed licence key is both.
func (c *Catalog) IsLicenseKey(data []byte) bool {
	if textual.IsPrivateKey(data) { // it is shown as what it is, whatever its name
		return false
	}
	data = c.Read(data)
	f, err := c.quickly(data)
	if err != nil {
		return errors.Is(err, ErrUnknown)
	}
	is := named(c.systems, f.System()).IsLicenseKey
	return is != nil && is(data)
}

// HostComponents returns, by name, the components of a host's fingerprint for the systems that name a host by one text.
// No configuration states one of these names.
func HostComponents(fingerprint string) map[string][]string {
	out := map[string][]string{}
	for _, s := range Systems() {
		if s.HostComponent != "" && fingerprint != "" {
			out[s.HostComponent] = []string{s.HostValue(fingerprint)}
		}
	}
	return out
}

// HostComponentNames returns the names of those components, in the catalog's order.
func HostComponentNames() (out []string) {
	for _, s := range Systems() {
		if s.HostComponent != "" {
			out = append(out, s.HostComponent)
		}
	}
	return out
}

// Upstream returns the upstream that serves a licence, or an error where there is none.
func (c *Catalog) Upstream(l *enforcer.License) (plugin.Upstream, error) {
	for _, p := range c.plugins {
		if p.Name() == l.System {
			return p.Upstream(), nil
		}
	}
	return nil, fmt.Errorf("licence %s: the system %s has no upstream here", l.ID, l.System)
}

// Anchor makes an anchor of a built-in system from a public key in the form that the system's vendors publish. An empty
// alg means the key's usual one.
func Anchor(system, keyID string, key []byte, alg string) (plugin.Anchor, error) {
	if s := named(Systems(), system); s.NewAnchor != nil {
		return s.NewAnchor(keyID, textual.PEM(key), alg)
	}
	return plugin.Anchor{}, fmt.Errorf("key %q: there is no licence system %q (known: %s)", keyID, system,
		strings.Join(BuiltIn().Systems(), ", "))
}

// Keyless reports whether anchors of a system and an algorithm have no vendor's key, but use the agent's own.
func Keyless(system, alg string) bool { return alg != "" && named(Systems(), system).Keyless == alg }

// NameSchemes sets the schemes of its system for which an anchor is believed; none means every scheme that its
// algorithm serves.
func NameSchemes(a *plugin.Anchor, schemes []string) error {
	s := named(Systems(), a.System)
	switch {
	case s.NameSchemes != nil:
		return s.NameSchemes(a, schemes)
	case len(schemes) > 0:
		return fmt.Errorf("key %q: the system %s has no schemes; leave schemes out", a.KeyID, a.System)
	}
	return nil
}

// TimeTeller returns the system whose signed dates are evidence of the time for an agent that believes these anchors:
// the first of [Systems] that has a production anchor. One time judges all licences of an agent, so one system alone
// tells it, and never a plugin or a test key. Empty: no system does.
func TimeTeller(anchors []plugin.Anchor) string {
	for _, s := range Systems() {
		if slices.ContainsFunc(anchors, func(a plugin.Anchor) bool {
			return a.System == s.Name && !a.Revoked && a.Environment != enforcer.Test
		}) {
			return s.Name
		}
	}
	return ""
}

// Own returns the anchors with the agent's key in those by which the agent believes what it has itself sealed.
func Own(anchors []plugin.Anchor, agent ed25519.PublicKey) []plugin.Anchor {
	for _, s := range Systems() {
		if s.Own != nil {
			anchors = s.Own(anchors, agent)
		}
	}
	return anchors
}

// PluginAnchor makes an anchor of a plugin's system from a public key in PEM. The system itself defines the names of
// its algorithms.
func PluginAnchor(system, keyID string, key []byte, alg string) (plugin.Anchor, error) {
	bad := func(err error) (plugin.Anchor, error) {
		return plugin.Anchor{},
			fmt.Errorf("key %q of system %s: %w; give the public key in PEM (BEGIN PUBLIC KEY)", keyID, system, err)
	}
	block, rest := pem.Decode(bytes.TrimSpace(textual.PEM(key)))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return bad(errors.New("it is not one public key"))
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return bad(err)
	}
	usual := ""
	switch pub.(type) {
	case ed25519.PublicKey:
		usual = "EdDSA"
	case *ecdsa.PublicKey:
		usual = "ECDSA"
	case *rsa.PublicKey:
		usual = "RSA"
	default:
		return bad(fmt.Errorf("a %T is not known", pub))
	}
	if alg == "" {
		alg = usual
	}
	return plugin.Anchor{System: system, KeyID: keyID, Algorithm: alg, Key: pub}, nil
}

// embedded is what a vendor has compiled in: the result of Embed, which the linker sets. `make build VENDOR=DIR` does
// it.
var embedded string

// Vendor is what a vendor compiles in: a product, and the only keys by which its licences are believed.
type Vendor struct {
	Product string   `json:"product"`
	Keys    []Public `json:"keys"`
}

// Public is one compiled-in key.
type Public struct {
	System      string    `json:"system"`
	KeyID       string    `json:"kid"`
	Algorithm   string    `json:"alg,omitempty"`
	Key         string    `json:"key"` // PEM
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Revoked     bool      `json:"revoked,omitempty"`
	Environment string    `json:"environment,omitempty"`
	Schemes     []string  `json:"schemes,omitempty"`
}

// Embed returns the linker flag that compiles a vendor in.
func Embed(v Vendor) (string, error) {
	if v.Product == "" {
		return "", fmt.Errorf("the product is missing")
	}
	if _, err := v.anchors(); err != nil {
		return "", err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	return "-X github.com/usher-agent/usher/plugin/catalog.embedded=" + base64.RawURLEncoding.EncodeToString(b), nil
}

// Embedded returns the product and the anchors that are compiled in; no product means that none are.
func Embedded() (product string, anchors []plugin.Anchor, err error) { return decode(embedded) }

func decode(s string) (string, []plugin.Anchor, error) {
	if s == "" {
		return "", nil, nil
	}
	var v Vendor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		return "", nil, fmt.Errorf(
			"the compiled-in vendor cannot be read: %w; build again with make build VENDOR=DIR", err)
	}
	anchors, err := v.anchors()
	return v.Product, anchors, err
}

func (v Vendor) anchors() ([]plugin.Anchor, error) {
	if len(v.Keys) == 0 {
		return nil, fmt.Errorf("product %s has no key", v.Product)
	}
	var out []plugin.Anchor
	for _, k := range v.Keys {
		a, err := Anchor(k.System, k.KeyID, []byte(k.Key), k.Algorithm)
		if err == nil {
			err = NameSchemes(&a, k.Schemes)
		}
		if err != nil {
			return nil, err
		}
		switch e := enforcer.Environment(k.Environment); {
		case e != "" && e != enforcer.Production && e != enforcer.Test:
			return nil, fmt.Errorf("key %q: environment is %q, and must be %s or %s", k.KeyID, k.Environment,
				enforcer.Production, enforcer.Test)
		case slices.ContainsFunc(out, func(o plugin.Anchor) bool { return o.System == k.System && o.KeyID == k.KeyID }):
			return nil, fmt.Errorf("key %q is named twice", k.KeyID)
		}
		a.NotBefore, a.NotAfter, a.Revoked, a.Environment, a.Embedded = k.NotBefore, k.NotAfter, k.Revoked,
			enforcer.Environment(k.Environment), true
		out = append(out, a)
	}
	return out, nil
}
