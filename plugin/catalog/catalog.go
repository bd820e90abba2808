// Package catalog lists the built-in licence systems and says which one a document belongs to.
package catalog

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// Formats returns the document formats of the built-in systems.
func Formats() []plugin.Format { return []plugin.Format{usher.Format{}} }

// Recognise returns the format that a document belongs to. None, and more than one, are errors.
func Recognise(document []byte) (plugin.Format, error) {
	var found plugin.Format
	for _, f := range Formats() {
		if !f.Recognise(document) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("it looks like a licence of %s and of %s; it can only be one", found.System(), f.System())
		}
		found = f
	}
	if found == nil {
		return nil, fmt.Errorf("it is not a licence of any known system (%s)", strings.Join(Systems(), ", "))
	}
	return found, nil
}

// Systems returns the names of the built-in systems.
func Systems() []string {
	var out []string
	for _, f := range Formats() {
		out = append(out, f.System())
	}
	return out
}

// Anchor makes an anchor of a system from a public key as that system's vendors publish it. An empty alg means the key's
// usual one.
func Anchor(system, keyID string, key []byte, alg string) (plugin.Anchor, error) {
	switch system {
	case usher.System:
		return issue.NewAnchor(keyID, key, alg)
	default:
		return plugin.Anchor{}, fmt.Errorf("key %q: there is no licence system %q (known: %s)", keyID, system, strings.Join(Systems(), ", "))
	}
}

// embedded is what a vendor has compiled in: the result of Embed, set by the linker. `make build VENDOR=DIR` does it.
var embedded string

// Vendor is what a vendor compiles in: a product and the only keys that its licences are believed by.
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
}

// Embed returns the linker's flag that compiles a vendor in.
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
		return "", nil, fmt.Errorf("what is compiled in of the vendor cannot be read: %w; build again with make build VENDOR=DIR", err)
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
		if err != nil {
			return nil, err
		}
		switch e := enforcer.Environment(k.Environment); {
		case e != "" && e != enforcer.Production && e != enforcer.Test:
			return nil, fmt.Errorf("key %q: environment is %q, and must be %s or %s", k.KeyID, k.Environment, enforcer.Production, enforcer.Test)
		case slices.ContainsFunc(out, func(o plugin.Anchor) bool { return o.System == k.System && o.KeyID == k.KeyID }):
			return nil, fmt.Errorf("key %q is named twice", k.KeyID)
		}
		a.NotBefore, a.NotAfter, a.Revoked, a.Environment, a.Embedded = k.NotBefore, k.NotAfter, k.Revoked, enforcer.Environment(k.Environment), true
		out = append(out, a)
	}
	return out, nil
}
