package keygen

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// The pools and the meter of a licence. Products acquire them by these names.
const (
	PoolMachines  = "machines"
	PoolProcesses = "processes"
	PoolUsers     = "users"
	PoolCores     = "cores"
	PoolMemory    = "memory" // bytes
	PoolDisk      = "disk"   // bytes
	MeterUses     = "uses"
)

// issuedAhead is how far in the future a file may be issued, because clocks differ.
const issuedAhead = 5 * time.Minute

// Keygen's default of a policy's heartbeatDuration.
const defaultHeartbeat = 10 * time.Minute

// license turns a document's content into a licence.
func (d *document) license() (*enforcer.License, error) {
	var l *enforcer.License
	var err error
	if d.kind == signedKey {
		l, err = d.keyLicense()
	} else {
		l, err = d.fileLicense()
	}
	if err != nil {
		return nil, err
	}
	return l, l.Validate()
}

// Object is a licence with its policy, from a file or the API.
type Object struct {
	ID         string
	Attributes Attributes
	Policy     Policy
	HasPolicy  bool // Policy is the licence's own; false: Keygen's defaults
}

// fileLicense reads a licence file or a machine file.
func (d *document) fileLicense() (*enforcer.License, error) {
	set, err := parseDataset(d.data)
	if err != nil {
		return nil, err
	}
	want := map[kind]string{licenseFile: "licenses", machineFile: "machines"}[d.kind]
	if set.Data.Type != want || set.Data.ID == "" {
		return nil, fmt.Errorf("it is about %q, and a %s file is about %s", plugin.Short(set.Data.Type), d.kind, want)
	}
	l := &enforcer.License{System: System, Role: enforcer.RoleBase, Issued: timeOf(set.Meta.Issued)}
	if l.Issued.IsZero() {
		return nil, errors.New("it does not say when it was issued")
	}
	if l.Terms, err = terms(d.data); err != nil {
		return nil, err
	}
	l.Terms["file"], l.Terms["algorithm"] = string(d.kind), d.alg
	about := &set.Data
	var m *machine
	if d.kind == machineFile {
		m = &machine{}
		if err := set.Data.attributes(m); err != nil {
			return nil, err
		}
		if m.Fingerprint == "" {
			return nil, errors.New("its machine has no fingerprint")
		}
		l.Hosts = []enforcer.HostBinding{{Name: cmp.Or(text(m.Name), text(m.Hostname)), Strategy: enforcer.MatchAll,
			Components: map[string][]string{Component: {Fingerprint(m.Fingerprint)}}}}
		about = set.one("licenses", set.Data.related("license"))
	}
	if about != nil {
		err = grant(l, set, about, m)
	} else {
		// A machine file without its licence states only that this host is activated.
		l.ID, l.Product, l.Issuer = set.Data.related("license"), set.Data.related("product"),
			set.Data.related("account")
		l.ID = cmp.Or(l.ID, set.Data.ID)
		l.Heartbeat = heartbeat(m.RequireHeartbeat, nil, m)
	}
	l.Product = cmp.Or(l.Product, System)
	l.Expires = sooner(timeOf(set.Meta.Expiry), l.Expires)
	if start := l.Issued.Add(-issuedAhead); l.Expires.IsZero() || start.Before(l.Expires) {
		l.NotBefore = start
	}
	return l, err
}

// object reads a licence object, and its policy if included.
func (d *dataset) object(r *resource) (o Object, err error) {
	o.ID = r.ID
	if strings.Trim(string(r.Attributes), "{} \n\t") == "" {
		return o, errors.New("its licence has no attributes")
	}
	if err = r.attributes(&o.Attributes); err != nil {
		return o, err
	}
	if p := d.one("policies", r.related("policy")); p != nil {
		err, o.HasPolicy = p.attributes(&o.Policy), true
	}
	o.Policy.settle()
	return o, err
}

// grant fills in what a licence object says. m is the machine of a machine file; nil: it is a licence file.
func grant(l *enforcer.License, set *dataset, about *resource, m *machine) error {
	o, err := set.object(about)
	if err != nil {
		return err
	}
	a, p := &o.Attributes, &o.Policy
	l.ID, l.Product, l.Issuer = about.ID, about.related("product"), about.related("account")
	l.Licensee = oneLine(text(a.Name))
	l.SystemCode = a.Status
	l.Suspended = a.Suspended || a.Status == "SUSPENDED"
	l.Banned = a.Status == "BANNED"
	if p.expires() {
		l.Expires = timeOf(a.Expiry)
	}
	switch p.ExpirationStrategy {
	case expiryRevoke:
		l.OnExpiry = enforcer.Revoke
	case expiryMaintain, expiryAllow:
		l.OnExpiry = enforcer.Keep
	}
	if err := grantCounts(l, a, p, m, lessees(set, about)); err != nil {
		return err
	}
	if err := capHost(l, a, p); err != nil {
		return err
	}
	l.Features = map[string]enforcer.Value{}
	for _, e := range set.included("entitlements") {
		var x struct {
			Code string `json:"code"`
		}
		if err := e.attributes(&x); err != nil {
			return err
		}
		if name := featureName(x.Code); name != "" {
			l.Features[name] = enforcer.Value{Kind: enforcer.KindBool, Bool: true}
		}
	}
	l.Heartbeat = heartbeat(a.RequireHeartbeat || m != nil && m.RequireHeartbeat, p, m)
	if l.Heartbeat.Stated() {
		l.Activation.Grace = l.Heartbeat.Every // a new machine has not missed its first heartbeat before
	}
	l.CheckIn, l.CheckedIn = checkIn(a, p, l.Issued)
	return nil
}

// grantCounts fills in the pools and the meter. m is the machine of a machine file; nil: it is a licence file. Under
// PER_USER a floating licence has each limit once for each of its lessees, and under PER_MACHINE the limit of processes
// once for each of its machines; the dialect keeps each to its own.
func grantCounts(l *enforcer.License, a *Attributes, p *Policy, m *machine, lessees int64) error {
	// A node-locked licence and a machine file are for one machine; many hosts share a floating licence.
	scope := enforcer.ScopeHost
	if m == nil && a.Floating {
		scope = enforcer.ScopeSite
	}
	processes := a.MaxProcesses
	if m != nil && m.MaxProcesses != nil {
		processes = m.MaxProcesses
	}
	// A machine file of a floating licence proves one machine and the limits of each machine, but not the others'
	// share.
	shared := m != nil && a.Floating && (a.MaxMachines == nil || *a.MaxMachines != 1)
	machines := a.MaxMachines
	if shared {
		machines = new(int64(1))
	}
	l.Pools = map[string]enforcer.PoolTerm{}
	for _, t := range []struct {
		pool, attribute, unit string
		max                   *int64
		countBy               enforcer.CountBy
		always                bool // the pool exists even if unlimited
	}{
		{PoolMachines, "maxMachines", "machine", machines, "", true},
		{PoolProcesses, "maxProcesses", "process", processes, "", true},
		{PoolUsers, "maxUsers", "user", a.MaxUsers, enforcer.CountUser, true},
		{PoolCores, "maxCores", "core", a.MaxCores, "", false},
		{PoolMemory, "maxMemory", "byte", a.MaxMemory, "", false},
		{PoolDisk, "maxDisk", "byte", a.MaxDisk, "", false},
	} {
		n, err := limit(t.attribute, t.max)
		if err != nil {
			return err
		}
		leasing := p.MachineLeasing
		if t.pool == PoolProcesses {
			leasing = p.ProcessLeasing
		}
		over := Overage(p.OverageStrategy, n)
		if leasing == perUser && m == nil && a.Floating && t.pool != PoolUsers && n != enforcer.Unlimited {
			n = multiplied(n, lessees)
			over = multiplied(over, lessees)
		}
		scope := scope
		if t.pool == PoolProcesses && leasing == perMachine && m == nil && a.Floating && n != enforcer.Unlimited {
			if a.MaxMachines == nil {
				scope = enforcer.ScopeHost // any number of hosts may each have a machine's share
			} else {
				n, over = ofMachines(n, over, a, p, lessees)
			}
		}
		if shared && n != enforcer.Unlimited && t.pool != PoolMachines &&
			(t.pool != PoolProcesses || p.ProcessLeasing != perMachine) {
			scope = enforcer.ScopeShared
		}
		if n != enforcer.Unlimited || t.always {
			l.Pools[t.pool] = enforcer.PoolTerm{Max: n, Unit: t.unit, Overage: over, Scope: scope,
				CountBy: t.countBy}
		}
	}
	uses, err := limit("maxUses", a.MaxUses)
	if err != nil {
		return err
	}
	switch {
	case uses == enforcer.Unlimited:
	case shared:
		scope = enforcer.ScopeShared // the account counts all uses: see Client.Draw
	case scope == enforcer.ScopeHost:
		uses = max(0, uses-enforcer.Limit(max(0, a.Uses))) // less the uses before the file was made
	}
	l.Meters = map[string]enforcer.MeterTerm{MeterUses: {Max: uses, Unit: "use", Scope: scope}}
	return nil
}

// capHost fills in what a strict licence permits a host to have at most.
func capHost(l *enforcer.License, a *Attributes, p *Policy) error {
	if cores, err := limit("maxCores", a.MaxCores); err != nil {
		return err
	} else if over := Overage(p.OverageStrategy, cores); cores != enforcer.Unlimited && a.Strict &&
		over != enforcer.Unlimited {
		l.CoreCap, l.CoreKind = min(cores.Plus(over), enforcer.MaxCount), enforcer.CoresLogical
		if l.CoreCap == 0 {
			return errors.New("its maxCores is 0, and every host has at least one core")
		}
	}
	for _, x := range []struct {
		attribute string
		max       *int64
		cap       *enforcer.Limit
	}{{"maxMemory", a.MaxMemory, &l.MemoryCap}, {"maxDisk", a.MaxDisk, &l.DiskCap}} {
		n, err := limit(x.attribute, x.max)
		if err != nil {
			return err
		}
		if over := Overage(p.OverageStrategy, n); a.Strict && n != enforcer.Unlimited && over != enforcer.Unlimited {
			if *x.cap = min(n.Plus(over), enforcer.MaxCount); *x.cap == 0 { // which would read as any number
				return fmt.Errorf("its %s is 0, and every host has some", x.attribute)
			}
		}
	}
	return nil
}

// featureName turns an entitlement's code into a feature's name. Characters that names cannot have become hyphens.
func featureName(code string) string {
	code = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._:/-", r):
			return r
		default:
			return '-'
		}
	}, code)
	return strings.TrimLeft(code, "._:/-")[:min(64, len(strings.TrimLeft(code, "._:/-")))]
}

// oneLine makes a text fit on one line of at most 1 KiB.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), 1024)], "")
}

// keyLicense reads the dataset of a signed key. The vendor chooses it freely; Keygen's own defaults are understood.
func (d *document) keyLicense() (*enforcer.License, error) {
	l := &enforcer.License{System: System, Role: enforcer.RoleBase,
		ID: strings.TrimPrefix(KeyDigest(d.key), "sha256:")[:32], Product: System,
		Terms: map[string]any{"scheme": d.scheme, "algorithm": d.alg, "key": KeyDigest(d.key)}}
	var all map[string]any
	if json.Unmarshal(d.data, &all) != nil || all == nil {
		l.Terms["dataset"] = strings.ToValidUTF8(string(d.data), "�")
		return l, nil
	}
	l.Terms["dataset"] = all
	get := func(path ...string) string {
		var v any = all
		for _, p := range path {
			m, _ := v.(map[string]any)
			v = m[p]
		}
		s, _ := v.(string)
		return s
	}
	var unreadable error
	instant := func(path ...string) time.Time {
		t, err := keyDate(all, path...)
		if err != nil {
			unreadable = cmp.Or(unreadable, err)
		}
		return t
	}
	l.ID = cmp.Or(get("license", "id"), get("sub"), get("id"), l.ID)
	l.Product = cmp.Or(get("product", "id"), l.Product)
	l.Issuer = cmp.Or(get("account", "id"), get("aud"))
	l.Licensee = get("user", "email")
	l.Issued, l.Expires = instant("license", "created"), instant("license", "expiry")
	for _, t := range []time.Time{instant("created"), instant("iat")} {
		if l.Issued.IsZero() {
			l.Issued = t
		}
	}
	for _, t := range []time.Time{instant("expiry"), instant("exp")} {
		if l.Expires.IsZero() {
			l.Expires = t
		}
	}
	if nbf := instant("nbf"); l.Expires.IsZero() || nbf.Before(l.Expires) {
		l.NotBefore = nbf
	}
	return l, unreadable
}

// keyDate reads a date of a signed key's dataset, RFC 3339 or seconds since 1970; zero: there is none. One that cannot
// be read is an error: a licence whose end is unreadable does not last for ever.
func keyDate(all map[string]any, path ...string) (time.Time, error) {
	var v any = all
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	switch v := v.(type) {
	case nil:
		return time.Time{}, nil
	case string:
		if v == "" {
			return time.Time{}, nil
		}
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return plugin.Stated(t.UTC()), nil
		}
	case float64:
		if v >= 0 && v <= 253402300799 {
			return time.Unix(int64(v), 0).UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("its %s is no date: give RFC 3339, or seconds since 1970", strings.Join(path, "."))
}

// limit converts an attribute that limits a count; nil is unlimited.
func limit(what string, n *int64) (enforcer.Limit, error) {
	switch {
	case n == nil:
		return enforcer.Unlimited, nil
	case *n < 0:
		return 0, fmt.Errorf("its %s is negative", what)
	default:
		return min(enforcer.Limit(*n), enforcer.MaxCount), nil
	}
}

// Overage returns how many above a limit a policy's overage strategy permits: count ≤ limit × factor.
func Overage(strategy string, max enforcer.Limit) enforcer.Limit {
	if max == enforcer.Unlimited {
		return 0
	}
	switch strategy {
	case overageAlways:
		return enforcer.Unlimited
	case "ALLOW_1_25X_OVERAGE":
		return max / 4
	case "ALLOW_1_5X_OVERAGE":
		return max / 2
	case "ALLOW_2X_OVERAGE":
		return max
	default:
		return 0
	}
}

// heartbeat returns the required period of heartbeats. Its grace is the time in which a dead machine may be revived:
// Keygen gives the place to nobody else before.
func heartbeat(required bool, p *Policy, m *machine) enforcer.Period {
	if !required {
		return enforcer.Period{}
	}
	out := enforcer.Period{Every: defaultHeartbeat}
	switch {
	case m != nil && m.HeartbeatDuration != nil:
		out.Every = seconds(*m.HeartbeatDuration)
	case p != nil && p.HeartbeatDuration != nil:
		out.Every = seconds(*p.HeartbeatDuration)
	}
	if p != nil {
		out.Grace = map[string]time.Duration{"1_MINUTE_REVIVE": time.Minute, "2_MINUTE_REVIVE": 2 * time.Minute,
			"5_MINUTE_REVIVE":  5 * time.Minute,
			"10_MINUTE_REVIVE": 10 * time.Minute, "15_MINUTE_REVIVE": 15 * time.Minute,
			"ALWAYS_REVIVE": 15 * time.Minute}[p.HeartbeatResurrection]
	}
	return out
}

// seconds bounds a number from a file, so that no product overflows.
func seconds(n int64) time.Duration {
	return time.Duration(max(1, min(n, 100*365*24*3600))) * time.Second
}

// unknownCheckIn is the period of check-ins of a licence that demands them, and states neither an interval nor the next
// one: the shortest that a policy may have.
const unknownCheckIn = 24 * time.Hour

// checkIn returns the required period of check-ins and the last one. Without the policy, the period is the time from
// the last to the next, or else unknownCheckIn.
func checkIn(a *Attributes, p *Policy, issued time.Time) (enforcer.Period, time.Time) {
	if !a.RequireCheckIn {
		return enforcer.Period{}, time.Time{}
	}
	last, next := timeOf(a.LastCheckIn), timeOf(a.NextCheckIn)
	if last.IsZero() {
		last = issued
	}
	const day = 24 * time.Hour
	n := time.Duration(1)
	if p.CheckInIntervalCount != nil {
		n = time.Duration(max(1, min(*p.CheckInIntervalCount, 365)))
	}
	var out enforcer.Period
	switch p.CheckInInterval {
	case "day":
		out.Every = n * day
	case "week":
		out.Every = n * 7 * day
	case "month":
		out.Months = int(min(n, 1200))
	case "year":
		out.Months = int(min(n, 100)) * 12
	default:
		if out.Every = unknownCheckIn; !next.IsZero() {
			out.Every = max(time.Second, next.Sub(last))
		}
	}
	return out, last
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return plugin.Stated(t.UTC())
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// sooner returns the earlier of two times; a zero time never comes.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
