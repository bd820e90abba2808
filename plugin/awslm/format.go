package awslm

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Format reads received licences that this agent has sealed, and borrowed ones. Its zero value is ready to use.
type Format struct{}

var _ plugin.Format = Format{}

// System returns "awslm".
func (Format) System() string { return System }

// response is a file that the AWS CLI wrote: the answer of CheckoutBorrowLicense or GetLicense, or a licence.
type response struct {
	SignedToken string         `json:"SignedToken"`
	License     jsontext.Value `json:"License"`
	LicenseArn  string         `json:"LicenseArn"`
}

// Recognise reports whether the bytes look like a licence of AWS License Manager, or the remains of one.
func (Format) Recognise(document []byte) bool {
	if len(document) > plugin.MaxDocument {
		return false
	}
	doc := trim(document)
	if bytes.HasPrefix(doc, []byte("{")) {
		return bytes.Contains(doc, []byte(`:license-manager:`)) &&
			(bytes.Contains(doc, []byte(`"SignedToken"`)) || bytes.Contains(doc, []byte(`"ProductSKU"`)))
	}
	head, rest, dots := bytes.Cut(doc, []byte("."))
	if !dots {
		return false
	}
	body, _, _ := bytes.Cut(rest, []byte("."))
	h := decodeLoosely(head[:min(len(head), 1024)])
	if bytes.Contains(h, []byte(sealType)) {
		return true
	}
	return bytes.HasPrefix(h, []byte("{")) && bytes.Contains(decodeLoosely(body), []byte(`"licenseConsumptionToken"`))
}

// decodeLoosely decodes base64url up to the first error.
func decodeLoosely(b []byte) []byte {
	out := make([]byte, 0, len(b)*3/4)
	for len(b) >= 4 {
		group, ok := part(string(b[:4]))
		if !ok {
			return out
		}
		out, b = append(out, group...), b[4:]
	}
	if tail, ok := part(string(b)); ok {
		out = append(out, tail...)
	}
	return out
}

// trim removes the white space and byte order mark that editors put around a token.
func trim(document []byte) []byte {
	return bytes.TrimSpace(bytes.TrimPrefix(document, []byte("\xef\xbb\xbf")))
}

// Verify checks a document against the anchors; see [plugin.Format].
func (Format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if len(document) > plugin.MaxDocument {
		return nil, malformed("", "it has %d bytes; a licence has at most %d (1 MiB)", len(document),
			plugin.MaxDocument)
	}
	doc := trim(document)
	if bytes.HasPrefix(doc, []byte("{")) {
		var r response
		if err := json.Unmarshal(doc, &r); err != nil {
			return nil, malformed("", "%v", plugin.JSONFault(err, "member"))
		}
		if r.SignedToken == "" {
			return unsealed(doc, &r)
		}
		doc = []byte(r.SignedToken)
	}
	compact := string(doc)
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, malformed("copy the whole token again", "it has %d of the 3 parts of a signed token", len(parts))
	}
	var raw [3][]byte
	for i, p := range parts {
		ok := false
		if raw[i], ok = part(p); !ok {
			return nil, malformed("copy the whole token again",
				"its %s is not base64url: it has been changed on the way", [3]string{"header", "body", "signature"}[i])
		}
	}
	var h header
	if err := json.Unmarshal(raw[0], &h); err != nil {
		return nil, malformed("", "its header: %v", plugin.JSONFault(err, "member"))
	}
	switch {
	case bytes.Contains(raw[0], []byte(`"crit"`)):
		return nil, malformed("", "its header has a crit, which Usher does not support")
	case h.Type == sealType:
		return verifySealed(compact, h, raw[1], anchors)
	}
	return verifyBorrowed(compact, parts, h, raw, anchors)
}

func verifySealed(compact string, h header, payload []byte,
	anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	l, err := receivedLicense(payload)
	if err == nil {
		err = l.Validate()
	}
	issuer := ""
	if err != nil {
		if said, _, err := openSealed(payload); err == nil {
			issuer = said.Issuer.KeyFingerprint
		}
	} else {
		issuer = l.KeyID
	}
	a, p := believeSealed(compact, h.KeyID, issuer, anchors)
	switch {
	case err != nil && p != nil:
		return nil, p // the precise error is for a verified document only
	case err != nil:
		return nil, malformed("aws license-manager get-license shows AWS's own state of it", "%v", err)
	case p != nil:
		return l, p
	}
	return checked(a, l)
}

func verifyBorrowed(compact string, parts []string, h header, raw [3][]byte,
	anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if h.Algorithm != "PS384" {
		return nil, malformed("",
			"its header says the algorithm %q; borrowed licences are signed with PS384",
			plugin.Short(h.Algorithm))
	}
	a, p := believeToken([]byte(compact[:len(parts[0])+1+len(parts[1])]), raw[2], anchors)
	product := skuOf(a)
	if product == "" {
		product = "unknown" // shown with the problem, and never judged
	}
	l, err := borrowedLicense(raw[1], product)
	if err == nil {
		l.KeyID = a.KeyID
		err = l.Validate()
	}
	switch {
	case err != nil && p != nil:
		return nil, p
	case err != nil:
		return nil, malformed("borrow it again, with the agent's key or the host's node-id as NodeId", "%v", err)
	case p != nil:
		return l, p
	}
	return checked(a, l)
}

func checked(a plugin.Anchor, l *enforcer.License) (*enforcer.License, *enforcer.Problem) {
	if p := inTime(a, l.Issued); p != nil {
		return l, p
	}
	l.AnchorEnvironment = a.Environment
	return l, nil
}

// unsealed describes a licence that AWS listed and nobody signed.
func unsealed(doc []byte, r *response) (*enforcer.License, *enforcer.Problem) {
	p := &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
		Reason: "it is a licence from AWS's list, which nobody has signed",
		Hint:   "have the agent fetch it (upstream.aws), or borrow it and install the SignedToken"}
	if len(r.License) > 0 {
		doc = r.License
	} else if r.LicenseArn == "" {
		return nil, malformed("", "it is neither a licence nor the answer to a borrow")
	}
	var l License
	var all map[string]any
	if json.Unmarshal(doc, &l) != nil || json.Unmarshal(doc, &all) != nil {
		return nil, p
	}
	out, err := l.terms(parsed(l.CreateTime), all)
	if err != nil || out.Validate() != nil {
		return nil, p
	}
	return out, p
}

func malformed(hint, format string, args ...any) *enforcer.Problem {
	return &enforcer.Problem{System: System, Code: enforcer.Malformed, Reason: fmt.Sprintf(format, args...), Hint: hint}
}
