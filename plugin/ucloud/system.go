package ucloud

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

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
		Settings:  func() plugin.Settings { return &Settings{} },
		Carries:   plugin.Carries{Held: true},
	}
}

// Settings is the UCloud that has the licence resource, and what the local API says of its products. The zero value
// asks no UCloud, and makes a product of each pool.
type Settings struct {
	URL       string `yaml:"url"`
	TokenFile string `yaml:"token_file" file:"use"` // an API token, or a refresh token
	Project   string `yaml:"project"`               // the workspace; empty: the token's own, or the personal one
	// the provider's token, by which the UCloud is told the licence's state and jobs; empty: it is told nothing
	ProviderTokenFile string `yaml:"provider_token_file" file:"use"`

	Provider string            `yaml:"provider"` // the id of the products' provider; empty: DefaultProvider
	Products []ProductSettings `yaml:"products"`
}

var _ plugin.DialectSettings = (*Settings)(nil)

// Used reports whether a UCloud is configured.
func (s *Settings) Used() bool { return s.URL != "" }

// Dialect returns the dialect with these settings.
func (s *Settings) Dialect() plugin.Dialect { return Dialect{s.Provider, s.Products} }

// Check implements [plugin.Settings].
func (s *Settings) Check(bad func(key, text string)) {
	switch _, err := address(s.URL); {
	case s.URL == "" && (s.TokenFile != "" || s.Project != "" || s.ProviderTokenFile != ""):
		bad("",
			"upstream.ucloud.url is missing, and token_file, project and provider_token_file are for it; set it, or "+
				"leave them out")
	case s.URL == "":
	case err != nil:
		bad("url", "upstream.ucloud.url "+err.Error())
	case s.TokenFile == "":
		bad("token_file", "upstream.ucloud.token_file is missing; name a file with an API token or a refresh token")
	}
	seen := map[string]bool{}
	for i := range s.Products {
		p := &s.Products[i]
		key := fmt.Sprintf("products[%d]", i)
		if p.Pool != "" && seen[p.Pool] {
			bad(key+".pool", "upstream.ucloud."+key+": pool "+plugin.Short(p.Pool)+" has a product already")
		}
		seen[p.Pool] = true
		p.check(key, bad)
	}
}

// address reads the address of a UCloud. Its answers are not signed, so the way to it must be safe.
func address(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" ||
		u.Fragment != "" {
		return nil, errors.New("must be an address such as https://cloud.sdu.dk, without user and query")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if own := err == nil && ip.IsLoopback() || u.Hostname() == "localhost"; u.Scheme == "http" && !own {
		return nil, errors.New(
			"is http, by which anybody on the way could read the token and answer; use https, or a " +
				"loopback address")
	}
	return u, nil
}

// Open implements [plugin.Settings].
func (s *Settings) Open(e plugin.Environment) (plugin.Upstream, error) {
	token := e.Secret("upstream.ucloud.token_file", s.TokenFile, tokenOf("token_file", s.TokenFile))
	if _, err := token(); err != nil {
		return nil, err
	}
	c := Config{URL: s.URL, Token: token, Project: s.Project, HTTP: e.Transport, Now: e.Now, Anchors: e.Anchors}
	if s.ProviderTokenFile == "" {
		client, err := NewClient(c)
		if err != nil {
			return nil, err
		}
		return client, nil
	}
	token = e.Secret("upstream.ucloud.provider_token_file", s.ProviderTokenFile,
		tokenOf("provider_token_file", s.ProviderTokenFile))
	if _, err := token(); err != nil {
		return nil, err
	}
	p, err := NewProvider(c, token)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// tokenOf returns what reads the text of a token file that a key names.
func tokenOf(key, file string) func([]byte) (string, error) {
	return func(b []byte) (string, error) {
		token := textual.Value(string(b))
		if token == "" || strings.ContainsAny(token, " \r\n\t") {
			return "", fmt.Errorf("upstream.ucloud.%s %s: it does not hold one token", key, file)
		}
		return token, nil
	}
}

// DefaultProvider is the provider of the products where the configuration names none.
const DefaultProvider = "usher"

// ProductSettings is the record of one pool's product.
type ProductSettings struct {
	Pool             string              `yaml:"pool"`
	ID               string              `yaml:"id"`       // empty: Pool
	Category         string              `yaml:"category"` // empty: ID
	Description      string              `yaml:"description"`
	Price            int64               `yaml:"price"`
	ChargeType       string              `yaml:"charge_type"`   // empty: ABSOLUTE
	UnitOfPrice      string              `yaml:"unit_of_price"` // empty: PER_UNIT
	FreeToUse        bool                `yaml:"free_to_use"`
	AllocationsFrom  string              `yaml:"allow_allocation_requests_from"` // empty: ALL
	Tags             []string            `yaml:"tags"`
	Balance          *int64              `yaml:"balance"`
	MaxUsableBalance *int64              `yaml:"max_usable_balance"`
	Hidden           bool                `yaml:"hidden_in_grant_applications"`
	Version          int64               `yaml:"version"`
	Priority         int64               `yaml:"priority"`
	Maintenance      MaintenanceSettings `yaml:"maintenance"`
}

// MaintenanceSettings announces a maintenance. The zero value announces none.
type MaintenanceSettings struct {
	Description     string    `yaml:"description"`
	Availability    string    `yaml:"availability"`
	StartsAt        time.Time `yaml:"starts_at"`
	EstimatedEndsAt time.Time `yaml:"estimated_ends_at"`
}

// check reports the faults of a product's record.
func (p *ProductSettings) check(key string, bad func(key, text string)) {
	oneOf := func(name, value string, words ...string) {
		if value != "" && !slices.Contains(words, value) {
			bad(key+"."+name, fmt.Sprintf("upstream.ucloud.%s.%s is %q, and must be one of %s", key, name,
				plugin.Short(value), strings.Join(words, ", ")))
		}
	}
	if p.Pool == "" {
		bad(key+".pool", "upstream.ucloud."+key+".pool is missing; name the pool that the product hands out")
	}
	oneOf("charge_type", p.ChargeType, "ABSOLUTE", "DIFFERENTIAL_QUOTA")
	oneOf("unit_of_price", p.UnitOfPrice, "PER_UNIT", "CREDITS_PER_UNIT", "CREDITS_PER_MINUTE", "CREDITS_PER_HOUR",
		"CREDITS_PER_DAY", "UNITS_PER_MINUTE", "UNITS_PER_HOUR", "UNITS_PER_DAY")
	oneOf("allow_allocation_requests_from", p.AllocationsFrom, "ALL", "PERSONAL", "PROJECT")
	m := p.Maintenance
	oneOf("maintenance.availability", m.Availability, MinorDisruption, MajorDisruption, NoService)
	if m != (MaintenanceSettings{}) &&
		(m.Description == "" || len(m.Description) > 4000 || m.Availability == "" || m.StartsAt.IsZero()) {
		bad(key+".maintenance", "upstream.ucloud."+key+".maintenance needs a description of at most 4000 bytes, "+
			"availability and starts_at; give all three, or leave it out")
	}
}
