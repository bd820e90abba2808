package issue_test

import (
	"bufio"
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

func claims() *usher.Claims {
	return &usher.Claims{ID: "acme-1", Product: "transcoder", Issued: 1772323200,
		Pools: map[string]usher.Pool{"streams": {Max: new(int64(8))}}}
}

// makeKey makes a pair in a folder of its own.
func makeKey(t *testing.T, kid, alg string) (private, public string) {
	t.Helper()
	private, public, err := issue.MakeKey(t.TempDir(), kid, alg)
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func anchor(t *testing.T, public, alg string) plugin.Anchor {
	t.Helper()
	a, err := usher.NewAnchor(issue.KeyIDOf(public), readFile(t, public), alg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused fails the test unless err says all of what.
func refused(t *testing.T, err error, what ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted; want an error with %q", what)
	}
	for _, w := range what {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want it to say %q", err, w)
		}
	}
}

func TestMakeKey(t *testing.T) {
	for alg, want := range map[string]string{"": "EdDSA", "EdDSA": "EdDSA", "ES256": "ES256", "PS256": "PS256",
		"RS256": "PS256"} {
		private, public := makeKey(t, "2026-a", alg)
		if filepath.Base(private) != "2026-a.key" || filepath.Base(public) != "2026-a.pub" {
			t.Errorf("%s: %s and %s", alg, private, public)
		}
		s, err := issue.LoadSigner(private, "")
		if err != nil {
			t.Fatal(err)
		}
		if s.Anchor.Algorithm != want || s.Anchor.KeyID != "2026-a" || s.Anchor.System != usher.System {
			t.Errorf("%s: %+v", alg, s.Anchor)
		}
		doc, err := s.Sign(claims())
		if err != nil {
			t.Fatal(err)
		}
		if _, p := (usher.Format{}).Verify(doc, []plugin.Anchor{anchor(t, public, "")}); p != nil {
			t.Errorf("%s: %s", alg, p.Reason)
		}
	}
}

func TestMakeKeyFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "keys")
	private, public, err := issue.MakeKey(dir, "k", "")
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]fs.FileMode{private: 0o600, dir: 0o700 | fs.ModeDir} {
			if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
				t.Errorf("%s: %v, %v, want %v", path, fi.Mode(), err, want)
			}
		}
	}
	// Neither of the pair is ever overwritten, and what fails leaves nothing behind.
	before := [2]string{string(readFile(t, private)), string(readFile(t, public))}
	_, _, err = issue.MakeKey(dir, "k", "")
	refused(t, err, private, "never overwritten", "--kid")
	if [2]string{string(readFile(t, private)), string(readFile(t, public))} != before {
		t.Error("a key was overwritten")
	}
	if err := os.Remove(private); err != nil {
		t.Fatal(err)
	}
	_, _, err = issue.MakeKey(dir, "k", "")
	refused(t, err, public, "never overwritten")
	if string(readFile(t, public)) != before[1] {
		t.Error("a public key was overwritten")
	}
	if _, err := os.Stat(private); err == nil {
		t.Error("half a pair is left")
	}
}

func TestMakeKeyRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, kid := range []string{"", "../k", "a/b", "a b", ".hidden", "-k", strings.Repeat("k", 65), "k\n",
		"schlüssel"} {
		_, _, err := issue.MakeKey(dir, kid, "")
		refused(t, err, "key id", "at most 64")
	}
	_, _, err := issue.MakeKey(dir, "k", "HS256")
	refused(t, err, `"HS256"`, "EdDSA, ES256, PS256, RS256")
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	file := filepath.Join(dir, "file")
	write(t, file, "x")
	_, _, err = issue.MakeKey(filepath.Join(file, "keys"), "k", "")
	refused(t, err, "make key k")
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestLoadSignerRefuses(t *testing.T) {
	dir := t.TempDir()
	private, public := makeKey(t, "k", "")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path, alg string
		want      []string
	}{
		"missing": {filepath.Join(dir, "none.key"), "", []string{"signing key", "none.key"}},
		"empty": {write(t, filepath.Join(dir, "empty.key"), ""), "",
			[]string{"empty.key", "usher vendor keygen"}},
		"noise": {write(t, filepath.Join(dir, "noise.key"), "\x00\xff-----"), "",
			[]string{"noise.key", "PKCS #8"}},
		"public": {public, "", []string{"k.pub", "not a PRIVATE KEY"}},
		"PKCS 1": {write(t, filepath.Join(dir, "rsa.key"),
			"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"), "",
			[]string{"rsa.key", "PKCS #8"}},
		"broken": {write(t, filepath.Join(dir, "broken.key"),
			"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "",
			[]string{"broken.key", "not a PKCS #8 key"}},
		"cannot sign": {write(t, filepath.Join(dir, "ecdh.key"), pkcs8(t, x25519)), "",
			[]string{"ecdh.key", "cannot sign"}},
		"another curve": {write(t, filepath.Join(dir, "p384.key"), pkcs8(t, p384)), "", []string{"P-384", "P-256"}},
		"wrong alg":     {private, "ES256", []string{"ES256 does not fit", "EdDSA"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := issue.LoadSigner(test.path, test.alg)
			refused(t, err, test.want...)
		})
	}
}

func TestNewAnchorRefuses(t *testing.T) {
	private, public := makeKey(t, "k", "")
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	weak := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	spki := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	for name, test := range map[string]struct {
		kid, alg string
		key      []byte
		want     []string
	}{
		"private key": {"k", "", readFile(t, private),
			[]string{`key "k"`, "private key, which must never leave the vendor", ".pub"}},
		"empty": {"k", "", nil, []string{"not PEM", "BEGIN PUBLIC KEY"}},
		"noise": {"k", "", []byte("\x00\xff"), []string{"not PEM"}},
		"certificate": {"k", "", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
			[]string{`"CERTIFICATE"`}},
		"broken": {"k", "", []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
			[]string{"not a public key"}},
		"weak RSA":      {"k", "", spki(weak), []string{"1024 bits", "2048"}},
		"another curve": {"k", "", spki(&p384.PublicKey), []string{"P-384"}},
		"wrong alg":     {"k", "PS256", readFile(t, public), []string{"PS256 does not fit"}},
		"bad id":        {"a/b", "", readFile(t, public), []string{`"a/b"`}},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := usher.NewAnchor(test.kid, test.key, test.alg)
			refused(t, err, test.want...)
			if a.Key != nil {
				t.Error("an anchor all the same")
			}
		})
	}
}

func TestKeyIDOf(t *testing.T) {
	for path, want := range map[string]string{"keys/2026-a.key": "2026-a", "2026-a.pub": "2026-a",
		"/x/v1.2.pem": "v1.2", "k": "k", "k.txt": "k.txt"} {
		if got := issue.KeyIDOf(filepath.FromSlash(path)); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

var (
	hash  = strings.Repeat("0a", 32)
	thumb = strings.Repeat("t", 43)
)

func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "issued.jsonl")
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	perpetual, ends := claims(), claims()
	ends.ID, ends.Licensee, ends.Expires = "acme-2", "Example Ltd", 1803859200
	for _, c := range []*usher.Claims{perpetual, ends} {
		if err := issue.Record(path, at, "2026-a", c, []byte("document "+c.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	var got []issue.Entry
	for lines := bufio.NewScanner(bytes.NewReader(readFile(t, path))); lines.Scan(); {
		var e issue.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if len(got) != 2 {
		t.Fatalf("%d lines", len(got))
	}
	sum := sha256.Sum256([]byte("document acme-2"))
	if e := got[0]; e.ID != "acme-1" || e.Expires != nil || !e.At.Equal(at) || e.At.Location() != time.UTC ||
		e.KeyID != "2026-a" {
		t.Errorf("first: %+v", e)
	}
	if e := got[1]; e.ID != "acme-2" || e.Licensee != "Example Ltd" || e.Expires == nil ||
		e.Expires.Unix() != 1803859200 ||
		e.SHA256 != hex.EncodeToString(sum[:]) || e.Claims == nil || *e.Claims.Pools["streams"].Max != 8 {
		t.Errorf("second: %+v", e)
	}
	refused(t, issue.Record(filepath.Join(path, "no"), at, "k", claims(), nil), "ledger", "--ledger")
	refused(t, issue.Record(filepath.Join(t.TempDir(), "none", "issued.jsonl"), at, "k", claims(), nil), "ledger",
		"--ledger")
}

// A licence that is issued again says what it said, to the last digit.
func TestClaimsComeBack(t *testing.T) {
	private, _ := makeKey(t, "k", "")
	s, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	c := claims()
	const max = int64(1)<<53 + 1
	c.Pools["streams"] = usher.Pool{Max: new(max)}
	c.Extra = map[string]jsontext.Value{"x_customer": jsontext.Value("1234567890123456789")}
	doc, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	back, err := s.Claims(usher.Armour(doc))
	if err != nil {
		t.Fatal(err)
	}
	if *back.Pools["streams"].Max != max || string(back.Extra["x_customer"]) != "1234567890123456789" {
		t.Errorf("max %d, x_customer %s", *back.Pools["streams"].Max, back.Extra["x_customer"])
	}
	other, _ := makeKey(t, "k", "")
	o, err := issue.LoadSigner(other, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Claims(doc)
	refused(t, err, "signature does not match")
}
