package awslm_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/usher-agent/usher/plugin/awslm"
)

const keysFile = `# of the products
[one]
aws_access_key_id = AKIAONE
aws_secret_access_key = 0123456789abcdef/+one
region = eu-west-1

[short]
aws_access_key_id=AKIASHORT
aws_secret_access_key=short
[two]
aws_secret_access_key=0123456789abcdef=two
aws_access_key_id=AKIATWO
`

// signed makes a request that AWS's own signer has signed.
func signed(t testing.TB, path, key, secret, service, region string, at time.Time, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", awslm.ContentType)
	r.Header.Set(awslm.TargetHeader, awslm.TargetPrefix+awslm.OpListReceived)
	r.Header.Set("Amz-Sdk-Request", "attempt=1;   max=3")
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: key, SecretAccessKey: secret,
		SessionToken: "a session"}, r, hex.EncodeToString(sum[:]), service, region, at); err != nil {
		t.Fatal(err)
	}
	return r
}

// Only requests that AWS's signer signed with a key of the file are accepted.
func TestSignatures(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	c.desk.Sender, c.desk.CredentialsFile = nil, []byte(keysFile)
	now := time.Now()
	const secret, service, region = "0123456789abcdef/+one", "license-manager", "eu-west-1"
	good := func() *http.Request { return signed(t, "/", "AKIAONE", secret, service, region, now, "{}") }
	changed := func(f func(*http.Request)) *http.Request {
		r := good()
		f(r)
		return r
	}
	header := func(name, value string) *http.Request {
		return changed(func(r *http.Request) { r.Header.Set(name, value) })
	}
	authorization := func(old, new string) *http.Request {
		return changed(func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		})
	}
	for name, row := range map[string]struct {
		r    *http.Request
		says string // empty: it is let in
	}{
		"a key":       {good(), ""},
		"another key": {signed(t, "/", "AKIATWO", "0123456789abcdef=two", service, region, now, "{}"), ""},
		"no region":   {signed(t, "/", "AKIAONE", secret, service, "", now, "{}"), ""},
		"a path":      {signed(t, "/aws/a%20b/ü", "AKIAONE", secret, service, region, now, "{}"), ""},
		"ten minutes off": {signed(t, "/", "AKIAONE", secret, service, region, now.Add(-10*time.Minute), "{}"),
			""},
		"an old one": {signed(t, "/", "AKIAONE", secret, service, region, now.Add(-16*time.Minute), "{}"),
			"15 minutes"},
		"one to come": {signed(t, "/", "AKIAONE", secret, service, region, now.Add(16*time.Minute), "{}"),
			"15 minutes"},
		"the wrong secret": {signed(t, "/", "AKIAONE", secret+"x", service, region, now, "{}"),
			"does not match"},
		"an unknown key": {signed(t, "/", "AKIANONE", secret, service, region, now, "{}"),
			"does not have its access key"},
		"a secret that is short": {signed(t, "/", "AKIASHORT", "short", service, region, now, "{}"),
			"does not have its access key"},
		"another service":   {signed(t, "/", "AKIAONE", secret, "s3", region, now, "{}"), "Version 4"},
		"a query":           {signed(t, "/?a=b", "AKIAONE", secret, service, region, now, "{}"), "query"},
		"another body":      {changed(func(r *http.Request) { r.Body = http.NoBody }), "does not match"},
		"another operation": {header(awslm.TargetHeader, awslm.TargetPrefix+awslm.OpGetUsage), "does not match"},
		"another host":      {changed(func(r *http.Request) { r.Host = "elsewhere" }), "does not match"},
		"another time": {header("X-Amz-Date", now.UTC().Add(time.Second).Format("20060102T150405Z")),
			"does not match"},
		"no time":                  {header("X-Amz-Date", ""), "X-Amz-Date"},
		"no signature":             {header("Authorization", ""), "not signed"},
		"a bearer":                 {header("Authorization", "Bearer x"), "Version 4"},
		"half a signature":         {authorization("Signature=", "Signature=00"), "Version 4"},
		"the operation not signed": {authorization(";x-amz-target", ""), "x-amz-target"},
		"the host not signed":      {authorization(";host;", ";"), "host"},
	} {
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, row.r)
		switch {
		case row.says == "" && w.Code != http.StatusOK, row.says != "" &&
			(w.Code != 400 || !strings.Contains(w.Body.String(), awslm.ErrAccessDenied) ||
				!strings.Contains(w.Body.String(), row.says)):
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		case strings.Contains(w.Body.String(), "AKIA"), strings.Contains(w.Body.String(), secret):
			t.Errorf("%s: a credential is told: %s", name, w.Body)
		}
	}
	c.desk.CredentialsFile = nil
	w := httptest.NewRecorder()
	if c.h.ServeHTTP(w, good()); w.Code != 400 {
		t.Errorf("without a file of keys: %d", w.Code)
	}
}

// FuzzSignature: no Authorization but the right one is accepted.
func FuzzSignature(f *testing.F) {
	c := counter(f, native())
	c.desk.Sender, c.desk.CredentialsFile = nil, []byte(keysFile)
	right := signed(f, "/", "AKIAONE", "0123456789abcdef/+one", "license-manager", "x", time.Now(), "{}")
	f.Add(right.Header.Get("Authorization"))
	f.Add(
		"AWS4-HMAC-SHA256 Credential=AKIAONE/20260101/x/license-manager/aws4_request, " +
			"SignedHeaders=host;x-amz-date;x-amz-target, Signature=00")
	f.Fuzz(func(t *testing.T, authorization string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
		r.Header = right.Header.Clone()
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		fields := func(s string) string {
			return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' }), " ")
		}
		if w.Code == http.StatusOK && !strings.EqualFold(fields(authorization),
			fields(right.Header.Get("Authorization"))) &&
			!strings.Contains(authorization, "Signature="+signatureOf(right)) {
			t.Errorf("%q is let in", authorization)
		}
	})
}

func signatureOf(r *http.Request) string {
	_, s, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	return s
}

// The check of a credentials file names the line of a secret that is too short, or that has a comment behind it.
func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"[a]\naws_access_key_id = A\n# made today\naws_secret_access_key = 0123456789abcdef\n": "",
		"[a]\naws_access_key_id = A\naws_secret_access_key = 0123456789abcdef # made today\n":  "line 3",
		"[a]\naws_access_key_id = A ; me\naws_secret_access_key = 0123456789abcdef\n":          "line 2",
		"[a]\naws_access_key_id = A\naws_secret_access_key = 0123\n":                           "line 3",
	} {
		err := awslm.Dialect{}.CheckCredentials([]byte(file))
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%q: %v, want %q", file, err, want)
		}
	}
}
