package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/court"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/catalog"
)

// ErrNothingToReload reports that the agent was given its configuration, and not where it came from.
var ErrNothingToReload = errors.New("the agent has no configuration file to read again")

// Reload reads the configuration again and puts in force what can be changed while running. A configuration with a
// fault changes nothing.
func (a *Agent) Reload() (wire.Reloaded, error) {
	out, err := a.reload()
	a.metrics.Reloaded(err == nil, a.options.Now())
	switch {
	case err != nil:
		a.audit.Note(eventlog.Event{Type: audit.ConfigRefused, Detail: err.Error()})
		a.log.Error("the configuration was not reloaded; what was in force stays", "error", err)
	default:
		a.audit.Note(eventlog.Event{Type: audit.ConfigReloaded,
			Fields: map[string]string{"changed": strings.Join(out.Changed, " "),
				"needs_restart": strings.Join(out.Restart, " ")}})
		a.log.Info("the configuration was reloaded", "changed", out.Changed, "needs_restart", out.Restart)
	}
	return out, err
}

func (a *Agent) reload() (wire.Reloaded, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.options.Load == nil {
		return wire.Reloaded{}, ErrNothingToReload
	}
	next, err := a.options.Load()
	if err != nil {
		return wire.Reloaded{}, err
	}
	next.Guard()
	anchors, _, err := inspect.Anchors(next)
	if err != nil {
		return wire.Reloaded{}, err
	}
	keys, err := inspect.LicenseKeys(next)
	if err != nil {
		return wire.Reloaded{}, err
	}
	rules, err := apiRules(next.Socket)
	if err != nil {
		return wire.Reloaded{}, err
	}
	old := a.settings()
	changed, restart := config.Diff(old, next)
	a.setSettings(old.Reloaded(next))
	a.court.Reload(court.Settings{Anchors: catalog.Own(anchors, a.signer.Key.Public().(ed25519.PublicKey)), Keys: keys,
		Facts: a.facts(next)})
	a.server.SetRules(rules)
	if a.options.SetLevel != nil {
		a.options.SetLevel(next.Log.Level)
	}
	return wire.Reloaded{Changed: orNone(changed), Restart: orNone(restart)}, nil
}

// Reload is the API's.
func (f front) Reload(context.Context) (wire.Reloaded, *enforcer.Denial) {
	out, err := f.Agent.Reload()
	if err != nil {
		return out, &enforcer.Denial{Code: enforcer.BadRequest, Field: "config",
			Detail: "the configuration was not reloaded: " + err.Error(),
			Hint:   "what was in force stays; mend the file and reload again"}
	}
	return out, nil
}

func orNone(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
