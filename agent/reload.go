package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
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
	case errors.Is(err, ErrNothingToReload):
	case err != nil:
		a.named.reloadFailed(err)
		a.audit.Note(eventlog.Event{Type: audit.ConfigRefused, Detail: err.Error()})
		a.log.Error("the configuration was not reloaded; what was in force stays", "error", err)
	default:
		files := make([]string, len(out.Files))
		for i, f := range out.Files {
			files[i] = f.File
		}
		fields := map[string]string{"changed": strings.Join(out.Changed, " "),
			"needs_restart": strings.Join(out.Restart, " ")}
		said := []any{"changed", out.Changed, "needs_restart", out.Restart, "renewed_files", files}
		if v := out.Verdict; v != nil {
			fields["verdict"] = v.From + " -> " + v.To
			said = append(said, "verdict", v.From+" -> "+v.To, "reason", v.Reason)
		}
		a.audit.Note(eventlog.Event{Type: audit.ConfigReloaded, Fields: fields})
		a.log.Info("the configuration was reloaded", said...)
	}
	a.warn() // the caller sees it with its next look
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
	old := a.settings()
	merged := old.Reloaded(next)
	contents := merged.Contents()
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
	if err := a.named.check(merged); err != nil {
		return wire.Reloaded{}, err
	}
	changed, restart := config.Diff(old, next)
	before := a.desk.Verdict()
	a.setSettings(merged)
	a.court.Reload(court.Settings{Anchors: catalog.Own(anchors, a.signer.Key.Public().(ed25519.PublicKey)), Keys: keys,
		Facts: a.facts(next)})
	a.server.SetRules(rules)
	policies := merged.Rules(hostName())
	cgroup, _ := policies.LooksAt()
	a.server.LookAtCgroups(cgroup)
	a.desk.SetPolicies(policies)
	for _, r := range Remarks(merged, a.desk.Verdict()) {
		a.log.Warn("a key of the configuration may not be meant so", "remark", r)
	}
	a.leases.Set(leaseLog(merged))
	if a.options.SetLevel != nil {
		a.options.SetLevel(next.Log.Level)
	}
	out := wire.Reloaded{Verdict: turned(before, a.desk.Verdict())}
	taken, waiting := a.named.reloaded(merged, contents, restart)
	for _, f := range slices.Concat(taken, waiting) {
		out.Files = append(out.Files, wire.RenewedFile{Key: f.Key, File: f.Path})
	}
	out.Changed, out.Restart = withKeys(changed, taken), withKeys(restart, waiting)
	out.Last = a.named.lastReload(out, a.options.Now())
	return out, nil
}

// turned says what a verdict has turned from and to; nil: it has not.
func turned(from, to *enforcer.Verdict) *wire.TurnedVerdict {
	if from == nil || to == nil || from.Code == to.Code {
		return nil
	}
	return &wire.TurnedVerdict{From: string(from.Code), To: string(to.Code), Reason: to.Reason}
}

// withKeys returns keys, with those of files, sorted.
func withKeys(keys []string, of []config.NamedFile) []string {
	out := append([]string{}, keys...)
	for _, f := range of {
		out = append(out, f.Key)
	}
	slices.Sort(out)
	return slices.Compact(out)
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
