package awslm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	lm "github.com/aws/aws-sdk-go-v2/service/licensemanager"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// refresher trades the seller's refresh token for an access token of one hour. With that it assumes a role (web
// identity). It reads the file at each call, so that a token can be replaced.
type refresher struct {
	token func() (string, error)
	api   *lm.Client // without credentials
}

// GetIdentityToken implements stscreds.IdentityTokenRetriever.
func (r *refresher) GetIdentityToken() ([]byte, error) {
	token, err := r.token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callWithin) // the interface has no context
	defer cancel()
	out, err := r.api.GetAccessToken(ctx, &lm.GetAccessTokenInput{Token: aws.String(token)})
	if err != nil {
		// The service's message may quote the token.
		return nil, classify(ctx, OpGetAccessToken, errors.New(strings.ReplaceAll(reason(err), token, "…")), err)
	}
	if aws.ToString(out.AccessToken) == "" {
		return nil, plugin.Transiently("GetAccessToken answered without a token")
	}
	return []byte(*out.AccessToken), nil
}

// readSecret reads a secret that only its owner may read.
func readSecret(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", misconfigured("put the seller's refresh token there", "the refresh token cannot be read: %v", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", misconfigured("", "the refresh token cannot be read: %v", err)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return "", misconfigured("chmod 600 "+name, "others can read the refresh token in %s (mode %04o)", name,
			info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, 4097))
	token := textual.Value(string(textual.Decode(b)))
	if err != nil || token == "" || len(b) > 4096 || strings.ContainsAny(token, " \t\r\n") {
		return "", misconfigured("put the seller's refresh token there unchanged", "%s holds no refresh token", name)
	}
	return token, nil
}

// audience returns the licence of a refresh token: its aud. It verifies nothing, because the file is the operator's
// own.
func audience(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	body, ok := part(parts[1])
	var c struct {
		Audience any `json:"aud"`
	}
	if !ok || json.Unmarshal(body, &c) != nil {
		return ""
	}
	list, _ := c.Audience.([]any)
	for _, a := range append(list, c.Audience) {
		if s, ok := a.(string); ok && arn(s) == nil && strings.Contains(s, ":license-manager:") {
			return s
		}
	}
	return ""
}

// licenseArn returns the licence's ARN from the configuration or the refresh token; empty: neither has it.
func (c *Client) licenseArn() string {
	if c.cfg.LicenseArn != "" || c.cfg.RefreshTokenFile == "" {
		return c.cfg.LicenseArn
	}
	token, err := c.token.Get()
	if err != nil {
		return ""
	}
	return audience(token)
}

// credentialsError explains why there are no credentials. Only an outage is transient.
func credentialsError(ctx context.Context, err error) *plugin.Error {
	var own *plugin.Error
	if errors.As(err, &own) {
		return own
	}
	e := classify(ctx, "the AWS credentials", err, err)
	switch {
	case e.Class == plugin.Transient && e.SystemCode == "" && ctx.Err() == nil && !isNetwork(err):
		e.Class, e.Hint = plugin.Misconfigured, "docs/systems/awslm.md lists the places that credentials come from"
	case is(err, ErrAccessDenied, "AccessDenied"):
		e.Hint = "check that the role trusts the caller, as docs/systems/awslm.md shows; a new role takes some seconds"
	}
	e.Reason = fmt.Sprintf("there are no AWS credentials: %s", e.Reason)
	return e
}
