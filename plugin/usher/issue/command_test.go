package issue_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

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
