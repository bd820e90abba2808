package keygen

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Provide returns the system for package catalog.
func Provide() plugin.System {
	return plugin.System{
		Name:          System,
		Format:        Format{},
		Dialect:       Dialect{},
		NewAnchor:     NewAnchor,
		NameSchemes:   NameSchemes,
		IsLicenseKey:  IsSignedKey,
		HostComponent: Component,
		HostValue:     Fingerprint,
		Settings:      func() plugin.Settings { return &Settings{} },
		// A machine describes its host. The licence key, or a token, authenticates for the licence.
		Carries: plugin.Carries{Fingerprint: true, Hostname: true, Memory: true, Disk: true, Held: true},
	}
}

// Settings is the account that serves the licences. The zero value names none.
type Settings struct {
	Account     string `yaml:"account"` // its id or slug
	URL         string `yaml:"url"`     // of a self-hosted server; empty: CloudURL
	TokenFile   string `yaml:"token_file" file:"use"`
	Environment string `yaml:"environment"` // code or id; empty: none
}

// Used reports whether an account is configured.
func (s *Settings) Used() bool { return s.Account != "" }

// Check implements [plugin.Settings].
func (s *Settings) Check(bad func(key, text string)) {
	a, err := url.Parse(s.URL)
	switch {
	case s.Account == "" && *s != (Settings{}):
		bad("", "upstream.keygen.account is missing, and the other keys of upstream.keygen need it; "+
			"set it, or leave them out")
	case s.URL != "" && (err != nil || a.Host == "" || a.Scheme != "https" && a.Scheme != "http" ||
		a.User != nil || a.RawQuery != ""):
		bad("url", "upstream.keygen.url must be an address such as https://keygen.example.com, without user and query")
	}
}

// Open implements [plugin.Settings].
func (s *Settings) Open(e plugin.Environment) (plugin.Upstream, error) {
	token := func() (string, error) { return "", nil }
	if s.TokenFile != "" {
		token = e.Secret("upstream.keygen.token_file", s.TokenFile, s.tokenOf)
	}
	if _, err := token(); err != nil {
		return nil, err
	}
	c, err := NewClient(Config{
		Account:     s.Account,
		URL:         s.URL,
		Environment: s.Environment,
		Token:       token,
		HTTP:        e.Transport,
		Now:         e.Now,
		Anchors:     e.Anchors,
		Secrets:     e.Secrets,
	})
	if err != nil {
		return nil, fmt.Errorf("upstream.keygen: %w", err)
	}
	return c, nil
}

// tokenOf reads the text of the token file.
func (s *Settings) tokenOf(b []byte) (string, error) {
	token := textual.Value(string(b))
	if token == "" || strings.ContainsAny(token, " \r\n\t") {
		return "", fmt.Errorf("upstream.keygen.token_file %s: it does not hold one token", s.TokenFile)
	}
	return token, nil
}
