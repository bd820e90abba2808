package ucloud

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// The roles of tokens, beside ProviderRole.
const (
	roleUser    = "USER"
	roleAdmin   = "ADMIN"
	roleService = "SERVICE"
)

// The fixed parts of tokens.
const (
	issuer   = "cloud.sdu.dk"
	audience = "all:write"
)

// identity is the sender of a request.
type identity struct {
	name    string // the user's name; of a caller without a token one that no token can have
	role    string
	token   bool // it showed a token
	admin   bool // the agent's own admin
	caller  enforcer.Caller
	project string // the workspace; empty: the personal one
	manages bool   // it manages the workspace's project
	groups  []Entity
}

// identify finds the sender by its token, or by the socket's own credentials where it shows none.
func (x *request) identify() (*identity, *Fault) {
	unauthorized := refuse(http.StatusUnauthorized, "Unauthorized")
	scheme, token, _ := strings.Cut(x.r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	caller, vouched := x.Caller(x.r)
	project := x.r.Header.Get("Project")
	file, err := x.Credentials(x.r)
	if err != nil {
		x.Log().Error("the credentials file cannot be read", "error", err)
		return nil, unauthorized
	}
	if file == nil || token == "" && vouched { // some clients send an empty "Bearer "
		switch {
		case !vouched:
			return nil, unauthorized
		case project != "" && !caller.Admin:
			return nil, refuse(http.StatusForbidden, "Bad token supplied")
		}
		return &identity{name: socketName(caller), role: roleUser, admin: caller.Admin, caller: caller,
			project: project, manages: caller.Admin}, nil
	}
	key, err := parseKey(file)
	if err != nil || !strings.EqualFold(scheme, "Bearer") {
		return nil, unauthorized
	}
	c, err := key.open(token, x.Now())
	if err != nil {
		return nil, unauthorized
	}
	who := &identity{name: c.Subject, role: c.Role, token: true, admin: c.Role == roleAdmin, project: project,
		caller: x.CallerBy(x.r, "user "+c.Subject), groups: c.memberOf()}
	if c.Role == ProviderRole && c.Subject != "#P_"+x.provider() {
		return nil, refuse(http.StatusForbidden, "Forbidden")
	}
	if role, ok := c.Membership[project]; project != "" && !ok {
		return nil, refuse(http.StatusForbidden, "Bad token supplied")
	} else if ok {
		who.manages = role == "PI" || role == roleAdmin
	}
	return who, nil
}

// socketName names a caller without a token. No token may have such a name.
func socketName(c enforcer.Caller) string {
	if c.Credential != "" {
		sum := sha256.Sum256([]byte(c.Credential))
		return fmt.Sprintf("local:key-%x", sum[:8])
	}
	return fmt.Sprintf("local:uid-%d", c.UID)
}

// claims is the body of a token.
type claims struct {
	Issuer     string            `json:"iss"`
	Subject    string            `json:"sub"`
	Audience   jsontext.Value    `json:"aud"` // a text, or a list
	Issued     *float64          `json:"iat"`
	Expires    *float64          `json:"exp"`
	Role       string            `json:"role"`
	Membership map[string]string `json:"membership"`
	Groups     []jsontext.Value  `json:"groups"` // "project/group", or {"project", "group"}
}

func (c *claims) memberOf() (out []Entity) {
	for _, g := range c.Groups {
		var text string
		var pair struct {
			Project string `json:"project"`
			Group   string `json:"group"`
		}
		if json.Unmarshal(g, &text) == nil {
			pair.Project, pair.Group, _ = strings.Cut(text, "/")
		} else if json.Unmarshal(g, &pair) != nil {
			continue
		}
		out = append(out, Entity{Type: "project_group", ProjectID: pair.Project, Group: pair.Group})
	}
	return out
}

// parseKey reads a credentials_file: one line with the secret of an installation that shares one (HS512), or a public
// key or certificate in PEM (RS256).
func parseKey(file []byte) (*tokenKey, error) {
	if block, _ := pem.Decode(file); block != nil {
		var public any
		var err error
		switch block.Type {
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				public = cert.PublicKey
			}
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		default:
			return nil, fmt.Errorf("it holds a %q; give the public key or the certificate that tokens are signed for",
				plugin.Short(block.Type))
		}
		if key, ok := public.(*rsa.PublicKey); err == nil && ok && key.N.BitLen() >= 2048 {
			return &tokenKey{public: key}, nil
		}
		return nil, errors.New("it is no RSA key of at least 2048 bits; UCloud's tokens are RS256 or HS512")
	}
	secret := bytes.TrimSpace(file)
	if len(secret) < plugin.MinCredential || bytes.ContainsAny(secret, "\r\n") {
		return nil, fmt.Errorf("it must hold one secret of at least %d bytes, or an RSA public key in PEM; "+
			"`openssl rand -hex 64` makes a secret", plugin.MinCredential)
	}
	return &tokenKey{secret: secret}, nil
}

// open verifies a token at an instant. Exactly one algorithm counts: the key's.
func (k *tokenKey) open(token string, now time.Time) (*claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("it has not three parts")
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil {
			return nil, err
		}
		raw[i] = b
	}
	var h struct {
		Algorithm string         `json:"alg"`
		Critical  jsontext.Value `json:"crit"`
	}
	if err := json.Unmarshal(raw[0], &h); err != nil || h.Critical != nil {
		return nil, errors.New("its header cannot be read")
	}
	input := []byte(parts[0] + "." + parts[1])
	switch {
	case k.secret != nil && h.Algorithm == "HS512":
		mac := hmac.New(sha512.New, k.secret)
		mac.Write(input)
		if !hmac.Equal(mac.Sum(nil), raw[2]) {
			return nil, errors.New("its signature is wrong")
		}
	case k.public != nil && h.Algorithm == "RS256":
		sum := sha256.Sum256(input)
		if err := rsa.VerifyPKCS1v15(k.public, crypto.SHA256, sum[:], raw[2]); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("its algorithm is not the key's")
	}
	var c claims
	if err := json.Unmarshal(raw[1], &c); err != nil {
		return nil, err
	}
	at := float64(now.UnixMilli()) / 1000
	switch {
	case c.Issuer != issuer:
		return nil, errors.New("it has another issuer")
	case c.Expires == nil || *c.Expires <= at, c.Issued == nil || *c.Issued > at:
		return nil, errors.New("it is not good now")
	case c.Subject == "" || len(c.Subject) > maxName || strings.HasPrefix(c.Subject, "local:"):
		return nil, errors.New("its subject cannot be a user's name")
	case !slices.Contains([]string{roleUser, roleAdmin, roleService, ProviderRole}, c.Role):
		return nil, errors.New("it has no role")
	case !c.isFor(audience):
		return nil, errors.New("it is for another audience")
	}
	return &c, nil
}

func (c *claims) isFor(who string) bool {
	var one string
	var many []string
	return json.Unmarshal(c.Audience, &one) == nil && one == who ||
		json.Unmarshal(c.Audience, &many) == nil && slices.Contains(many, who)
}
