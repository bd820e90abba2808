package keygen

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// maxAge is the greatest age of a signed answer: Keygen's own bound.
const maxAge = 5 * time.Minute

// signatureParameter finds the parts of a Keygen-Signature header.
var signatureParameter = regexp.MustCompile(`([a-z]+)="([^"]*)"`)

// The errors of a signature check.
var (
	errUnsigned = errors.New("it is not signed")
	errDigest   = errors.New("its body is not the signed one: it has been changed on the way")
	errForged   = errors.New("no key of the account in trust verifies its signature")
)

// VerifyResponse checks an answer's signature with the account's keys, and returns when it was made. method and target
// are the request's, as sent; the URL gives the host. It checks neither the answer's age nor whether a test key signed
// it: see [Client]. The format is Keygen's (docs: API, Signatures), after draft-cavage-http-signatures-12.
func VerifyResponse(method string, target *url.URL, header http.Header, body []byte,
	anchors []plugin.Anchor) (time.Time, error) {
	parts := map[string]string{}
	for _, m := range signatureParameter.FindAllStringSubmatch(header.Get("Keygen-Signature"), -1) {
		parts[m[1]] = m[2]
	}
	sig, ok := unbase64(parts["signature"])
	// A proxy may replace the server's Date by its own.
	date, digest := cmp.Or(header.Get("Keygen-Date"), header.Get("Date")),
		cmp.Or(header.Get("Keygen-Digest"), header.Get("Digest"))
	if !ok || len(sig) == 0 || date == "" || digest == "" {
		return time.Time{}, errUnsigned
	}
	sum := sha256.Sum256(body)
	if digest != "sha-256="+base64.StdEncoding.EncodeToString(sum[:]) {
		return time.Time{}, errDigest
	}
	at, err := http.ParseTime(date)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: its date cannot be read", errUnsigned)
	}
	alg := cmp.Or(parts["algorithm"], algEd25519)
	hosts := []string{target.Host}
	if host, _, err := net.SplitHostPort(target.Host); err == nil {
		hosts = append(hosts, host) // the server signs its name without a port
	}
	for _, host := range hosts {
		message := []byte(fmt.Sprintf("(request-target): %s %s\nhost: %s\ndate: %s\ndigest: %s",
			strings.ToLower(method), target.RequestURI(), host, date, digest))
		if slices.ContainsFunc(anchors, func(a plugin.Anchor) bool {
			return a.System == System && a.Algorithm == alg && a.Answers(true, at, at) == nil &&
				verifies(a, message, sig)
		}) {
			return at, nil
		}
	}
	return time.Time{}, errForged
}
