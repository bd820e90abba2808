package keygen

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Format reads Keygen's documents. Its zero value is ready to use.
type Format struct{}

var _ plugin.Opener = Format{}

// System returns "keygen".
func (Format) System() string { return System }

// Recognise reports whether the bytes look like a licence file, a machine file or a signed licence key.
func (Format) Recognise(document []byte) bool {
	if len(document) > plugin.MaxDocument {
		return false
	}
	all := lines(document)
	return armoured(all) || IsSignedKey(document)
}

// IsSignedKey reports whether a document is a signed licence key, not a file.
func IsSignedKey(document []byte) bool {
	all := lines(document)
	return len(all) == 1 && parseSigned(all[0]) != nil
}

// Verify is [Format.Open] without secrets.
func (f Format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	return f.Open(document, anchors, plugin.Secrets{})
}

// Open checks a document against the anchors, and decrypts it with the secrets if need be; see [plugin.Opener].
func (Format) Open(document []byte, anchors []plugin.Anchor, s plugin.Secrets) (*enforcer.License, *enforcer.Problem) {
	d, p := read(document, anchors, s)
	if d == nil {
		return nil, p
	}
	l, err := d.license()
	switch {
	case err != nil && p != nil:
		return nil, p
	case err != nil:
		return nil, malformed("ask the vendor for a corrected document", "%v", err)
	case p != nil:
		return l, p
	}
	l.KeyID, l.AnchorEnvironment = d.anchor.KeyID, d.anchor.Environment
	return l, inTime(d.anchor, l)
}

// document is the content of a document that has been read.
type document struct {
	kind   kind
	alg    string
	anchor plugin.Anchor
	data   []byte // the dataset, decrypted
	scheme string // of a signed key
	key    string // the licence key that opened it, or that it is itself; secret
}

// read verifies a document and returns its content. If only the signature is bad, it returns the unverified content
// beside the problem.
func read(raw []byte, anchors []plugin.Anchor, s plugin.Secrets) (*document, *enforcer.Problem) {
	if len(raw) > plugin.MaxDocument {
		return nil, malformed("", "it has %d bytes; a document has at most %d (1 MiB)", len(raw), plugin.MaxDocument)
	}
	all := lines(raw)
	if armoured(all) {
		return readFile(all, anchors, s)
	}
	if len(all) == 1 {
		if k := parseSigned(all[0]); k != nil {
			return k.read(anchors)
		}
	}
	return nil, malformed("", "it is neither a licence file nor a machine file nor a signed key of Keygen's")
}

func readFile(all []string, anchors []plugin.Anchor, s plugin.Secrets) (*document, *enforcer.Problem) {
	k, body, problem := strip(all)
	var e envelope
	if problem == "" {
		problem = e.open(body)
	}
	if problem != "" {
		return nil, malformed("copy the whole file again, as the vendor sent it", "%s", problem)
	}
	encoding, alg, _ := strings.Cut(e.Alg, "+")
	if encoding != "base64" && encoding != "aes-256-gcm" || !slices.Contains(Algorithms(), alg) {
		return nil, malformed("update the agent, or have the vendor check it out with another algorithm",
			"its algorithm %q is not known", plugin.Short(e.Alg))
	}
	sig, ok := unbase64(e.Sig)
	if !ok {
		return nil, malformed("copy the whole file again, as the vendor sent it",
			"its signature is not base64: it has been changed on the way")
	}
	d := &document{kind: k, alg: e.Alg}
	signed := []byte(string(k) + "/" + e.Enc)
	anchor, p := believe(anchors, alg, func(a plugin.Anchor) bool {
		return a.Algorithm == alg && serves(a, schemeFile)
	}, func(a plugin.Anchor) bool { return verifies(a, signed, sig) })
	d.anchor = anchor
	switch {
	case encoding == "base64":
		if d.data, ok = unbase64(e.Enc); !ok {
			return nil, orElse(p, malformed("", "its content is not base64"))
		}
		return d, p
	case p != nil:
		return nil, p // an unverified text is never decrypted
	}
	if p := d.decrypt(e.Enc, s); p != nil {
		return nil, p
	}
	return d, nil
}

func orElse(p, q *enforcer.Problem) *enforcer.Problem {
	if p != nil {
		return p
	}
	return q
}

// decrypt tries the licence keys in turn. A machine file needs the host's fingerprint besides.
func (d *document) decrypt(enc string, s plugin.Secrets) *enforcer.Problem {
	parts := strings.Split(enc, ".")
	if len(parts) != 3 {
		return malformed("", "its content has %d of the 3 parts of an encrypted text", len(parts))
	}
	var raw [3][]byte
	for i, part := range parts {
		var ok bool
		if raw[i], ok = unbase64(part); !ok {
			return malformed("", "its encrypted content is not base64")
		}
	}
	ciphertext, iv, tag := raw[0], raw[1], raw[2]
	if len(iv) != 12 || len(tag) != 16 { // cipher.AEAD panics on other sizes
		return malformed("", "its encrypted content has an IV of %d and a tag of %d bytes, and must have 12 and 16",
			len(iv), len(tag))
	}
	for _, key := range s.Keys {
		secret := key
		if d.kind == machineFile {
			secret += s.Fingerprint
		}
		if d.data = gcm(secret, ciphertext, iv, tag); d.data != nil {
			d.key = key
			return nil
		}
	}
	p := &enforcer.Problem{System: System, Code: enforcer.Unavailable, SystemCode: "ENCRYPTED", Signed: true,
		Reason: "its signature is good, but it is encrypted, and no licence key is at hand to open it",
		Hint: "put the licence key into a file beside it whose name ends in .key, name a file of keys as " +
			"license.key_file, or install it with `usher license install FILE --key -`"}
	if n := len(s.Keys); n > 0 {
		p.Reason = fmt.Sprintf(
			"its signature is good, but it is encrypted, and none of the licence keys at hand (%d) opens it", n)
	}
	if d.kind == machineFile {
		p.Reason += fmt.Sprintf(" on this host, whose fingerprint is %q to Keygen", plugin.Short(s.Fingerprint))
		p.Hint += "; only the host with the fingerprint that it was checked out for can open it: see host.fingerprint"
	}
	return p
}

// gcm decrypts AES-256-GCM under SHA-256 of a secret; nil: the secret is wrong.
func gcm(secret string, ciphertext, iv, tag []byte) []byte {
	key := sha256.Sum256([]byte(secret))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil
	}
	plain, err := aead.Open(nil, iv, append(slices.Clone(ciphertext), tag...), nil)
	if err != nil {
		return nil
	}
	if plain == nil {
		return []byte{}
	}
	return plain
}

func malformed(hint, format string, args ...any) *enforcer.Problem {
	return &enforcer.Problem{System: System, Code: enforcer.Malformed, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

// Fingerprint returns the value of [Component] for Keygen's name of a host: HMAC-SHA-256, keyed by the component's
// name. Unlike other components it is not keyed by product: a vendor uses one fingerprint for all products.
func Fingerprint(raw string) string {
	m := hmac.New(sha256.New, padded(Component))
	m.Write([]byte(raw))
	return hex.EncodeToString(m.Sum(nil))
}

// padded returns a name as a key of HMAC-SHA-256. HMAC itself appends the zeros (RFC 2104 §2), so that they change no
// value. The name is no secret: it keeps apart what belongs to different names. GODEBUG=fips140=only takes no short
// key.
func padded(name string) []byte {
	return append([]byte(name), make([]byte, max(0, sha256.BlockSize-len(name)))...)
}
