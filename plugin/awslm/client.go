package awslm

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	lm "github.com/aws/aws-sdk-go-v2/service/licensemanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/usher-agent/usher/plugin"
)

// The default time limits of a call: those of AWS's samples.
const (
	tryWithin  = 10 * time.Second
	callWithin = 30 * time.Second
	tries      = 3
)

// Config is what a Client needs.
type Config struct {
	// Key is the agent's key, which seals received licences.
	Key ed25519.PrivateKey

	ProductSKU     string
	KeyFingerprint string // of the issuer
	LicenseArn     string // for accounts that may not list licences, or have several of one SKU; may be empty
	Beneficiary    string // set if the issuer's own account checks out for a customer
	NodeID         string // this host's name in checkouts; empty: the agent key's thumbprint
	// Borrow is the number, by entitlement, that Fetch borrows for offline use; 0 for one without a unit. Empty: it
	// borrows nothing.
	Borrow map[string]int64

	Region   string
	Endpoint string // of License Manager alone, in place of AWS's own; may have a path
	// RefreshTokenFile has the seller's refresh token; only its owner may be able to read it. Empty: the SDK's default
	// chain.
	RefreshTokenFile string
	// TokenRefused hears why RefreshTokenFile is bad now, while its last good content is used; nil: the file is good.
	// Optional.
	TokenRefused func(error)
	RoleARN      string // the role to assume with the refresh token
	STSEndpoint  string

	// RootCAs returns the CAs to trust, nil for the system's; another pool only where they have changed. AWS_CA_BUNDLE
	// adds to either. nil: the system's.
	RootCAs    func() *x509.CertPool
	TryWithin  time.Duration // of one try; zero: 10 s
	CallWithin time.Duration // of a call with all its tries; zero: 30 s
	Now        func() time.Time
}

// Client is the upstream of licences in AWS License Manager. Its only state is a connection and credentials.
type Client struct {
	cfg  Config
	node string
	// token is the seller's refresh token, where one is configured.
	token *plugin.Renewed[string]

	mu    sync.Mutex
	cas   *x509.CertPool // that api trusts
	api   *lm.Client
	creds aws.CredentialsProvider
}

var (
	_ plugin.Budgeter  = (*Client)(nil)
	_ plugin.Drawer    = (*Client)(nil)
	_ plugin.Refetcher = (*Client)(nil)
)

// NewClient checks the configuration. It makes no call and reads no file.
func NewClient(cfg Config) (*Client, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.TryWithin == 0 {
		cfg.TryWithin = tryWithin
	}
	if cfg.RootCAs == nil {
		cfg.RootCAs = func() *x509.CertPool { return nil }
	}
	if cfg.CallWithin == 0 {
		cfg.CallWithin = callWithin
	}
	thumb, err := plugin.Thumbprint(cfg.Key.Public())
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, node: cfg.NodeID}
	c.token = &plugin.Renewed[string]{Told: cfg.TokenRefused,
		Read: func() ([]byte, error) {
			token, err := readSecret(cfg.RefreshTokenFile)
			return []byte(token), err
		},
		Parse: func(token []byte) (string, error) { return string(token), nil }}
	if c.node == "" {
		c.node = thumb
	}
	for _, e := range []string{cfg.Endpoint, cfg.STSEndpoint} {
		if u, err := url.Parse(e); e != "" &&
			(err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil) {
			return nil, fmt.Errorf("%q is not an address, such as https://license-manager.eu-west-1.amazonaws.com",
				plugin.Conceal(e))
		}
	}
	switch {
	case cfg.ProductSKU == "":
		return nil, errors.New("the product SKU is missing")
	case !isIssuer(cfg.KeyFingerprint):
		return nil, fmt.Errorf(
			"the key fingerprint is %q, and must be such as aws:294406891311:AWS/Marketplace:issuer-fingerprint",
			cfg.KeyFingerprint)
	case cfg.LicenseArn != "" && arn(cfg.LicenseArn) != nil:
		return nil, fmt.Errorf("%q is not the ARN of a licence", cfg.LicenseArn)
	case cfg.RefreshTokenFile != "" && cfg.RoleARN == "":
		return nil, errors.New("the refresh token needs a role to assume; name it")
	}
	for name, n := range cfg.Borrow {
		if name == "" || n < 0 {
			return nil, fmt.Errorf("%d of entitlement %q cannot be borrowed", n, name)
		}
	}
	return c, nil
}

// System returns "awslm".
func (c *Client) System() string { return System }

// Capabilities returns all but activation: a checkout alone makes a host known.
func (c *Client) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{Heartbeat: true, CheckIn: true, Deactivate: true, Budget: true}
}

// client returns the SDK's client, made at the first call. So the files of the default chain may change until then, and
// an agent that never calls AWS pays nothing for it.
func (c *Client) client(ctx context.Context) (*lm.Client, error) {
	api, creds, err := c.opened(ctx)
	if err != nil {
		return nil, err
	}
	// Retrieved here, so that an error of the credentials is not mistaken for an answer of License Manager.
	if _, err := creds.Retrieve(ctx); err != nil {
		return nil, credentialsError(ctx, err)
	}
	return api, nil
}

func (c *Client) opened(ctx context.Context) (*lm.Client, aws.CredentialsProvider, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cas := c.cfg.RootCAs()
	if c.api == nil || cas != c.cas {
		c.cas, c.api = cas, nil
		if err := c.open(ctx); err != nil {
			return nil, nil, err
		}
	}
	return c.api, c.creds, nil
}

func (c *Client) open(ctx context.Context) error {
	// Each try has its own time limit. It must be the SDK's own HTTP client: only that one honours AWS_CA_BUNDLE.
	web := awshttp.NewBuildableClient().WithTimeout(c.cfg.TryWithin).WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost, t.IdleConnTimeout, t.MaxResponseHeaderBytes = 1, 30*time.Second, 64<<10
		if c.cas != nil {
			t.TLSClientConfig.RootCAs = c.cas.Clone() // the SDK adds to it
		}
	})
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(web), config.WithRetryer(newRetryer),
		config.WithLogger(logging.Nop{})}
	if c.cfg.Region != "" {
		options = append(options, config.WithRegion(c.cfg.Region))
	}
	if c.cfg.RefreshTokenFile != "" { // the default chain is not used then
		options = append(options, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	}
	loaded, err := config.LoadDefaultConfig(ctx, options...)
	switch {
	case err != nil && ctx.Err() != nil:
		return plugin.Transiently("the AWS configuration: no answer in time")
	case err != nil:
		return misconfigured("check AWS_REGION, AWS_PROFILE and ~/.aws", "the AWS configuration cannot be read: %v",
			err)
	}
	if loaded.Region == "" {
		if c.cfg.Endpoint == "" {
			return misconfigured("name the licence's home Region", "no AWS Region is configured")
		}
		loaded.Region = "us-east-1" // for the signature
	}
	// The endpoint is for License Manager alone. In the shared configuration, STS and SSO would use it too.
	own := func(o *lm.Options) {
		if c.cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.cfg.Endpoint)
		}
	}
	c.creds = loaded.Credentials
	if c.cfg.RefreshTokenFile != "" {
		secrets := &refresher{token: c.token.Get, api: lm.NewFromConfig(loaded, own, func(o *lm.Options) {
			o.Credentials = aws.AnonymousCredentials{}
		})}
		svc := sts.NewFromConfig(loaded, func(o *sts.Options) {
			if c.cfg.STSEndpoint != "" {
				o.BaseEndpoint = aws.String(c.cfg.STSEndpoint)
			}
		})
		c.creds = aws.NewCredentialsCache(stscreds.NewWebIdentityRoleProvider(svc, c.cfg.RoleARN, secrets,
			func(o *stscreds.WebIdentityRoleOptions) {
				o.RoleSessionName = "usher"
			}), func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute })
	}
	if c.creds == nil {
		return misconfigured("see docs/systems/awslm.md", "there are no AWS credentials")
	}
	c.api = lm.NewFromConfig(loaded, own, func(o *lm.Options) { o.Credentials = c.creds })
	return nil
}

// newRetryer returns the SDK's retryer, and makes the service's own throttling known to it. It tries three times and
// waits little: the agent decides on outages and on the time of the next call.
func newRetryer() aws.Retryer {
	throttled := map[string]struct{}{ErrRateLimit: {}}
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = tries, 2*time.Second
		o.Retryables = append([]retry.IsErrorRetryable{retry.RetryableErrorCode{Codes: throttled}}, o.Retryables...)
	})
}

// within bounds a whole call.
func (c *Client) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.cfg.CallWithin)
}
