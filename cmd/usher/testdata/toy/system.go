// Package toy is a licence system for a test. It consists of its folder and its line in the catalog.
package toy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Provide returns the system.
func Provide() plugin.System {
	return plugin.System{
		Name:          "toy",
		Format:        format{},
		Dialect:       dialect{},
		NewAnchor:     newAnchor,
		HostComponent: "toy-name",
		HostValue:     name,
		Settings:      func() plugin.Settings { return &settings{Every: time.Hour} },
		Section:       "toys",
		Carries:       plugin.Carries{Hostname: true, Held: true},
	}
}

func newAnchor(keyID string, key []byte, _ string) (plugin.Anchor, error) {
	b, err := hex.DecodeString(string(bytes.TrimSpace(key)))
	if err != nil || len(b) != ed25519.PublicKeySize {
		return plugin.Anchor{}, fmt.Errorf("key %q: give 64 hexadecimal digits", keyID)
	}
	return plugin.Anchor{System: "toy", KeyID: keyID, Algorithm: "EdDSA", Key: ed25519.PublicKey(b)}, nil
}

func name(fingerprint string) string {
	sum := sha256.Sum256([]byte(fingerprint))
	return hex.EncodeToString(sum[:])
}

type format struct{}

type terms struct {
	ID, Product, Host string
	Issued            time.Time
	Toys              int64
}

func (format) System() string { return "toy" }

func (format) Recognise(document []byte) bool { return bytes.HasPrefix(document, []byte("TOY ")) }

func (format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	fields := bytes.Fields(document)
	var t terms
	if len(fields) != 3 {
		return nil, &enforcer.Problem{Code: enforcer.Malformed, Reason: "it is half a toy"}
	}
	payload, _ := base64.StdEncoding.DecodeString(string(fields[1]))
	signature, _ := base64.StdEncoding.DecodeString(string(fields[2]))
	if json.Unmarshal(payload, &t) != nil {
		return nil, &enforcer.Problem{Code: enforcer.Malformed, Reason: "it is a broken toy"}
	}
	for _, a := range anchors {
		if key, ok := a.Key.(ed25519.PublicKey); ok && a.System == "toy" && ed25519.Verify(key, payload, signature) {
			return &enforcer.License{
				ID:      t.ID,
				System:  "toy",
				Product: t.Product,
				Issued:  t.Issued,
				KeyID:   a.KeyID,
				CheckIn: enforcer.Period{Every: 24 * time.Hour},
				Hosts: []enforcer.HostBinding{
					{Strategy: enforcer.MatchAll, Components: map[string][]string{"toy-name": {name(t.Host)}}},
				},
				Pools: map[string]enforcer.PoolTerm{
					"toys": {Max: enforcer.Limit(t.Toys), Scope: enforcer.ScopeHost},
				},
				Terms: map[string]any{},
			}, nil
		}
	}
	return nil, &enforcer.Problem{Code: enforcer.UntrustedKey, Reason: "no key in trust signed it"}
}

// settings has a field of each kind that a section may have.
type settings struct {
	Place string            `yaml:"place"`
	Every time.Duration     `yaml:"every"`
	Most  int               `yaml:"most"`
	Loud  bool              `yaml:"loud"`
	Kinds []string          `yaml:"kinds"`
	Extra map[string]string `yaml:"extra"`
}

func (s *settings) Used() bool { return s.Place != "" }

func (s *settings) Check(bad func(key, text string)) {
	if _, err := url.Parse(s.Place); err != nil {
		bad("place", "upstream.toys.place is no address")
	}
}

func (s *settings) Open(e plugin.Environment) (plugin.Upstream, error) {
	return &upstream{*s, e}, nil
}

type upstream struct {
	settings
	plugin.Environment
}

func (u *upstream) System() string { return "toy" }

func (u *upstream) Capabilities() plugin.Capabilities { return plugin.Capabilities{CheckIn: true} }

func (u *upstream) get(ctx context.Context, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.Place+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := u.Transport.RoundTrip(r)
	if err != nil {
		return nil, plugin.Transiently("%v", err)
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

func (u *upstream) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	q := url.Values{
		"hostname":    {r.Hostname},
		"fingerprint": {r.Fingerprint},
		"memory":      {fmt.Sprint(r.Memory)},
		"every":       {u.Every.String()},
		"anchors":     {fmt.Sprint(len(u.Anchors()))},
	}
	_, err := u.get(ctx, "/checkin?"+q.Encode())
	return &plugin.Reply{}, err
}

func (u *upstream) Fetch(ctx context.Context, _ *plugin.Request) (*plugin.Reply, error) {
	b, err := u.get(ctx, "/document")
	return &plugin.Reply{Document: b}, err
}

var errNever = errors.New("nobody asks this")

func (u *upstream) Activate(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, errNever
}

func (u *upstream) Heartbeat(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, errNever
}

func (u *upstream) Deactivate(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, errNever
}

type dialect struct{}

func (dialect) System() string { return "toy" }

func (dialect) Handler(desk plugin.Desk) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := desk.Caller(r)
		l, _, d := desk.Acquire(
			r.Context(),
			&enforcer.Acquire{Caller: c, Pool: "toys", N: 1, Lifetime: enforcer.LifetimeTTL, TTL: time.Minute},
			nil,
		)
		if d != nil {
			http.Error(w, string(d.Code), http.StatusConflict)
			return
		}
		fmt.Fprintf(w, "a toy for %d", l.Holder.UID)
	})
}
