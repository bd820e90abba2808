// Package config reads the agent's configuration: a YAML file, USHER_ variables and flags, strictly. It says where each
// value comes from, and which values a running agent can take over. docs/configuration.md has every key.
//
// Start reading at [Config] and [Load].
package config

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// Config is the whole configuration. Make one with [Load] or [Default].
type Config struct {
	Product   Product    `yaml:"product"`
	License   License    `yaml:"license"`
	Socket    Socket     `yaml:"socket"`
	Ops       Ops        `yaml:"ops"`
	Agent     Agent      `yaml:"agent"`
	State     State      `yaml:"state"`
	Host      Host       `yaml:"host"`
	Upstream  Upstream   `yaml:"upstream"`
	Fleet     Fleet      `yaml:"fleet"`
	Limits    Limits     `yaml:"limits"`
	Plugins   []Plugin   `yaml:"plugins"`
	Listeners []Listener `yaml:"listeners"`
	Groups    []Group    `yaml:"groups"`
	Policies  []Policy   `yaml:"policies"`
	Privacy   Privacy    `yaml:"privacy"`
	Events    Events     `yaml:"events"`
	Log       Log        `yaml:"log"`

	origins map[string]string
	notes   []string
	guarded bool
}

// Product is the product, or the list of its SKUs, that the agent serves.
type Product []string

// Name returns the product; of several the first, and nothing of none.
func (p Product) Name() string {
	if len(p) == 0 {
		return ""
	}
	return p[0]
}

// License says where licences are, which keys to trust, and what to be stricter in than the licences are.
type License struct {
	Path              string    `yaml:"path"`
	Inline            string    `yaml:"inline"` // a secret; from USHER_LICENSE alone
	Trust             []Trust   `yaml:"trust"`
	KeyFile           string    `yaml:"key_file" file:"reload"` // licence keys, one a line; its contents are secret
	Version           string    `yaml:"version"`                // of the product
	Released          time.Time `yaml:"released"`               // of the product
	Grace             *Duration `yaml:"grace"`
	MaxBorrow         *Duration `yaml:"max_borrow"`
	OnExpiry          string    `yaml:"on_expiry"`
	Strategy          string    `yaml:"strategy"`
	Clock             string    `yaml:"clock"`
	CountBy           string    `yaml:"count_by"`
	NoOverage         bool      `yaml:"no_overage"`
	RequireProduction bool      `yaml:"require_production"`
}

// Trust is one anchor.
type Trust struct {
	System      string    `yaml:"system"`
	KeyID       string    `yaml:"kid"`
	KeyFile     string    `yaml:"key_file" file:"reload"`
	Key         string    `yaml:"key"`
	Algorithm   string    `yaml:"alg"`
	NotBefore   time.Time `yaml:"not_before"`
	NotAfter    time.Time `yaml:"not_after"`
	Revoked     bool      `yaml:"revoked"`
	Environment string    `yaml:"environment"`
	Schemes     []string  `yaml:"schemes"`
}

// Socket is the local API's socket, and says who may call.
type Socket struct {
	Path  string      `yaml:"path"`
	Mode  fs.FileMode `yaml:"mode"`
	Group string      `yaml:"group"`
	Allow []Rule      `yaml:"allow"`
	Admin []Rule      `yaml:"admin"`
}

// Rule matches callers. All of its fields that are given must match.
type Rule struct {
	UID       *uint32 `yaml:"uid"`
	GID       *uint32 `yaml:"gid"`
	User      string  `yaml:"user"`
	Group     string  `yaml:"group"`
	Exe       string  `yaml:"exe"`
	ExeSHA256 string  `yaml:"exe_sha256"`
}

// Ops is the listener for operators' tools.
type Ops struct {
	Listen    string `yaml:"listen"`
	WebConfig string `yaml:"web_config" file:"use"`
}

// Agent is the agent itself.
type Agent struct {
	KeyFile string `yaml:"key_file" file:"restart"`
}

// Upstream is the remote side of the licences, and the way there. HTTPS_PROXY, HTTP_PROXY and NO_PROXY give the
// proxies.
type Upstream struct {
	URL            string   `yaml:"url"`
	PoolsURL       string   `yaml:"pools_url"`
	PoolsURLs      []string `yaml:"pools_urls"`
	EnrolmentFile  string   `yaml:"enrolment_file" file:"use"`
	CAFile         string   `yaml:"ca_file" file:"use"`
	ClientCertFile string   `yaml:"client_cert_file" file:"use"`
	ClientKeyFile  string   `yaml:"client_key_file" file:"use"`
	Timeout        Duration `yaml:"timeout"`
	// Systems are the sections of the systems that have one. Every such system of the catalog has its section here.
	Systems Systems `yaml:"*"`
}

// PoolServers returns the addresses of all site servers.
func (u *Upstream) PoolServers() (all []string) {
	if u.PoolsURL != "" {
		all = append(all, u.PoolsURL)
	}
	return append(all, u.PoolsURLs...)
}

// Fleet is the etcd from which agents share site pools and meters.
type Fleet struct {
	Endpoints   []string `yaml:"endpoints"`
	Pools       []string `yaml:"pools"` // of which pools and meters; empty: all that are a site's
	Prefix      string   `yaml:"prefix"`
	TTL         Duration `yaml:"ttl"`
	OnPartition string   `yaml:"on_partition"` // stop, keep_held
	KeepHeld    Duration `yaml:"keep_held"`
	Name        string   `yaml:"name"`
	// Labels are the host's, for the fleet's rules.
	Labels       map[string]string `yaml:"labels"`
	User         string            `yaml:"user"`
	PasswordFile string            `yaml:"password_file" file:"use"`
	CAFile       string            `yaml:"ca_file" file:"use"`
	CertFile     string            `yaml:"cert_file" file:"use"`
	KeyFile      string            `yaml:"key_file" file:"use"`
}

// What a fleet's agent does with leases that are held when it cannot reach the store.
const (
	PartitionStop = "stop"      // as on_expiry says of a limit that shrinks
	PartitionKeep = "keep_held" // they run on for Fleet.KeepHeld, and count; then they are revoked
)

// Systems are the systems' own sections of the configuration, by their names: see [plugin.System].
type Systems map[string]plugin.Settings

// newSystems returns the sections with their defaults.
func newSystems() Systems {
	out := Systems{}
	for _, s := range catalog.Systems() {
		if s.Settings != nil {
			out[cmp.Or(s.Section, s.Name)] = s.Settings()
		}
	}
	return out
}

// Used returns the names of the sections that ask for an upstream, sorted.
func (s Systems) Used() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if s[name].Used() {
			out = append(out, name)
		}
	}
	return out
}

// State names the folders that the agent keeps.
type State struct {
	Dir        string `yaml:"dir"`
	RuntimeDir string `yaml:"runtime_dir"`
}

// Host is what the operator tells the agent of the host, and how often the agent looks.
type Host struct {
	Components  map[string]string `yaml:"components"`
	Fingerprint string            `yaml:"fingerprint"`
	Every       Duration          `yaml:"every"`
}

// Limits bound what callers may take. Zero means the default.
type Limits struct {
	ConnectionsPerUID int `yaml:"connections_per_uid"`
	LeasesPerUID      int `yaml:"leases_per_uid"`
}

// Plugin is a licence system that is a program of its own.
type Plugin struct {
	Name   string   `yaml:"name"` // of its system
	Path   string   `yaml:"path" file:"restart"`
	SHA256 string   `yaml:"sha256"`
	Args   []string `yaml:"args"`
}

// Privacy says what is written of people.
type Privacy struct {
	Users string `yaml:"users"`
}

// The space in MiB that the log of leases may take on the disk.
const (
	DefaultLeasesMiB = 64
	MinLeasesMiB     = 16
	MaxLeasesMiB     = 16 << 10
)

// Events says what is kept of events besides what always is.
type Events struct {
	Leases    bool `yaml:"leases"`     // each grant and each end of a lease
	LeasesMiB int  `yaml:"leases_mib"` // that they take on the disk
}

// Log says what the log looks like.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Default returns the configuration without a file, variables and flags.
func Default() *Config {
	return &Config{
		License:  License{Path: naming.LicenseFolder()},
		Socket:   Socket{Path: naming.Socket(), Mode: 0o660},
		State:    State{Dir: naming.StateFolder(), RuntimeDir: naming.RuntimeFolder()},
		Host:     Host{Every: Duration(10 * time.Second)},
		Privacy:  Privacy{Users: "omit"},
		Events:   Events{LeasesMiB: DefaultLeasesMiB},
		Log:      Log{Level: "info", Format: "text"},
		Upstream: Upstream{Timeout: Duration(30 * time.Second), Systems: newSystems()},
		Fleet: Fleet{Prefix: naming.FleetPrefix(), TTL: Duration(30 * time.Second), OnPartition: PartitionStop,
			KeepHeld: Duration(10 * time.Minute)},
		origins: map[string]string{},
	}
}

// Narrowing returns what the configuration makes stricter than the licence.
func (c *Config) Narrowing() enforcer.Narrowing {
	l := c.License
	return enforcer.Narrowing{Grace: l.Grace.pointer(), MaxBorrow: l.MaxBorrow.pointer(),
		OnExpiry: enforcer.OnExpiry(l.OnExpiry),
		Strategy: enforcer.Strategy(l.Strategy), Clock: enforcer.ClockPolicy(l.Clock), NoOverage: l.NoOverage,
		CountBy: enforcer.CountBy(l.CountBy), RequireProduction: l.RequireProduction}
}

// Notes returns a sentence for each value that may not be what is meant: one that has quotes, blanks or control
// characters around it. They are warnings; the configuration holds. Nil has none.
func (c *Config) Notes() []string {
	if c == nil {
		return nil
	}
	return c.notes
}

// Error is a fault in the configuration: the place, the cause, and what to do.
type Error struct {
	Place string // "usher.yaml:12", "USHER_LOG_LEVEL", "--log-level"; empty: it has no one place
	Key   string
	Text  string
	Cause error // nil: the text says all
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// At adds to what is wrong with a key where the key was set; nil stays nil.
func (c *Config) At(key string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Place: c.place(key), Key: key, Text: err.Error(), Cause: err}
}

// Named is At for an error whose text begins with the key.
func (c *Config) Named(err error) error {
	if err == nil {
		return nil
	}
	key, _, _ := strings.Cut(err.Error(), " ")
	return c.At(strings.TrimSuffix(key, ":"), err)
}

// Place returns where a key was set, as "usher.yaml:12"; empty: it has its default.
func (c *Config) Place(key string) string { return c.place(key) }

// Placed adds to each of the joined errors that names a key where the key was set; nil stays nil.
func (c *Config) Placed(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, err := range joined.Unwrap() {
			out = append(out, c.Placed(err))
		}
		return errors.Join(out...)
	}
	if e, ok := err.(*Error); ok && e.Place == "" {
		return c.At(e.Key, e)
	}
	return err
}

// Error returns the whole sentence.
func (e *Error) Error() string {
	if e.Place == "" {
		return e.Text
	}
	return e.Place + ": " + e.Text
}
