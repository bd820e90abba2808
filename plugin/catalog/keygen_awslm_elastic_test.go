package catalog_test

import (
	"archive/zip"
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"mime/quotedprintable"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// document is a good document of one of the systems, with what it takes to verify it.
type document struct {
	name    string
	data    []byte
	anchors []plugin.Anchor
	secrets plugin.Secrets
	fragile bool // JSON over which text editors must not go: quotes and blanks are part of it
}

// documents returns good documents of every form that the systems have.
func documents(t *testing.T) (out []document) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	private, _, err := issue.MakeKey(t.TempDir(), "k1", "")
	check(err)
	s, err := issue.LoadSigner(private, "")
	check(err)
	native, err := s.Sign(&usher.Claims{ID: "L1", Product: "acme", Issued: time.Now().Unix(),
		Pools: map[string]usher.Pool{"streams": {Max: new(int64(3))}}})
	check(err)
	trust := []plugin.Anchor{s.Anchor}
	out = append(out, document{"native", native, trust, plugin.Secrets{}, false},
		document{"native in armour", usher.Armour(native), trust, plugin.Secrets{}, false})

	for _, name := range []string{"license-aes-ed25519-relay", "machine-aes-ed25519-python", "key-ed25519-eopa"} {
		var v struct {
			PublicKey                                struct{ Type, Hex string }
			LicenseKey, Fingerprint, File, KeyFormat string
		}
		b, err := os.ReadFile("../keygen/testdata/" + name + ".json")
		check(err)
		check(json.Unmarshal(b, &v))
		a, err := catalog.Anchor("keygen", "account", []byte(v.PublicKey.Hex), "")
		check(err)
		data := v.File
		if data == "" {
			data = v.LicenseKey
		}
		out = append(out, document{name, []byte(data), []plugin.Anchor{a},
			plugin.Secrets{Keys: []string{v.LicenseKey}, Fingerprint: v.Fingerprint}, false})
	}

	e := elastictest.New()
	a, err := catalog.Anchor("elastic", "e", e.PEM(), "")
	check(err)
	out = append(out, document{"elastic", e.Orchestration(elastictest.License{UID: "u-1", Units: 4}),
		[]plugin.Anchor{a}, plugin.Secrets{}, true})

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	check(err)
	a, err = catalog.Anchor("awslm", "sku-1", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "")
	check(err)
	token := awstest.Sign(key, map[string]any{"alg": "PS384", "typ": "JWT"},
		awstest.Payload("arn:aws:license-manager::123456789012:license:l-1", "c-1", "node", time.Now(),
			time.Now().Add(24*time.Hour), nil, awslm.EntitlementData{Name: "streams", Unit: "Count", Value: "3"}))
	out = append(out, document{"awslm", []byte(token), []plugin.Anchor{a}, plugin.Secrets{}, false})
	return out
}

// verify says what the catalog says of a document: its licence's id, or the code.
func verify(d document, data []byte) string {
	l, p := catalog.BuiltIn().Verify(data, d.anchors, d.secrets)
	if p != nil {
		return string(p.Code) + ": " + p.Reason
	}
	return l.ID
}

// way is what becomes of a text on its way.
type way struct {
	name string
	does func(string) string
}

// ways are what editors, mail clients, shells and portals do to a text; none of them changes a word of it.
func ways() []way {
	return []way{
		{"a byte order mark", func(s string) string { return "\ufeff" + s }},
		{"CRLF", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }},
		{"CR", func(s string) string { return strings.ReplaceAll(s, "\n", "\r") }},
		{"blanks around", func(s string) string { return " \t\n" + s + " \u00a0\n\n" }},
		{"indented", func(s string) string { return "   " + strings.ReplaceAll(s, "\n", "\n   ") }},
		{"quoted mail", func(s string) string { return "> " + strings.ReplaceAll(s, "\n", "\n> ") }},
		{"blanks at line ends", func(s string) string { return strings.ReplaceAll(s, "\n", "  \n") + "  " }},
		{"no-break spaces", func(s string) string { return "\u00a0" + strings.ReplaceAll(s, " ", "\u00a0") }},
		{"zero-width spaces", func(s string) string {
			return s[:len(s)/3] + "\u200b" + s[len(s)/3:len(s)/2] + "\u2060\ufeff" + s[len(s)/2:] + "\u200e"
		}},
		{"in quotes", func(s string) string { return `"` + s + `"` }},
		{"in typographic quotes", func(s string) string { return "“" + s + "”" }},
		{"line ends as \\n", func(s string) string { return strings.ReplaceAll(s, "\n", `\n`) }},
		{"line ends as blanks", func(s string) string { return strings.ReplaceAll(s, "\n", " ") }},
		{"line ends gone", func(s string) string { return strings.ReplaceAll(s, "\n", "") }},
		{"typographic dashes", func(s string) string { return strings.ReplaceAll(s, "-", "‐") }},
		{"base64", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }},
		{"base64 in lines", func(s string) string { return broken(base64.StdEncoding.EncodeToString([]byte(s)), 76) }},
		{"quoted-printable", func(s string) string {
			var b bytes.Buffer
			w := quotedprintable.NewWriter(&b)
			fmt.Fprint(w, s)
			w.Close()
			return b.String()
		}},
		{"attached to a mail", func(s string) string {
			return "From: a@example.com\nSubject: your licence\nMIME-Version: 1.0\n\n" +
				"--x\nContent-Type: text/plain\n\n" +
				"Dear customer,\nhere it is.\n\n--x\nContent-Transfer-Encoding: base64\n\n" +
				broken(base64.StdEncoding.EncodeToString([]byte(s)), 76) + "\n--x--\n"
		}},
		{"in a JSON answer", func(s string) string {
			b, err := json.Marshal(
				map[string]any{"data": map[string]any{"attributes": map[string]any{"certificate": s}}})
			if err != nil {
				panic(err)
			}
			return string(b)
		}},
		{"UTF-16", func(s string) string { return utf16Of(s, false) }},
		{"UTF-16 without a mark", func(s string) string { return utf16Of(s, true)[2:] }},
	}
}

// broken breaks a text into lines.
func broken(s string, width int) string {
	var b strings.Builder
	for ; len(s) > width; s = s[width:] {
		b.WriteString(s[:width] + "\n")
	}
	return b.String() + s
}

func utf16Of(s string, big bool) string {
	var b []byte
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(s))...) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return string(b)
}

// applies reports whether a document may go a way: JSON is a grammar of its own, in which quotes and blanks mean
// something, so that what changes the words of others cannot be told there from what was signed.
func applies(d document, w way) bool {
	if !d.fragile {
		return true
	}
	switch w.name {
	case "a byte order mark", "CRLF", "blanks around", "base64", "base64 in lines", "attached to a mail", "UTF-16",
		"UTF-16 without a mark", "quoted-printable":
		return true
	}
	return false
}

// A document of every system is the same licence whatever mail, editors and shells did around its words.
func TestEveryFormatOnEveryWay(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		want := verify(d, d.data)
		if strings.Contains(want, ": ") {
			t.Fatalf("%s itself: %s", d.name, want)
		}
		for _, w := range ways() {
			if got := verify(d, []byte(w.does(string(d.data)))); applies(d, w) && got != want {
				t.Errorf("%s, %s: %s, want %s", d.name, w.name, got, want)
			}
		}
	}
}

// The same holds for two ways, one after the other.
func TestEveryFormatOnTwoWays(t *testing.T) {
	t.Parallel()
	all := documents(t)
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(all).Draw(t, "document")
		first, second := rapid.SampledFrom(ways()).Draw(t, "first"), rapid.SampledFrom(ways()).Draw(t, "second")
		if !applies(d, first) || !applies(d, second) || strings.HasPrefix(first.name, "UTF-16") ||
			first.name == "no-break spaces" && second.name == "no-break spaces" {
			return // a text in UTF-16 is no text to the other
		}
		if first.name == "attached to a mail" && !slices.Contains([]string{"a byte order mark", "CRLF", "CR", "base64",
			"base64 in lines", "UTF-16", "UTF-16 without a mark"}, second.name) {
			return // a mail without its lines is no mail
		}
		if got, want := verify(d, []byte(second.does(first.does(string(d.data))))), verify(d, d.data); got != want {
			t.Fatalf("%s, %s, then %s: %s, want %s", d.name, first.name, second.name, got, want)
		}
	})
}

// No way makes a changed document good, and no reading panics, whatever the bytes are.
func TestNoReadingForgivesAChange(t *testing.T) {
	t.Parallel()
	all := documents(t)
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(all).Draw(t, "document")
		data := bytes.Clone(d.data)
		i := rapid.IntRange(0, len(data)-1).Draw(t, "at")
		data[i] = rapid.SampledFrom([]byte("AzQ07xK")).Draw(t, "byte")
		w := rapid.SampledFrom(ways()).Draw(t, "way")
		if l, p := catalog.BuiltIn().Verify([]byte(w.does(string(data))), d.anchors, d.secrets); p == nil &&
			l.ID != verify(d, d.data) {
			t.Fatalf("%s changed at %d is licence %s", d.name, i, l.ID)
		}
		catalog.BuiltIn().Verify(rapid.SliceOf(rapid.Byte()).Draw(t, "noise"), d.anchors, d.secrets)
	})
}

// An anchor of every system is read on every way that leaves its words alone.
func TestEveryKeyOnEveryWay(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for _, system := range append(catalog.BuiltIn().Systems(), "plugin") {
		make := func(key string) (plugin.Anchor, error) {
			if system == "plugin" {
				return catalog.PluginAnchor(system, "k", []byte(key), "")
			}
			return catalog.Anchor(system, "k", []byte(key), "")
		}
		text, public := text, crypto.PublicKey(key.Public())
		if _, err := make(text); err != nil { // it wants another kind of key
			pub, _, _ := ed25519.GenerateKey(nil)
			der, err := x509.MarshalPKIXPublicKey(pub)
			if err != nil {
				t.Fatal(err)
			}
			text, public = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), pub
		}
		want, err := make(text)
		if err != nil {
			t.Errorf("%s: %v", system, err)
			continue
		}
		for _, w := range ways() {
			if got, err := make(w.does(text)); err != nil || !reflect.DeepEqual(got.Key, public) ||
				got.KeyID != want.KeyID {
				t.Errorf("%s, %s: %v", system, w.name, err)
			}
		}
	}
	// What is read as it is: a key in DER may end in any byte.
	if got := textual.PEM(der); !bytes.Equal(got, der) {
		t.Errorf("DER is not left alone")
	}
}

// An archive that stores a licence as it is is named as an archive, whatever the system: its text is there, with other
// bytes around it.
func TestStoredInAnArchive(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.CreateHeader(&zip.FileHeader{Name: "acme.lic", Method: zip.Store})
		if err == nil {
			_, err = w.Write(d.data)
		}
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		l, p := catalog.BuiltIn().Verify(b.Bytes(), d.anchors, d.secrets)
		if l == nil && !strings.Contains(p.Reason, "it is a ZIP archive") {
			t.Errorf("%s: %+v", d.name, p)
		}
	}
}

// What is no licence is named, with the remedy.
func TestWhatIsNoLicence(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ file, reason, hint string }{
		"web page": {"<!DOCTYPE html>\n<html><body>Log in</body></html>", "it is a web page, not a licence",
			"log in"},
		"private key": {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "it is a private key",
			"secret"},
		"public key": {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "it is a public key",
			"license.trust"},
		"ZIP":         {"PK\x03\x04\x14\x00", "it is a ZIP archive", "unpack"},
		"UTF-16 page": {utf16Of("<html><body>Log in</body></html>", false), "it is a web page", "download"},
		"mail": {"Subject: your licence\nFrom: a@example.com\n\nIt is attached.\n", "it is an e-mail",
			"attached"},
	} {
		_, p := catalog.BuiltIn().Verify([]byte(row.file), nil, plugin.Secrets{})
		if p == nil || p.Code != enforcer.Malformed || !strings.Contains(p.Reason, row.reason) ||
			!strings.Contains(p.Hint, row.hint) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
