package elastic

import (
	"bytes"
	"crypto/aes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The versions of a signature. Orchestration licences below version 3 sign what is not public.
const (
	maxVersion          = 5
	orchestrationSince  = 3
	startSignedSince    = 3
	enterpriseSignature = 5
)

// maxSignature is the size in bytes of the largest signature that is read: RSA of 16384 bits, and as much around it.
const maxSignature = 8 << 10

// blob is what stands in a licence's signature member: big-endian numbers, each text behind its length.
//
//	int32 version | magic | fingerprint | RSA signature
//
// All but the signature is unsigned. A negative version says that the licence is self-generated: what follows is then
// its content, encrypted under a key that everybody knows.
type blob struct {
	version     int32
	fingerprint []byte
	signature   []byte
	content     []byte // of a self-generated one, encrypted
}

// errNewer reports a signature of a version after the ones known here.
var errNewer = errors.New("its signature is of a later version than 5")

// parseBlob reads a signature member. The alphabet is the standard one, without line breaks, with padding.
func parseBlob(text string) (*blob, error) {
	if len(text) > base64.StdEncoding.EncodedLen(maxSignature) {
		return nil, fmt.Errorf("its signature has %d characters, more than any", len(text))
	}
	if bytes.ContainsAny([]byte(text), "\r\n") { // which the decoder passes over
		return nil, errors.New("its signature has a line break in it")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New("its signature is not base64: it was cut off or changed on the way")
	}
	r := reader{rest: raw}
	b := &blob{version: int32(r.number())}
	switch {
	case r.short:
		return nil, errors.New("its signature is empty or cut off")
	case b.version == 0 || b.version == math.MinInt32:
		return nil, errors.New("its signature has no version")
	case b.version < 0:
		b.content = r.text()
	case b.version > maxVersion:
		return nil, errNewer
	default:
		r.text() // random
		b.fingerprint = r.text()
		b.signature = r.text()
	}
	if r.short {
		return nil, errors.New("its signature is cut off")
	}
	return b, nil // both of the vendor's verifiers pass over what follows
}

// reader takes numbers and texts off the front of bytes. It allocates nothing.
type reader struct {
	rest  []byte
	short bool // there was less than was to be read
}

func (r *reader) number() uint32 {
	if len(r.rest) < 4 {
		r.short, r.rest = true, nil
		return 0
	}
	n := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	return n
}

func (r *reader) text() []byte {
	n := r.number()
	if uint64(n) > uint64(len(r.rest)) {
		r.short, r.rest = true, nil
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

// The keys that Elastic's tools encrypt fingerprints and self-generated licences with. They are in its public sources,
// and keep nothing secret: the later one is PBKDF2 of a fixed text, the earlier one base64 of its SHA-512.
var (
	key4 = []byte{0x84, 0x1e, 0x6e, 0x95, 0xcc, 0xc3, 0xa7, 0x65, 0x2e, 0x31, 0x4d, 0x51, 0x3e, 0xd4, 0xde, 0x67}
	key3 = []byte("vzWihJJKn0rkaiP+")
)

// decrypt opens AES-128-ECB with PKCS #5 padding; nil: it does not open. filled says that the text had been filled up
// with bytes of which the last counts them, which version 3 does to each.
func decrypt(key, ciphertext []byte, filled bool) []byte {
	block, err := aes.NewCipher(key)
	if err != nil || len(ciphertext) == 0 || len(ciphertext)%aes.BlockSize != 0 {
		return nil
	}
	plain := make([]byte, len(ciphertext))
	for i := 0; i < len(plain); i += aes.BlockSize {
		block.Decrypt(plain[i:], ciphertext[i:])
	}
	n := int(plain[len(plain)-1])
	if n < 1 || n > aes.BlockSize || !bytes.Equal(plain[len(plain)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil
	}
	plain = plain[:len(plain)-n]
	if filled {
		if len(plain) == 0 || int(plain[len(plain)-1]) > len(plain) {
			return nil
		}
		plain = plain[:len(plain)-int(plain[len(plain)-1])]
	}
	return plain
}

// issuedFor returns the SHA-256 of the key that a signature says it was made with; nil: it does not say. It is for
// messages. Anybody can write it there, so it proves nothing.
func (b *blob) issuedFor() []byte {
	if len(b.fingerprint) == sha256.Size {
		return b.fingerprint
	}
	raw, err := base64.StdEncoding.DecodeString(string(b.fingerprint))
	if err != nil {
		return nil
	}
	// The license tool of 7.x wrote the later key's form into signatures of version 2 too. Old tools of ECK wrote the
	// key in the clear.
	for _, der := range [][]byte{decrypt(key3, raw, true), decrypt(key4, raw, false), raw} {
		if pub := publicKey(der); pub != nil {
			return thumbprint(pub)
		}
	}
	return nil
}

// publicKey reads an RSA key in DER; nil: it is none.
func publicKey(der []byte) *rsa.PublicKey {
	if len(der) == 0 {
		return nil
	}
	if k, err := x509.ParsePKIXPublicKey(der); err == nil {
		pub, _ := k.(*rsa.PublicKey)
		return pub
	}
	pub, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		return nil
	}
	return pub
}

// thumbprint returns SHA-256 over a key's SubjectPublicKeyInfo, which signatures name it by; nil: it is none.
func thumbprint(k *rsa.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(der)
	return sum[:]
}
