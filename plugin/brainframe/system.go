package brainframe

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Provide returns the system for package catalog.
func Provide() plugin.System {
	return plugin.System{
		Name:      System,
		Format:    Format{},
		Dialect:   Dialect{},
		NewAnchor: NewAnchor,
		Signed: func(document []byte) []byte {
			wrapped, err := Unwrap(document)
			if err != nil {
				return document
			}
			return wrapped
		},
		Settings: func() plugin.Settings { return &Settings{ExpirationDay: Exclusive} },
		// The server is asked for what it has, and is told nothing.
		Carries: plugin.Carries{Held: true},
	}
}

// Settings names the server that licences check in with, and says how dates are read. The zero value names none.
type Settings struct {
	URL          string `yaml:"url"`
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file" file:"use"`
	// ExpirationDay says what expiration_date means, to the server and in the dialect: Exclusive or Inclusive.
	ExpirationDay string `yaml:"expiration_day"`
}

var _ plugin.DialectSettings = (*Settings)(nil)

// Used reports whether there is a server.
func (s *Settings) Used() bool { return s.URL != "" }

// Dialect returns the dialect with these settings.
func (s *Settings) Dialect() plugin.Dialect { return Dialect{Inclusive: s.ExpirationDay == Inclusive} }

// Check implements [plugin.Settings].
func (s *Settings) Check(bad func(key, text string)) {
	if s.ExpirationDay != Exclusive && s.ExpirationDay != Inclusive {
		bad("expiration_day", fmt.Sprintf("upstream.brainframe.expiration_day is %q, and must be %s or %s",
			plugin.Short(s.ExpirationDay), Exclusive, Inclusive))
	}
	switch _, err := address(s.URL); {
	case s.URL == "" && (s.User != "" || s.PasswordFile != ""):
		bad("", "upstream.brainframe.url is missing, and user and password_file are for it; set it, or leave them out")
	case s.URL != "" && err != nil:
		bad("url", "upstream.brainframe.url "+err.Error())
	case (s.User == "") != (s.PasswordFile == ""):
		bad("", "upstream.brainframe.user and upstream.brainframe.password_file go together; set both, or neither")
	case strings.Contains(s.User, ":"):
		bad("user", "upstream.brainframe.user contains a colon, which HTTP Basic cannot carry; choose another user")
	}
}

// address reads the address of a server. The server's answers are not signed, so the way to it must be safe.
func address(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" ||
		u.Fragment != "" {
		return nil, errors.New("must be an address such as https://brainframe.example.com, without user and query")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if own := err == nil && ip.IsLoopback() || u.Hostname() == "localhost"; u.Scheme == "http" && !own {
		return nil, errors.New("is http, by which anybody on the way could answer: the server signs nothing; use " +
			"https, or a loopback address")
	}
	return u, nil
}

// Open implements [plugin.Settings]. The client reads the password again for each call.
func (s *Settings) Open(e plugin.Environment) (plugin.Upstream, error) {
	base, err := address(s.URL)
	if err != nil {
		return nil, fmt.Errorf("upstream.brainframe.url %w", err)
	}
	c := newClient(base, e, s.ExpirationDay == Inclusive)
	if s.PasswordFile == "" {
		return c, nil
	}
	c.user, c.password = s.User, e.Secret("upstream.brainframe.password_file", s.PasswordFile, s.passwordOf)
	_, err = c.password()
	return c, err
}

// passwordOf reads the text of the file with the password.
func (s *Settings) passwordOf(b []byte) (string, error) {
	if b = []byte(textual.Value(string(b))); len(b) == 0 || bytes.ContainsAny(b, "\r\n") {
		return "", fmt.Errorf("upstream.brainframe.password_file %s: it does not hold one password on one line",
			s.PasswordFile)
	}
	return string(b), nil
}
