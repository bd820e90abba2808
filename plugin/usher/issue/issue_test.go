package issue_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
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

// A request as `usher fingerprint --request` writes it.
func request(product, agentKey string, components string) []byte {
	return fmt.Appendf(nil, `{"product":%q,"agent_key":%q,"components":[%s],"cores":{"physical":4}}`, product, agentKey,
		components)
}

var (
	hash  = strings.Repeat("0a", 32)
	thumb = strings.Repeat("t", 43)
)

func component(name, note string) string {
	return fmt.Sprintf(`{"name":%q,"values":[%q],"note":%q}`, name, hash, note)
}

func TestBind(t *testing.T) {
	c := claims()
	parts := component("machine-id", "") + "," + component("product-uuid", "the container's own") +
		`,{"name":"tpm-ek","values":[]}`
	if err := issue.Bind(c, "request.json", request("transcoder", thumb, parts), "any"); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts) != 1 || c.Hosts[0].Strategy != "any" || len(c.Hosts[0].Components) != 1 ||
		c.Hosts[0].Components["machine-id"][0] != hash {
		t.Errorf("hosts: %+v", c.Hosts)
	}
	if len(c.AgentKeys) != 1 || c.AgentKeys[0] != thumb {
		t.Errorf("agent keys: %q", c.AgentKeys)
	}
	// A second host, whose agent has not told its key.
	if err := issue.Bind(c, "second.json", request("transcoder", "", component("machine-id", "")), ""); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts) != 2 || c.Hosts[1].Strategy != "" || len(c.AgentKeys) != 1 {
		t.Errorf("two hosts: %+v, %q", c.Hosts, c.AgentKeys)
	}
	// In a container there may be the agent's key alone.
	c = claims()
	if err := issue.Bind(c, "request.json",
		request("transcoder", thumb, component("machine-id", "the container's own")), ""); err != nil {
		t.Fatal(err)
	}
	if len(c.Hosts) != 0 || len(c.AgentKeys) != 1 {
		t.Errorf("agent key alone: %+v, %q", c.Hosts, c.AgentKeys)
	}
}

func TestBindRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		want []string
	}{
		"another product": {request("player", thumb, component("machine-id", "")),
			[]string{"request.json", `"player"`, "--product transcoder"}},
		"nothing to bind": {request("transcoder", "", component("machine-id", "the container's own")),
			[]string{"neither a component", "agent's key"}},
		"no hash": {request("transcoder", "", `{"name":"machine-id","values":["4c4c4544"]}`),
			[]string{"machine-id", "HMAC-SHA-256"}},
		"capital hash": {request("transcoder", "", `{"name":"machine-id","values":["`+strings.ToUpper(hash)+`"]}`),
			[]string{"HMAC-SHA-256"}},
		"empty":     {nil, []string{"request.json", "usher fingerprint --request"}},
		"a licence": {[]byte("-----BEGIN USHER LICENSE-----"), []string{"usher fingerprint --request"}},
		"a list":    {[]byte("[]"), []string{"usher fingerprint --request"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := claims()
			refused(t, issue.Bind(c, "request.json", test.data, ""), test.want...)
			if len(c.Hosts)+len(c.AgentKeys) > 0 {
				t.Errorf("bound all the same: %+v", c)
			}
		})
	}
	// What Bind does not look at, signing does.
	private, _ := makeKey(t, "k", "")
	s, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	for strategy, key := range map[string]string{"half": thumb, "": "short"} {
		c := claims()
		if err := issue.Bind(c, "request.json", request("transcoder", key, component("machine-id", "")),
			strategy); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sign(c); err == nil {
			t.Errorf("strategy %q, agent key %q are signed", strategy, key)
		}
	}
}

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

// posix skips where the signing command cannot be one for sh.
func posix(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the commands are for sh")
	}
}

func openssl(t *testing.T) {
	t.Helper()
	posix(t)
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
}

// A vendor may sign with openssl, raw and in base64; an ECDSA signature comes as ASN.1.
func TestCommandSignerOpenSSL(t *testing.T) {
	openssl(t)
	for alg, sign := range map[string]string{
		"EdDSA": `cat > "$T/in" && openssl pkeyutl -sign -rawin -inkey "$K" -in "$T/in"`,
		"ES256": `openssl dgst -sha256 -sign "$K"`,
		"RS256": `openssl dgst -sha256 -sign "$K"`,
		"PS256": `openssl dgst -sha256 -sign "$K" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest`,
	} {
		t.Run(alg, func(t *testing.T) {
			private, public := makeKey(t, "kms-1", alg)
			t.Setenv("K", private)
			t.Setenv("T", t.TempDir())
			a := anchor(t, public, alg)
			for _, command := range []string{sign, "(" + sign + ") | base64", "(" + sign + ") | openssl base64 -A",
				"(" + sign + ") | base64 | tr '+/' '-_' | tr -d '=\n'", "(" + sign + ") | base64 | tr '+/' '-_'"} {
				doc, err := issue.CommandSigner(t.Context(), command, a).Sign(claims())
				if err != nil {
					t.Fatalf("%s: %v", command, err)
				}
				if _, p := (usher.Format{}).Verify(doc, []plugin.Anchor{a}); p != nil {
					t.Errorf("%s: %s", command, p.Reason)
				}
			}
		})
	}
}

// The command is told the key and the algorithm, and gets the very bytes to sign.
func TestCommandSignerInput(t *testing.T) {
	posix(t)
	private, public := makeKey(t, "kms-1", "ES256")
	s, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("T", dir)
	// The signature of any input but this one would be another's: so it is made beforehand, over what Sign will ask
	// for.
	doc, err := s.Sign(claims())
	if err != nil {
		t.Fatal(err)
	}
	input, sig, _ := strings.Cut(string(doc), ".")
	body, sig, _ := strings.Cut(sig, ".")
	raw, err := base64.RawURLEncoding.DecodeString(sig)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "sig"), base64.StdEncoding.EncodeToString(raw)+"\n") // the 64 bytes of RFC 7518
	script := write(t, filepath.Join(dir, "sign.sh"),
		"cat > \"$T/in\"\necho \"$USHER_KID $USHER_ALG\" > \"$T/env\"\ncat \"$T/sig\"\n")
	got, err := issue.CommandSigner(t.Context(), "sh "+script, anchor(t, public, "")).Sign(claims())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, doc) {
		t.Errorf("got %s, want %s", got, doc)
	}
	if in := string(readFile(t, filepath.Join(dir, "in"))); in != input+"."+body {
		t.Errorf("the command got %q", in)
	}
	if env := string(readFile(t, filepath.Join(dir, "env"))); env != "kms-1 ES256\n" {
		t.Errorf("the command's environment: %q", env)
	}
}

func TestCommandSignerRefuses(t *testing.T) {
	posix(t)
	_, ed := makeKey(t, "kms-1", "")
	_, es := makeKey(t, "kms-2", "ES256")
	for name, test := range map[string]struct {
		public, command string
		want            []string
	}{
		"fails":                 {ed, "exit 3", []string{`signer "exit 3"`, "exit status 3"}},
		"is missing":            {ed, "exec 2>/dev/null; usher-no-such-command", []string{"exit status 127"}},
		"writes nothing":        {ed, "cat >/dev/null", []string{"wrote nothing", "standard output"}},
		"writes nothing, ECDSA": {es, ":", []string{"wrote nothing"}},
		"writes too much":       {ed, "head -c 70000 /dev/zero", []string{"wrote 70000 bytes"}},
		"writes noise":          {ed, "echo hello", []string{"does not verify", `"kms-1"`, "EdDSA"}},
		"writes noise, ECDSA":   {es, "echo hello", []string{"neither ASN.1 nor 64 bytes"}},
		"writes zeros":          {es, "head -c 64 /dev/zero", []string{"does not verify", `"kms-2"`, "ES256"}},
	} {
		t.Run(name, func(t *testing.T) {
			doc, err := issue.CommandSigner(t.Context(), test.command, anchor(t, test.public, "")).Sign(claims())
			refused(t, err, test.want...)
			if doc != nil {
				t.Error("a document all the same")
			}
		})
	}
}

// A signer with another key than the public one given is caught before anything leaves the house.
func TestCommandSignerWrongKey(t *testing.T) {
	openssl(t)
	private, _ := makeKey(t, "kms-1", "ES256")
	_, public := makeKey(t, "kms-1", "ES256")
	t.Setenv("K", private)
	_, err := issue.CommandSigner(t.Context(), `openssl dgst -sha256 -sign "$K"`, anchor(t, public, "")).Sign(claims())
	refused(t, err, `does not verify with key "kms-1"`, "the private key of that public key")
}

// A command that hangs ends with the context, though what it has started still holds its output (until the test's
// folder is removed).
func TestCommandSignerStops(t *testing.T) {
	posix(t)
	_, public := makeKey(t, "kms-1", "")
	ready := filepath.Join(t.TempDir(), "ready")
	t.Setenv("READY", ready)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stop, stopNow := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := issue.CommandSigner(stop,
			`: > "$READY"; while [ -e "$READY" ]; do sleep 0.1; done 2>/dev/null & wait`,
			anchor(t, public, "")).Sign(claims())
		done <- err
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatalf("it ended by itself: %v", err)
		case <-ctx.Done():
			t.Fatal("the command did not begin")
		}
	}
	stopNow()
	select {
	case err := <-done:
		refused(t, err, "signer", "it was stopped", "context canceled")
	case <-ctx.Done():
		t.Fatal("it hangs")
	}
}

// A request is written on the customer's host: what its configuration states under the name of a measured component, or
// of one by which a system names a host, is left out.
func TestBindLeavesOutWhatOnlyLooksMeasured(t *testing.T) {
	hash := strings.Repeat("a", 64)
	request := fmt.Sprintf(
		`{"product":"acme","components":[{"name":"machine-id","values":[%q]},{"name":"mac","configured":true,"values":[%q]},{"name":"cluster","configured":true,"values":[%q]},{"name":"toy-fingerprint","configured":true,"values":[%q]}]}`, hash, hash, hash, hash)
	c := &usher.Claims{Product: "acme"}
	if err := issue.Bind(c, "request.json", []byte(request), "", "toy-fingerprint"); err != nil {
		t.Fatal(err)
	}
	if got := c.Hosts[0].Components; len(got) != 2 || got["mac"] != nil || got["cluster"] == nil {
		t.Errorf("%v", got)
	}
}
