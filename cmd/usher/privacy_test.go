package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/client/wire"
)

// Every logged value, be it a text, an error or a list, is redacted by both handlers.
func TestLogHides(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		cfg := &config.Config{}
		cfg.Log.Level, cfg.Log.Format = "info", format
		log, _ := newLog(cfg, &out)
		log.Warn("from bob@customer.example", "error", errors.New(
			"https://u:hunter2@vendor.example: carol@vendor.example"), "names", []string{"dave@vendor.example"},
			slog.Group("licence", "issuer", "erin@vendor.example"), "pool", "streams")
		if s := out.String(); strings.Contains(s, "@customer") || strings.Contains(s, "hunter2") ||
			strings.Contains(s, "carol@") || strings.Contains(s, "dave@") || strings.Contains(s, "erin@") ||
			!strings.Contains(s, "(hidden)") || !strings.Contains(s, "streams") {
			t.Errorf("%s: %s", format, s)
		}
	}
}

// The bundle has no names of people and no secrets, but keeps the paths of secrets.
func TestBundleHides(t *testing.T) {
	l := redactLicense(&wire.License{Licenses: []wire.Document{{Licensee: "Bob", Issuer: "Carol",
		Terms: map[string]any{"x_a": "S3CRET"}}}})
	if d := l.Licenses[0]; d.Licensee != "(left out)" || d.Issuer != "(left out)" || len(d.Terms) > 0 {
		t.Errorf("the licence: %+v", d)
	}
	for key, hidden := range map[string]bool{"license.trust[0].key": true, "upstream.toy.token": true,
		"license.inline": true, "listeners[0].token_file": false, "agent.key_file": false,
		"license.path": false, "state.dir": false, "license.trust[0].kid": false} {
		if got := redactConfig([]wire.Setting{{Key: key, Value: "v"}})[0].Value; (got != "v") != hidden {
			t.Errorf("%s is %q", key, got)
		}
	}
}
