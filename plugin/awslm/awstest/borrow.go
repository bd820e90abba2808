package awstest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin/awslm"
)

func (s *Server) borrow(r *awslm.BorrowRequest) (any, string, *awslm.Fault) {
	l := s.licenses[r.LicenseArn]
	if l == nil || !s.consumable(l) {
		return nil, "", &awslm.Fault{Code: awslm.ErrResourceNotFound, Message: "License not found"}
	}
	b := l.ConsumptionConfiguration.BorrowConfiguration
	if b == nil || len(s.allowed(l, r.Entitlements)) < len(r.Entitlements) {
		return nil, "", &awslm.Fault{Code: awslm.ErrNoEntitlements, Message: "No Entitlements Allowed"}
	}
	end := s.now.Add(time.Duration(b.MaxTimeToLiveInMinutes) * time.Minute)
	c := &Checkout{Token: s.token(), License: l.LicenseArn, Type: "BORROW", Taken: r.Entitlements, Until: end,
		Node: r.NodeID}
	s.out[c.Token] = c
	metadata := map[string]string{}
	for _, m := range r.CheckoutMetadata {
		metadata[m.Name] = m.Value
	}
	signed := Sign(s.Key, map[string]any{"alg": "PS384", "typ": "JWT"},
		Payload(l.LicenseArn, c.Token, r.NodeID, s.now, end, metadata, r.Entitlements...))
	return awslm.BorrowResponse{LicenseArn: l.LicenseArn, LicenseConsumptionToken: c.Token,
			EntitlementsAllowed: r.Entitlements, SignedToken: signed, NodeID: r.NodeID,
			IssuedAt: awslm.LocalTime(s.now), Expiration: awslm.LocalTime(end), CheckoutMetadata: r.CheckoutMetadata},
		c.Token, nil
}

// Payload makes the payload of a SignedToken, as in AWS's sample.
func Payload(arn, consumption, node string, from, to time.Time, metadata map[string]string,
	list ...awslm.EntitlementData) map[string]any {
	var allowed []any
	for _, e := range list {
		allowed = append(allowed, map[string]any{"name": e.Name, "unit": e.Unit, "value": e.Value})
	}
	return map[string]any{"licenseArn": arn, "licenseConsumptionToken": consumption, "entitlementsAllowed": allowed,
		"nodeId":   node,
		"issuedAt": awslm.LocalTime(from), "expiration": awslm.LocalTime(to), "checkoutMetadata": metadata}
}

// Sign makes a compact JWS with PS384, for any header.
func Sign(key *rsa.PrivateKey, header, payload map[string]any) string {
	return SignSalted(key, header, payload, sha512.Size384)
}

// SignSalted is Sign with a salt of another length.
func SignSalted(key *rsa.PrivateKey, header, payload map[string]any, salt int) string {
	b64 := func(v any) string {
		b, err := json.Marshal(v, json.Deterministic(true))
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	input := b64(header) + "." + b64(payload)
	sum := sha512.Sum384([]byte(input))
	sig, err := rsa.SignPSS(rand.Reader, key, crypto.SHA384, sum[:],
		&rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA384})
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// The answers of STS, around an error's code and around a role's expiration.
const (
	stsSpace  = `xmlns="https://sts.amazonaws.com/doc/2011-06-15/"`
	stsDenied = `<ErrorResponse ` + stsSpace + `><Error><Type>Sender</Type><Code>AccessDenied</Code>` +
		`<Message>Not authorized</Message></Error></ErrorResponse>`
	stsRole = `<AssumeRoleWithWebIdentityResponse ` + stsSpace + `><AssumeRoleWithWebIdentityResult><Credentials>` +
		`<AccessKeyId>ASIATEST</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>` +
		`<SessionToken>session</SessionToken><Expiration>%s</Expiration></Credentials>` +
		`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
)

func (s *Server) sts(w http.ResponseWriter, form string) {
	if !strings.Contains(form, "Action=AssumeRoleWithWebIdentity") ||
		!strings.Contains(form, "WebIdentityToken=access.") {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, stsDenied)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, stsRole, awslm.ZonedTime(time.Now().Add(time.Hour)))
}
