package agent

import (
	"path/filepath"
	"slices"

	"github.com/usher-agent/usher/agent/reports"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// openReports makes what tells upstreams how their licences stand here.
func (o *opening) openReports() (err error) {
	kept := seals.Sealed(o.seals.State, seals.LastKnown)
	if o.reports, err = reports.New(reports.Config{Upstreams: o.upstreams,
		File: filepath.Join(o.cfg.State.Dir, seals.ReportsFile), Read: kept.Read, Write: kept.Write,
		Standing: o.standing, CallWithin: o.cfg.Upstream.Timeout.Duration(), Follow: o.desk.Follow,
		Told:   o.duties.Pulse.AskAgain,
		Called: func(result string) { o.metrics.UpstreamCalled("report", result, o.desk.Now()) },
		Log:    o.log}); err != nil {
		return err
	}
	o.running.task("reports", o.reports.Run)
	return nil
}

// standing returns how the licence of a system stands, and which leases with a label hold its slots. It is false before
// the first verdict.
func (a *Agent) standing(system, label string) (plugin.Report, bool) {
	v := a.desk.Verdict()
	if v == nil {
		return plugin.Report{}, false
	}
	r := plugin.Report{Code: enforcer.NotFound}
	i := slices.IndexFunc(v.Licenses, func(j enforcer.Judged) bool {
		return j.License != nil && j.License.System == system && j.Role != enforcer.RoleNotice
	})
	if i < 0 {
		return r, true
	}
	j := v.Licenses[i]
	l := j.License
	r.LicenseID, r.Document, r.Code = l.ID, a.court.Document(j.Document), j.Code
	up := a.duties.Pulse.Facts()[l.Ref()]
	expired := up.Refused != enforcer.Expired && slices.ContainsFunc(j.Findings, func(f enforcer.Finding) bool {
		return f.Code == enforcer.Expired
	})
	switch {
	case expired:
		r.Code = enforcer.Expired
	case j.UpstreamMayHeal(up):
		r.Code = enforcer.Valid
	}
	for _, x := range a.desk.Labelled(label) {
		b := plugin.Bearer{Labels: map[string]string{label: x.Holder.Labels[label]}, Items: x.Items,
			AcquiredAt: x.AcquiredAt}
		if slices.ContainsFunc(x.Items, func(it enforcer.Item) bool { _, ok := l.Pools[it.Pool]; return ok }) {
			r.Leases = append(r.Leases, b)
		}
	}
	return r, true
}
