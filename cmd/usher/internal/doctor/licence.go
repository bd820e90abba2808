package doctor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/watch"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// judged is what a verdict says, of a running agent or without one.
type judged struct {
	good      bool
	code      string
	reason    string
	warnings  []wire.Warning
	documents []document
	upstream  *wire.Upstream
	demands   bool // heartbeats or check-ins
}

// document is one file of the licence folder.
type document struct{ name, code, reason, hint string }

func ofWire(l *wire.License) judged {
	j := judged{good: l.State == "valid", code: l.Code, reason: l.Reason, warnings: l.Warnings, upstream: l.Upstream,
		demands: l.CheckIn != nil || l.Heartbeat != nil}
	for _, d := range l.Licenses {
		j.documents = append(j.documents, document{d.Document, d.Code, d.Reason, d.Hint})
	}
	return j
}

func ofVerdict(v *enforcer.Verdict) judged {
	j := judged{good: v.Good(), code: string(v.Code), reason: v.Reason}
	for _, w := range v.Warnings {
		j.warnings = append(j.warnings, wire.Warning{Code: string(w.Code), Detail: w.Detail})
	}
	for _, d := range v.Licenses {
		if p := d.Problem; p != nil {
			j.documents = append(j.documents, document{d.Document, string(p.Code), p.Reason, p.Hint})
		}
	}
	return j
}

// licenceCodes are the faults that the codes of a verdict mean; of another one it is LICENSE_INVALID.
var licenceCodes = map[enforcer.Code]string{
	enforcer.NotFound: "LICENSE_MISSING", enforcer.UntrustedKey: "LICENSE_KEY", enforcer.BadSignature: "LICENSE_KEY",
	enforcer.ProductMismatch: "LICENSE_PRODUCT", enforcer.VersionNotCovered: "LICENSE_PRODUCT",
	enforcer.FingerprintMismatch: "LICENSE_HOST", enforcer.AgentKeyMismatch: "LICENSE_HOST",
	enforcer.TooManyCores: "LICENSE_HOST", enforcer.TooManyMachines: "LICENSE_HOST",
	enforcer.TooMuchMemory: "LICENSE_HOST", enforcer.TooMuchDisk: "LICENSE_HOST",
	enforcer.Suspended: "LICENSE_REFUSED", enforcer.Banned: "LICENSE_REFUSED", enforcer.Revoked: "LICENSE_REFUSED",
	enforcer.Preparing: "LICENSE_REFUSED", enforcer.Unavailable: "LICENSE_REFUSED",
	enforcer.Overdue: "LICENSE_OVERDUE", enforcer.HeartbeatDead: "LICENSE_OVERDUE",
	enforcer.HeartbeatNotStarted: "LICENSE_OVERDUE", enforcer.Expired: "LICENSE_EXPIRED",
	enforcer.NotYetValid: "LICENSE_NOT_YET",
}

// mends are what to do of a licence's fault that has no mend of its own.
var mends = map[string]string{
	"LICENSE_MISSING": "put the licence file there, or run `usher license install FILE`",
	"LICENSE_KEY":     "put the vendor's public key under license.trust, or ask for a licence of a key there",
	"LICENSE_PRODUCT": "ask the vendor for a licence for this product and version, or mend product",
	"LICENSE_HOST":    "send the vendor the file of `usher fingerprint --request FILE`, who binds the licence to it",
	"LICENSE_REFUSED": "ask the vendor",
	"LICENSE_OVERDUE": "have the agent reach its upstream; `usher upstream call` tries at once",
	"LICENSE_EXPIRED": "ask the vendor for a renewal, and put it into the licence folder",
	"LICENSE_NOT_YET": "wait for its start, or ask the vendor; is the clock right?",
}

// warningCodes are the faults that a verdict's warnings mean; of another one it is LICENSE_WARNING.
var warningCodes = map[string]string{
	string(enforcer.WarnExpiresSoon): "LICENSE_ENDS_SOON", string(enforcer.WarnInGrace): "LICENSE_GRACE",
	string(enforcer.WarnNotShared): "POOL_SHARE", string(enforcer.WarnClockBehind): "CLOCK_BEHIND",
	string(enforcer.WarnConfigRefused): "RELOAD_FAILED", string(enforcer.WarnRestartNeeded): "RESTART_PENDING",
}

// licence says what the verdict is.
func (e *exam) licence(j judged) {
	switch {
	case j.good:
		e.ok("licence", "%s", strings.TrimSuffix(j.reason, "."))
	case j.code == string(enforcer.NotFound):
		e.noLicence(j.documents)
	default:
		hint := ""
		for _, d := range j.documents {
			if d.code == j.code && d.hint != "" {
				hint = d.hint
				break
			}
		}
		e.fault(document{"", j.code, j.reason, hint})
	}
	for _, w := range j.warnings {
		code, known := warningCodes[w.Code]
		if !known {
			code = "LICENSE_WARNING"
		}
		if code == "CLOCK_BEHIND" && (e.has(code) || e.has("CLOCK_PAST")) {
			continue
		}
		hint := mendOf(code)
		if hint == "" && !strings.Contains(w.Detail, "; ") { // a detail may end with its mend
			hint = "docs/warnings.md#" + strings.ToLower(w.Code) + " says what to do"
		}
		e.warn(code, "licence", hint, "%s: %s", w.Code, w.Detail)
	}
	e.upstreamSaid(j)
}

// noLicence says why there is none: what is there does not count, or there is nothing.
func (e *exam) noLicence(documents []document) {
	for _, d := range documents {
		e.fault(d)
	}
	if len(documents) > 0 {
		return
	}
	where := "the licence folder"
	if e.cfg != nil {
		where = e.cfg.License.Path
	}
	e.bad("LICENSE_MISSING", "licence", mends["LICENSE_MISSING"], "there is no licence in %s", where)
}

// fault reports why a document, or all of them, do not count.
func (e *exam) fault(d document) {
	code, known := licenceCodes[enforcer.Code(d.code)]
	switch {
	case d.code == string(enforcer.Unavailable) && strings.Contains(d.reason, "cannot be read"): // the file
		code = "LICENSE_UNREADABLE"
	case !known:
		code = "LICENSE_INVALID"
	}
	reason := strings.TrimSuffix(d.reason, ".")
	hint := d.hint
	if hint == "" && !strings.Contains(reason, "; ") { // a reason may end with its mend
		hint = cmp.Or(mends[code], "`usher license list` shows every document")
	}
	if strings.Contains(reason, hint) {
		hint = "" // it is said
	}
	e.bad(code, "licence", hint, "%s: %s", d.code, reason)
}

// mendOf is what to do of a warning.
func mendOf(code string) string {
	switch code {
	case "LICENSE_ENDS_SOON":
		return "ask the vendor for a renewal now, and put it beside the licence"
	case "LICENSE_GRACE":
		return "ask the vendor for a renewal, or have the agent reach its upstream, before the grace ends"
	case "CLOCK_BEHIND":
		return "set the clock"
	case "RELOAD_FAILED":
		return "mend it, and run `usher reload`"
	case "RESTART_PENDING":
		return "restart the agent when it suits; it loses no lease"
	}
	return ""
}

// upstreamSaid says what came of the agent's calls to its upstream.
func (e *exam) upstreamSaid(j judged) {
	if j.demands && e.cfg != nil && e.cfg.Upstream.URL == "" && len(e.cfg.Upstream.Systems.Used()) == 0 {
		e.warn("UPSTREAM_NONE", "upstream", "set upstream.url to the vendor's server",
			"the licence demands contact with "+
				"an upstream, and the configuration names none")
	}
	if u := j.upstream; u != nil && (u.State == "retrying" || u.State == "refused" || u.State == "misconfigured") {
		e.warn("UPSTREAM_REFUSES", "upstream", "`usher upstream call` tries at once", "the agent's last call failed "+
			"(%s): %s", u.State, strings.TrimSuffix(u.Detail, "."))
	}
}

// stopped judges the licences of an agent that does not run.
func (e *exam) stopped() {
	if e.cfg == nil || e.has("SOCKET_GROUP") || e.has("TRUST_BROKEN") || e.has("CONFIG_INVALID") ||
		e.has("PLUGIN_MISSING") ||
		e.has("PLUGIN_CHANGED") || e.has("PLUGIN_UNFIT") {
		return
	}
	if failed := e.agent.do(e.readable); failed != nil {
		e.notLooked("licence", failed)
		if _, err := os.ReadDir(e.cfg.License.Path); os.IsPermission(err) {
			return // what lies there, this user cannot say
		}
	}
	v, err := inspect.Configured(e.cfg)
	if err != nil {
		e.bad("CONFIG_INVALID", "configuration", e.check(), "%v", err)
		return
	}
	e.licence(ofVerdict(v.Verdict))
}

// licenceFiles returns the files in the licence folder that the agent looks at.
func (e *exam) licenceFiles() (out []string) {
	at := e.cfg.License.Path
	fi, err := os.Stat(at)
	if err != nil {
		return nil
	}
	if !fi.IsDir() {
		return []string{at}
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		if !watch.Ignored(entry.Name()) && !entry.IsDir() {
			out = append(out, filepath.Join(at, entry.Name()))
		}
	}
	return out
}

// readable says which licence files the agent's user may not read.
func (e *exam) readable() {
	if _, err := os.ReadDir(e.cfg.License.Path); os.IsPermission(err) {
		fi, _ := os.Stat(e.cfg.License.Path) // it may be in a folder that is closed
		mend, why := e.letRead(e.cfg.License.Path, fmt.Sprintf("chmod a+rx %s", e.cfg.License.Path))
		e.warn("LICENSE_UNREADABLE", "licence", mend,
			"%s belongs to %s, and the agent, which runs as %s, may not look into it%s", e.cfg.License.Path, nameOf(fi),
			e.agent, why)
	}
	for _, p := range e.licenceFiles() {
		if f, err := os.Open(p); err == nil {
			f.Close()
		} else if os.IsPermission(err) {
			fi, _ := os.Stat(p) // it may be in a folder that is closed
			mend, why := e.letRead(p, fmt.Sprintf("chown %d %s, or chmod a+r it", e.agent.uid, p))
			e.warn("LICENSE_UNREADABLE", "licence", mend, "%s belongs to %s, and the agent, which runs as %s, may not "+
				"read it%s", p, nameOf(fi), e.agent, why)
		}
	}
}

// newest returns the latest change of some files that nobody writes while the host runs, and its name.
func newest(ctx context.Context, paths ...string) (at time.Time, name string) {
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		if ctx.Err() != nil {
			break
		}
		if fi, err := os.Stat(p); err == nil && fi.ModTime().After(at) {
			at, name = fi.ModTime(), p
		}
	}
	return at, name
}
