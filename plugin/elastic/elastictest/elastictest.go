// Package elastictest signs licences as Elastic's tools do, for tests. It shares no code with what verifies them.
package elastictest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"sync"
	"time"
)

// Signer is a key, and what signs with it.
type Signer struct{ Key *rsa.PrivateKey }

// New returns a signer with a key of its own.
func New() Signer {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // of crypto/rand: it never fails
	}
	return Signer{k}
}

// Shared returns one signer for all tests of a program.
var Shared = sync.OnceValue(New)

// DER returns the public key as products have it: SubjectPublicKeyInfo.
func (s Signer) DER() []byte {
	der, err := x509.MarshalPKIXPublicKey(&s.Key.PublicKey)
	if err != nil {
		panic(err)
	}
	return der
}

// PEM returns the public key in PEM.
func (s Signer) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.DER()})
}

// Content writes members, each a name and a value, as compact JSON in their order.
func Content(members ...any) []byte {
	b := []byte("{")
	for i := 0; i < len(members); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		for j, end := range []string{":", ""} {
			var w bytes.Buffer
			e := json.NewEncoder(&w)
			e.SetEscapeHTML(false)
			if err := e.Encode(members[i+j]); err != nil {
				panic(err)
			}
			b = append(append(b, bytes.TrimSpace(w.Bytes())...), end...)
		}
	}
	return append(b, '}')
}

// Blob returns a signature member of a version over a content, with a fingerprint; nil: the key's SHA-256.
func (s Signer) Blob(version int32, fingerprint, content []byte) string {
	sum := sha512.Sum512(content)
	sig, err := rsa.SignPKCS1v15(rand.Reader, s.Key, crypto.SHA512, sum[:])
	if err != nil {
		panic(err)
	}
	if fingerprint == nil {
		print := sha256.Sum256(s.DER())
		fingerprint = print[:]
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(version))
	magic := make([]byte, 13)
	rand.Read(magic) // never fails
	for _, part := range [][]byte{magic, fingerprint, sig} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// License is what a licence says. Zero numbers are left out, zero times too.
type License struct {
	UID, Type, IssuedTo, Issuer string
	Issued, Starts, Expires     time.Time
	Units, Instances, Nodes     int
	// Unsigned are further members of the file.
	Unsigned map[string]any
}

func (l *License) settle() {
	if l.Issuer == "" {
		l.Issuer = "API"
	}
	if l.IssuedTo == "" {
		l.IssuedTo = "Acme & Sons <test>"
	}
	if l.Issued.IsZero() {
		l.Issued = time.Now().Add(-time.Hour)
	}
	if l.Expires.IsZero() {
		l.Expires = l.Issued.Add(30 * 24 * time.Hour)
	}
}

// Orchestration signs a licence of ECE or ECK.
func (s Signer) Orchestration(l License) []byte {
	l.settle()
	if l.Starts.IsZero() {
		l.Starts = l.Issued
	}
	if l.Type == "" {
		l.Type = "enterprise"
	}
	version := int32(4)
	if l.Units == 0 {
		version = 3
	}
	members := []any{"uid", l.UID, "type", l.Type, "issue_date_in_millis", l.Issued.UnixMilli(),
		"start_date_in_millis", l.Starts.UnixMilli(), "expiry_date_in_millis", l.Expires.UnixMilli()}
	if l.Instances != 0 {
		members = append(members, "max_instances", l.Instances)
	}
	if l.Units != 0 {
		members = append(members, "max_resource_units", l.Units)
	}
	members = append(members, "issued_to", l.IssuedTo, "issuer", l.Issuer)
	return l.file(members, s.Blob(version, nil, Content(members...)))
}

// Stack signs a licence of Elasticsearch: of version 5 where it is an enterprise one, else of version 4.
func (s Signer) Stack(l License) []byte {
	l.settle()
	start := int64(-1)
	if !l.Starts.IsZero() {
		start = l.Starts.UnixMilli()
	}
	members := []any{"uid", l.UID, "type", l.Type, "issue_date_in_millis", l.Issued.UnixMilli(),
		"expiry_date_in_millis", l.Expires.UnixMilli()}
	version := int32(4)
	if l.Type == "enterprise" {
		version = 5
		members = append(members, "max_nodes", nil, "max_resource_units", l.Units)
	} else {
		members = append(members, "max_nodes", l.Nodes)
	}
	members = append(members, "issued_to", l.IssuedTo, "issuer", l.Issuer,
		"start_date_in_millis", start)
	return l.file(members, s.Blob(version, nil, Content(members...)))
}

// stack are the members of a licence of Elasticsearch in the order in which they are signed from version 5 on.
var stack = []string{"uid", "type", "issue_date_in_millis", "expiry_date_in_millis", "max_nodes", "max_resource_units",
	"issued_to", "issuer", "start_date_in_millis"}

// Signed signs a licence of Elasticsearch that says whatever a JSON object says.
func (s Signer) Signed(version int32, statement []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(statement, &all); err != nil {
		return nil, err
	}
	var members []any
	for _, name := range stack {
		members = append(members, name, all[name])
	}
	return (&License{}).file(members, s.Blob(version, nil, Content(members...))), nil
}

func (l *License) file(members []any, signature string) []byte {
	members = append(members, "signature", signature)
	for name, v := range l.Unsigned {
		members = append(members, name, v)
	}
	return append(append([]byte(`{"license":`), Content(members...)...), "}\n"...)
}
