package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/enforcer"
)

// state collects what is read from a snapshot at each scrape.
type state struct {
	snapshot func() Snapshot
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("usher_"+name, help, labels, nil)
}

var (
	descState   = desc("license_state", "1 for the state that the licence is in, else 0.", "state")
	descCode    = desc("license_code", "1 for the verdict's code, else 0.", "code")
	descWarning = desc("license_warning", "How many warnings of a code there are.", "code")
	descExpiry  = desc("license_expiry_timestamp_seconds",
		"When the licence in force expires; +Inf if never. Absent when none is in force.")
	descTerm = desc("license_term_seconds",
		"For how long the licence in force was issued; of a trial, how long that is. Absent where it never expires.")
	descCoverage = desc("license_coverage_end_timestamp_seconds",
		"When it stops being good, given all documents at hand; +Inf if never. Absent when none is good.")
	descTermination = desc("license_termination_timestamp_seconds",
		"When the product must stop: expiry plus grace; +Inf if never. Absent when none is in force.")
	descDocuments = desc("license_documents", "Documents in the licence folder, by result.", "result")

	descHolders = desc("holders", "Leases held, by how the agent learns that their holder is gone.", "liveness")
	descDoubted = desc("leases_unconfirmed", "Leases found again after a restart whose holder is not known to live.")
	descAlive   = desc("revoked_still_alive", "Holders whose lease was revoked and that still run.")
	descDue     = desc("check_in_due_timestamp_seconds",
		"When the upstream check-in is due that the licence in force demands. Absent when it demands none.")
	descBeat = desc("heartbeat_deadline_timestamp_seconds",
		"When the licence in force falls without a further heartbeat. Absent when it demands none, or none has been "+
			"answered.")
	descHeard = desc("contact_last_timestamp_seconds",
		"When the upstream of the licence in force was last heard of, by each call that the licence demands.", "call")
	descPeriod = desc("contact_period_seconds",
		"How often the licence in force demands a call to its upstream, counted from the last.", "call")
	descPlanned = desc("contact_planned_timestamp_seconds",
		"When the agent has planned its next call to the upstream, unless a call fails.", "call")
	descDrain = desc("draining", "1 while an operator has the agent grant nothing new, else 0.")
	descAhead = desc("clock_ahead_seconds",
		"How far the wall clock is beyond the time that is believed at once; 0: it is believed.")
	descClock = desc("clock_offset_seconds", "How far the wall clock is behind the time already seen.")
	descMatch = desc("host_match_score",
		"The share of the licence's host components that match this host; 1 for a licence bound to none.")
	descSpare = desc("host_match_spare",
		"How many of the host components that match may change before the licence fits this host no more. Absent "+
			"where it is bound to no host.")
	descMode   = desc("watch_mode", "1 for how the licence folder is watched, else 0.", "mode")
	descPlugin = desc("plugin_up", "1 while a configured plugin runs, else 0.", "plugin")
	descTamper = desc("state_tampered",
		"1 while a file of the agent's state is not as the agent left it, until an operator accepts it, else 0.",
		"file")
	descUnfit = desc("vital_fault",
		"1 while a vital part of the agent is not as it must be, so that the agent is not ready, else 0.", "part")
	descLog = desc("log_dropped_total",
		"Lines of the log that were dropped, because its reader stood still or was gone.")
	descLeaseLog = desc("lease_log_entries_total",
		"Entries of the log of leases, by whether they were written or dropped.", "result")
	descFree = desc("state_free_bytes", "Free bytes on the file system of the state folder.")
)

var all = []*prometheus.Desc{descState, descCode, descWarning, descExpiry, descTerm, descCoverage, descTermination,
	descDocuments,
	descHolders, descDoubted, descAlive,
	descDue, descBeat, descHeard, descPeriod, descPlanned, descDrain, descAhead, descClock, descMatch, descSpare,
	descMode, descPlugin, descTamper,
	descUnfit, descLog, descLeaseLog, descFree}

// names are the metrics that do not come from a snapshot.
var counted = []string{"usher_acquire_duration_seconds", "usher_wait_duration_seconds",
	"usher_scrape_longest_hold_seconds",
	"usher_upstream_requests_total", "usher_emergencies_total", "usher_upstream_last_success_timestamp_seconds",
	"usher_config_last_reload_successful", "usher_config_last_reload_success_timestamp_seconds", "usher_build_info"}

// Label values of the metrics' own closed sets.
var (
	// documentResults are the fates of a document.
	documentResults = []string{"in_force", "next", "set_aside", "refused"}
	livenesses      = []string{"peerpidfd", "sentpidfd", "pidfd", "connection", "ttl", "none"}
	watchModes      = []string{"fsnotify", "polling"}
	leaseLogResults = []string{"written", "dropped"}
)

func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range slices.Concat(all, fleetDescs) {
		ch <- d
	}
}

func (s *state) Collect(ch chan<- prometheus.Metric) {
	snap := s.snapshot()
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	v := snap.Verdict
	if v == nil {
		v = &enforcer.Verdict{State: enforcer.Preparing.State(), Code: enforcer.Preparing}
	}
	collectVerdict(v, set)
	for _, l := range livenesses {
		set(descHolders, float64(snap.Holders[l]), l)
	}
	set(descDoubted, float64(snap.Unconfirmed))
	set(descAlive, float64(snap.RevokedStillAlive))
	collectContacts(snap.Contacts, set)
	set(descDrain, one(snap.Draining))
	collectFleet(snap.Fleet, set)
	set(descAhead, snap.ClockAhead.Seconds())
	set(descClock, snap.ClockBehind.Seconds())
	set(descMatch, v.Match.Score())
	if v.Match.Bound {
		set(descSpare, float64(v.Match.Spare))
	}
	for _, m := range watchModes {
		set(descMode, one(snap.WatchMode == m), m)
	}
	for name, up := range snap.Plugins {
		set(descPlugin, one(up), name)
	}
	for file, is := range snap.Tampered {
		set(descTamper, one(is), file)
	}
	for part, is := range snap.Unfit {
		set(descUnfit, one(is), part)
	}
	ch <- prometheus.MustNewConstMetric(descLog, prometheus.CounterValue, float64(snap.LogDropped))
	for _, result := range leaseLogResults {
		ch <- prometheus.MustNewConstMetric(descLeaseLog, prometheus.CounterValue, float64(snap.LeaseLog[result]),
			result)
	}
	if snap.StateFree >= 0 {
		set(descFree, snap.StateFree)
	}
}

// gauge sends the value of a metric.
type gauge func(d *prometheus.Desc, v float64, labels ...string)

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func collectContacts(contacts map[string]Contact, set gauge) {
	for call, c := range contacts {
		switch call {
		case "check_in":
			set(descDue, stamp(c.Due))
		case "heartbeat":
			set(descBeat, stamp(c.Ends))
		}
		if !c.Last.IsZero() {
			set(descHeard, stamp(c.Last), call)
		}
		set(descPeriod, c.Period.Seconds(), call)
		planned := c.Next
		if planned.IsZero() {
			planned = c.Last
		}
		set(descPlanned, stamp(planned), call)
	}
}

func collectVerdict(v *enforcer.Verdict, set gauge) {
	for _, st := range []enforcer.State{enforcer.StateValid, enforcer.StateExpired, enforcer.StateInvalid,
		enforcer.StateMissing} {
		set(descState, one(v.State == st), string(st))
	}
	for _, c := range enforcer.Codes() {
		set(descCode, one(v.Code == c), string(c))
	}
	warnings := map[enforcer.WarningCode]int{}
	for _, w := range v.Warnings {
		warnings[w.Code]++
	}
	for _, c := range enforcer.WarningCodes() {
		set(descWarning, float64(warnings[c]), string(c))
	}
	results := map[string]int{}
	for _, j := range v.Licenses {
		switch {
		case j.InForce:
			results["in_force"]++
		case j.Next:
			results["next"]++
		case j.Code == enforcer.Superseded || j.Code == enforcer.TestLicense:
			results["set_aside"]++
		default:
			results["refused"]++
		}
	}
	for _, r := range documentResults {
		set(descDocuments, float64(results[r]), r)
	}
	if len(v.Licenses) > 0 && v.Licenses[0].InForce && v.Licenses[0].License != nil {
		set(descExpiry, forever(v.Licenses[0].License.Expires))
		if term := v.Licenses[0].Term(); term > 0 {
			set(descTerm, term.Seconds())
		}
		set(descTermination, forever(v.TerminatesAt))
	}
	if v.Good() {
		set(descCoverage, forever(v.CoveredUntil))
	}
}
