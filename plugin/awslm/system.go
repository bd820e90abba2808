package awslm

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"strconv"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Provide returns the system for package catalog. Its configuration is called aws.
func Provide() plugin.System {
	return plugin.System{
		Name:      System,
		Format:    Format{},
		Dialect:   Dialect{},
		NewAnchor: NewAnchor,
		Keyless:   AlgorithmSealed,
		Own:       Own,
		Section:   "aws",
		Settings:  func() plugin.Settings { return &Settings{} },
	}
}

// Settings names the agent's licence in AWS License Manager. The zero value names none.
type Settings struct {
	ProductSKU       string            `yaml:"product_sku"`
	KeyFingerprint   string            `yaml:"key_fingerprint"`
	LicenseARN       string            `yaml:"license_arn"`
	Beneficiary      string            `yaml:"beneficiary"`
	NodeID           string            `yaml:"node_id"`
	Borrow           map[string]string `yaml:"borrow"` // the number by entitlement
	Region           string            `yaml:"region"`
	Endpoint         string            `yaml:"endpoint"`
	RefreshTokenFile string            `yaml:"refresh_token_file" file:"use"`
	RoleARN          string            `yaml:"role_arn"`
	STSEndpoint      string            `yaml:"sts_endpoint"`
}

// Used reports whether a licence is configured.
func (s *Settings) Used() bool { return s.ProductSKU != "" || s.KeyFingerprint != "" }

// Check implements [plugin.Settings].
func (s *Settings) Check(bad func(key, text string)) {
	if s.Used() && (s.ProductSKU == "" || s.KeyFingerprint == "") {
		bad("", "upstream.aws.product_sku and upstream.aws.key_fingerprint go together; set both, or neither")
	}
	for key, at := range map[string]string{"endpoint": s.Endpoint, "sts_endpoint": s.STSEndpoint} {
		if u, err := url.Parse(at); at != "" && (err != nil || u.Host == "" ||
			u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "") {
			bad(key, "upstream.aws."+key+" must be an address such as "+
				"https://license-manager.eu-west-1.amazonaws.com, without user and query")
		}
	}
	for name, n := range s.Borrow {
		if _, err := strconv.ParseUint(n, 10, 63); err != nil || name == "" {
			bad("borrow", fmt.Sprintf("upstream.aws.borrow: %q of %q cannot be borrowed; "+
				"give a whole number, and 0 for an entitlement without a unit", plugin.Short(n), plugin.Short(name)))
		}
	}
}

// Open implements [plugin.Settings].
func (s *Settings) Open(e plugin.Environment) (plugin.Upstream, error) {
	c, err := s.open(e)
	if err != nil {
		return nil, fmt.Errorf("upstream.aws: %w", err)
	}
	return c, nil
}

func (s *Settings) open(e plugin.Environment) (*Client, error) {
	borrow := map[string]int64{}
	for name, n := range s.Borrow {
		var err error
		if borrow[name], err = strconv.ParseInt(n, 10, 64); err != nil {
			return nil, fmt.Errorf("borrow: %w", err)
		}
	}
	// AWS's own samples read these variables.
	token := cmp.Or(
		s.RefreshTokenFile,
		textual.Value(os.Getenv("AWS_WEB_IDENTITY_REFRESH_TOKEN_FILE")),
		textual.Value(os.Getenv("AWS_LICENSE_ACCESS_FILE")),
	)
	role := s.RoleARN
	if token != "" {
		if _, err := e.ReadFile(token); err != nil {
			return nil, fmt.Errorf("the seller's refresh token: %w", err)
		}
		role = cmp.Or(role, textual.Value(os.Getenv("AWS_ROLE_ARN")))
	}
	refused := func(error) {}
	if e.FileRefused != nil {
		refused = func(err error) { e.FileRefused("upstream.aws.refresh_token_file", err) }
	}
	return NewClient(Config{
		TokenRefused:     refused,
		Key:              e.Key,
		ProductSKU:       s.ProductSKU,
		KeyFingerprint:   s.KeyFingerprint,
		LicenseArn:       s.LicenseARN,
		Beneficiary:      s.Beneficiary,
		NodeID:           s.NodeID,
		Borrow:           borrow,
		Region:           s.Region,
		Endpoint:         s.Endpoint,
		RefreshTokenFile: token,
		RoleARN:          role,
		STSEndpoint:      s.STSEndpoint,
		RootCAs:          e.RootCAs,
		CallWithin:       e.CallWithin,
		Now:              e.Now,
	})
}
