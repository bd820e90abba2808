package elastic

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Provide returns the system for package catalog.
func Provide() plugin.System {
	return plugin.System{
		Name:        System,
		Format:      Format{},
		Dialect:     Dialect{},
		NewAnchor:   NewAnchor,
		NameSchemes: NameSchemes,
		Settings:    func() plugin.Settings { return &Settings{Kind: KindOrchestration} },
		// A platform is asked what it has, and is told nothing.
		Carries: plugin.Carries{Held: true},
	}
}

// Settings is the platform whose licence is read. The zero value is none.
type Settings struct {
	URL  string `yaml:"url"`
	Kind string `yaml:"kind"` // KindOrchestration: it is an ECE; KindStack: an Elasticsearch
	// Region is of an ECE, for its API with regions; empty: the API without.
	Region     string `yaml:"region"`
	User       string `yaml:"user"`                   // empty: the secret is an API key
	SecretFile string `yaml:"secret_file" file:"use"` // an API key, or the user's password
}

// Used reports whether there is a platform.
func (s *Settings) Used() bool { return s.URL != "" }

// Check implements [plugin.Settings].
func (s *Settings) Check(bad func(key, text string)) {
	if s.URL == "" {
		if *s != (Settings{Kind: s.Kind}) {
			bad("", "upstream.elastic.url is missing, and the other keys of upstream.elastic are for it; set it, or "+
				"leave them out")
		}
		return
	}
	if _, err := address(s.URL); err != nil {
		bad("url",
			"upstream.elastic.url must be an address such as https://ece.example.com:12443, without user and query")
	}
	if s.Kind != KindOrchestration && s.Kind != KindStack {
		bad("kind", fmt.Sprintf("upstream.elastic.kind is %q, and must be %s or %s", plugin.Short(s.Kind),
			KindOrchestration, KindStack))
	}
	if s.Region != "" && s.Kind == KindStack {
		bad("region", "upstream.elastic.region is of an ECE, and upstream.elastic.kind says stack; leave it out")
	}
	if s.User != "" && s.SecretFile == "" {
		bad("secret_file", "upstream.elastic.secret_file is missing: the file with the password of "+
			"upstream.elastic.user")
	}
}

// address reads the address of a platform.
func address(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err == nil && (u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" ||
		u.Fragment != "") {
		err = errors.New("it is no address of an API")
	}
	return u, err
}

// Open implements [plugin.Settings]. The secret is read again for each call.
func (s *Settings) Open(e plugin.Environment) (plugin.Upstream, error) {
	base, err := address(s.URL)
	if err != nil {
		return nil, fmt.Errorf("upstream.elastic.url: %w", err)
	}
	c := &Client{base: base, kind: s.Kind, region: s.Region, http: client(e.Transport), now: e.Now, anchors: e.Anchors}
	if s.SecretFile != "" {
		c.user, c.secret = s.User, e.Secret("upstream.elastic.secret_file", s.SecretFile, s.secretOf)
		if _, err := c.secret(); err != nil {
			return nil, err
		}
	}
	if s.Kind == KindStack {
		return c, nil
	}
	return platform{c}, nil
}

// secretOf reads the text of the file with the secret.
func (s *Settings) secretOf(b []byte) (string, error) {
	secret := textual.Value(string(b))
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("upstream.elastic.secret_file %s: it does not hold one secret on one line",
			s.SecretFile)
	}
	return secret, nil
}
