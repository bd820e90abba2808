package awslm

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// The bounds of credentials and signatures, and the constants of Signature Version 4.
const (
	minSecret = plugin.MinCredential
	// maxSkew is how far a request's time may be from the clock here: AWS's own bound.
	maxSkew       = 15 * time.Minute
	sigAlgorithm  = "AWS4-HMAC-SHA256"
	sigTerminator = "aws4_request"
	sigService    = "license-manager"
	amzTime       = "20060102T150405Z"
)

// signature is the content of an Authorization header of Signature Version 4.
type signature struct {
	key, date, region, service string
	signed                     []string
	mac                        []byte
}

// parseCredentials reads access keys in the form of AWS's shared credentials file: any number of sections, each with
// aws_access_key_id and aws_secret_access_key. It ignores other lines.
func parseCredentials(file []byte) map[string]string {
	out := map[string]string{}
	id, secret := "", ""
	in := bufio.NewScanner(bytes.NewReader(textual.Decode(file)))
	for in.Scan() {
		line := textual.Value(in.Text())
		if strings.HasPrefix(line, "[") {
			id, secret = "", ""
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "aws_access_key_id":
			id = textual.Value(value)
		case "aws_secret_access_key":
			secret = textual.Value(value)
		}
		if id != "" && len(secret) >= minSecret {
			out[id] = secret
		}
	}
	return out
}

// verifySignature checks a request's signature against the access keys of a credentials file, and returns the key's id.
// No error quotes the request.
func verifySignature(r *http.Request, body, file []byte) (string, error) {
	if r.Header.Get("Authorization") == "" {
		return "", errors.New("it is not signed; give the SDK an access key of the listener's credentials_file")
	}
	s, err := parseSignature(r.Header.Get("Authorization"))
	if err != nil {
		return "", err
	}
	secret, ok := parseCredentials(file)[s.key]
	if !ok {
		return "", fmt.Errorf(
			"the listener's credentials_file does not have its access key (each secret there needs at least %d "+
				"characters)", minSecret)
	}
	at, err := time.Parse(amzTime, r.Header.Get("X-Amz-Date"))
	if err != nil || at.Format("20060102") != s.date {
		return "", errors.New("its X-Amz-Date is missing, or of another day than the credential's scope")
	}
	if d := time.Since(at); d > maxSkew || d < -maxSkew {
		return "", errors.New("its X-Amz-Date is more than 15 minutes from the time here")
	}
	if r.URL.RawQuery != "" {
		return "", errors.New("it has a query, and this API has none")
	}
	for _, must := range []string{"host", "x-amz-date", "x-amz-target"} {
		if !slices.Contains(s.signed, must) {
			return "", fmt.Errorf("its signature does not cover %s", must)
		}
	}
	sum := sha256.Sum256([]byte(canonical(r, s.signed, body)))
	scope := strings.Join([]string{s.date, s.region, s.service, sigTerminator}, "/")
	want := mac(s.signingKey(secret), sigAlgorithm+"\n"+at.Format(amzTime)+"\n"+scope+"\n"+hex.EncodeToString(sum[:]))
	if subtle.ConstantTimeCompare(want, s.mac) != 1 {
		return "", errors.New("its signature does not match; check that the secret is the one of credentials_file")
	}
	return s.key, nil
}

// parseSignature reads AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/license-manager/aws4_request, SignedHeaders=a;b,
// Signature=HEX.
func parseSignature(header string) (*signature, error) {
	bad := errors.New("its Authorization is not of Signature Version 4 for the service " + sigService)
	rest, ok := strings.CutPrefix(header, sigAlgorithm+" ")
	if !ok {
		return nil, bad
	}
	s := &signature{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			if len(scope) != 5 || scope[0] == "" || scope[3] != sigService || scope[4] != sigTerminator {
				return nil, bad
			}
			s.key, s.date, s.region, s.service = scope[0], scope[1], scope[2], scope[3]
		case "SignedHeaders":
			s.signed = strings.Split(value, ";")
		case "Signature":
			var err error
			if s.mac, err = hex.DecodeString(value); err != nil {
				return nil, bad
			}
		}
	}
	if s.key == "" || len(s.signed) == 0 || len(s.mac) != sha256.Size || !slices.IsSorted(s.signed) {
		return nil, bad
	}
	return s, nil
}

func (s *signature) signingKey(secret string) []byte {
	k := []byte("AWS4" + secret)
	for _, step := range []string{s.date, s.region, s.service, sigTerminator} {
		k = mac(k, step)
	}
	return k
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// canonical returns the canonical request: the path, encoded once more, the signed headers, and the body's digest.
func canonical(r *http.Request, signed []string, body []byte) string {
	var b strings.Builder
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	b.WriteString(r.Method + "\n" + encodePath(path) + "\n\n")
	for _, name := range signed {
		var values []string
		switch name {
		case "host":
			values = []string{r.Host}
		case "content-length":
			values = []string{strconv.FormatInt(r.ContentLength, 10)}
		default:
			values = slices.Clone(r.Header.Values(name))
		}
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		b.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	sum := sha256.Sum256(body)
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + hex.EncodeToString(sum[:]))
	return b.String()
}

func encodePath(path string) string {
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
