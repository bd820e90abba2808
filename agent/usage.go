package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/leaselog"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
)

// counters are what counts the desk's events.
type counters struct {
	*metrics.Metrics
	usage  *usage.Usage
	leases *leaselog.Log
}

// Observe counts an event, and has it written where the site keeps a log of leases.
func (c counters) Observe(ev *enforcer.Event) {
	c.Metrics.Observe(ev)
	c.usage.Observe(ev)
	c.leases.Observe(ev)
}

// openUsage opens the record of what was in use.
func (o *opening) openUsage() (err error) {
	kept := seals.Sealed(o.seals.State, seals.LastKnown)
	o.usage, err = usage.Open(usage.Config{Dir: filepath.Join(o.cfg.State.Dir, seals.UsageFolder), Key: o.key,
		File: filepath.Join(o.cfg.State.Dir, seals.UsageFile), Read: kept.Read, Write: kept.Write,
		Take:     func() ([]enforcer.Usage, int) { return o.desk.TakeUsage() },
		Terms:    o.poolTerms,
		Licenses: o.licensesInForce, Gone: o.seals.UsageGone,
		Now: func() time.Time { return o.desk.Now() }, Wall: o.options.Now, Boot: clock.Boot, Log: o.log,
		Users: usage.UsersConfig{Setting: o.cfg.Privacy.Users, Dir: filepath.Join(o.cfg.State.Dir, seals.UsersFolder),
			Name: func(of enforcer.User, at time.Time) string { return o.audit.Name(of, at) },
			Take: func() ([]enforcer.UserUsage, int) { return o.desk.TakeUserUsage() }, Removed: o.usersRemoved}})
	return err
}

// openLeaseLog has leases observed for their log. It opens no file.
func (o *opening) openLeaseLog() {
	o.leases = leaselog.New(leaselog.Config{Dir: filepath.Join(o.cfg.State.Dir, leaselog.Folder), Key: o.key,
		Users: o.cfg.Privacy.Users, Now: func() time.Time { return o.desk.Now() }, Log: o.log,
		Name:  func(of enforcer.User, at time.Time) string { return o.audit.Name(of, at) },
		Seal:  func(last eventlog.Head) { o.seals.SealLog(leaselog.Folder, last) },
		Check: o.checkLeaseLog,
		Removed: func() {
			o.audit.Note(eventlog.Event{Type: audit.LeaseLogRemoved,
				Fields: map[string]string{"privacy.users": o.cfg.Privacy.Users}})
		}}, leaseLog(o.cfg))
}

// checkLeaseLog looks whether the log of leases has the line that was its last.
func (a *Agent) checkLeaseLog(last eventlog.Head) (gone uint64) {
	gone = a.seals.CheckLog(leaselog.Folder, last)
	if f, ok := a.seals.State.Found(leaselog.Folder); ok && gone > 0 {
		a.tellFinding(f)
	}
	return gone
}

// leaseLog returns what the configuration says of the log of leases.
func leaseLog(c *config.Config) leaselog.Settings {
	return leaselog.Settings{On: c.Events.Leases, MiB: c.Events.LeasesMiB}
}

// usersRemoved notes that what was kept by user is removed, once there is an event log.
func (o *opening) usersRemoved() {
	e := eventlog.Event{Type: audit.UsageRemoved, Fields: map[string]string{"privacy.users": o.cfg.Privacy.Users}}
	if o.audit == nil {
		o.early = append(o.early, e)
		return
	}
	o.audit.Note(e)
}

// poolTerms returns a pool's, or a meter's, limits.
func (a *Agent) poolTerms(name string) wire.PoolUsage {
	out := wire.PoolUsage{Limit: new(int64), Budget: new(int64)}
	p, ok := a.desk.Pool(name)
	if !ok {
		return out
	}
	out.Meter = p.Meter
	for _, l := range []struct {
		to **int64
		is enforcer.Limit
	}{{&out.Limit, p.Limit}, {&out.Budget, p.Budget}} {
		if *l.to = new(int64(l.is)); l.is == enforcer.Unlimited {
			*l.to = nil
		}
	}
	return out
}

// licensesInForce returns the ids of the licences in force.
func (a *Agent) licensesInForce() (ids []string) {
	v := a.desk.Verdict()
	if v == nil {
		return nil
	}
	for _, j := range v.Licenses {
		if j.InForce && j.License != nil {
			ids = append(ids, j.License.ID)
		}
	}
	return ids
}

// Usage returns what was in use in a period, signed where that is asked for.
func (f front) Usage(_ context.Context, q api.UsageQuery) (wire.Usage, *enforcer.Denial) {
	failed := func(err error) (wire.Usage, *enforcer.Denial) {
		return wire.Usage{}, &enforcer.Denial{Code: enforcer.Storage, Detail: "the record of usage: " + err.Error(),
			Hint: "look at the folder usage in state.dir; `usher doctor` says what is wrong with the state"}
	}
	r, err := f.usage.Read(q.Since, q.Until)
	if err != nil {
		return failed(err)
	}
	if r.More {
		return wire.Usage{}, &enforcer.Denial{Code: enforcer.TooLarge,
			Detail: "the period has more hours than one answer can hold",
			Hint:   "ask for a shorter period, such as a month"}
	}
	out := wire.Usage{From: r.From, To: r.To, Product: f.product(), AgentKey: f.agentKey(),
		Host: f.hostReport().Short(), Missing: r.Missing}
	all, err := r.Hours("")
	if err != nil {
		return failed(err)
	}
	out.Gaps = usage.Gaps(all, r.From, r.To, f.desk.Now().UTC().Truncate(time.Second))
	if out.Hours, err = r.Hours(q.Pool); err != nil {
		return failed(err)
	}
	if out.Missing == nil {
		out.Missing = []wire.UsageMissing{}
	}
	byUser, denial := f.usageByUser(q, &out)
	if denial != nil || !q.Signed {
		return out, denial
	}
	c := &usage.Claims{Version: 1, Issued: f.desk.Now().UTC().Truncate(time.Second), Nonce: q.Nonce,
		Product: out.Product, AgentKey: out.AgentKey, Host: out.Host, Licenses: f.reportLicenses(), From: r.From,
		To: r.To, Record: r.Lines, Open: r.Open, Missing: out.Missing,
		Vouchers: f.signer.Keys(f.desk.Verdict(), f.court.Document, false).Chain, Users: byUser}
	if out.Report, err = usage.Sign(f.signer.Key, c); err != nil {
		return failed(err)
	}
	out.Hours, out.Gaps = []wire.UsageHour{}, []wire.UsageGap{} // they are in the report
	out.Users, out.UsersMissing = nil, nil
	return out, nil
}

// usageByUser adds what users had in use in a period, where that is asked for, and returns it as a report has it.
func (f front) usageByUser(q api.UsageQuery, out *wire.Usage) (*usage.ClaimsByUser, *enforcer.Denial) {
	if !q.ByUser {
		return nil, nil
	}
	r, err := f.usage.ReadUsers(q.Since, q.Until)
	if err == nil {
		out.Users, err = r.Days(q.Pool)
	}
	switch {
	case err != nil:
		return nil, &enforcer.Denial{Code: enforcer.Storage, Detail: "the record of usage by user: " + err.Error(),
			Hint: "look at the folder users in state.dir; `usher doctor` says what is wrong with the state"}
	case r.More:
		return nil, &enforcer.Denial{Code: enforcer.TooLarge,
			Detail: "the period has more days than one answer can hold",
			Hint:   "ask for a shorter period, such as a month"}
	}
	out.UsersSetting, out.UsersMissing = f.usage.UsersSetting(), r.Missing
	return &usage.ClaimsByUser{Setting: out.UsersSetting, From: r.From, To: r.To, Record: r.Lines, Open: r.Open,
		Missing: r.Missing}, nil
}

// reportLicenses returns the licences in force as a report names them.
func (a *Agent) reportLicenses() []usage.ReportLicense {
	out := []usage.ReportLicense{}
	v := a.desk.Verdict()
	if v == nil {
		return out
	}
	for _, j := range v.Licenses {
		if l := j.License; j.InForce && l != nil {
			sum := sha256.Sum256(a.court.Document(j.Document))
			out = append(out, usage.ReportLicense{ID: l.ID, System: l.System, Issuer: l.Issuer, KeyID: l.KeyID,
				Document: hex.EncodeToString(sum[:])})
		}
	}
	return out
}
