package keygen

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Life is the state of a machine's heartbeat.
type Life string

// The values of a machine's heartbeatStatus; RESURRECTED counts as alive.
const (
	NotStarted  Life = "NOT_STARTED"
	Alive       Life = "ALIVE"
	Dead        Life = "DEAD"
	Resurrected Life = "RESURRECTED"
)

// Machine is a licence's machine in a validation.
type Machine struct {
	ID, Fingerprint     string
	Owner               string // a user's id or e-mail address; empty: none
	Life                Life
	Required            bool // it must keep a heartbeat
	Cores, Memory, Disk int64
	Processes           int64
	MaxProcesses        *int64   // the machine's own limit; nil: the licence's counts
	Components          []string // fingerprints
}

// alive reports whether the machine counts for fingerprints; a machine without a heartbeat does.
func (m *Machine) alive() bool { return m.Life != Dead }

// Situation is everything that a validation considers apart from its scope.
type Situation struct {
	Object   *Object // nil: there is no such licence
	Findings []enforcer.Finding
	Now      time.Time

	Product, PolicyID string
	Environment       string // id; empty: none
	EnvironmentCode   string // empty: not known
	Owner             string // user id; empty: none
	// Users has the ids and the e-mail addresses of the licence's users, the owner's too. The n-th address is that of
	// the n-th id.
	Users        []string
	UserCount    int64    // the owner included
	Entitlements []string // codes
	Machines     []Machine
	// Checksums and Versions of the accessible releases; nil: not known, so no scope of them matches.
	Checksums, Versions []string
}

// Result is the result of a validation. Valid may accompany codes other than VALID: EXPIRED if the policy lets an
// expired licence run on, and TOO_MANY_* within the policy's overage.
type Result struct {
	Code  Code
	Valid bool
}

// Validate returns the result of a validation, by the server's checks in the server's order (keygen-api 1.8: the
// license validation service). It is a pure function. A nil scope asks for the quick validation, which skips all
// checks of scopes.
func Validate(s *Situation, scope *Scope) Result {
	r, _ := Explain(s, scope)
	return r
}

// Explain is [Validate] with the sentence that the server gives for the result.
func Explain(s *Situation, scope *Scope) (Result, string) {
	if s.Object == nil {
		return Result{Code: CodeNotFound}, CodeNotFound.Detail()
	}
	v := validation{Situation: s, scope: scope, a: &s.Object.Attributes, p: &s.Object.Policy}
	checks := []func() *outcome{v.state, v.belongs, v.entitled, v.machine, v.fingerprints, v.components, v.release,
		v.users, v.limits, v.lapsed}
	if scope == nil {
		v.scope = &Scope{}
		checks = []func() *outcome{v.state, v.users, v.limits, v.lapsed}
	}
	for _, check := range checks {
		if o := check(); o != nil {
			return o.Result, o.detail
		}
	}
	return Result{CodeValid, true}, CodeValid.Detail()
}

// outcome is a result with its sentence.
type outcome struct {
	Result
	detail string
}

type validation struct {
	*Situation
	scope *Scope
	a     *Attributes
	p     *Policy
}

func no(c Code) *outcome { return &outcome{Result{Code: c}, c.Detail()} }

func because(c Code, detail string) *outcome { return &outcome{Result{Code: c}, detail} }

// found reports whether the judge has found something.
func (v *validation) found(codes ...enforcer.Code) bool {
	return slices.ContainsFunc(v.Findings, func(f enforcer.Finding) bool { return slices.Contains(codes, f.Code) })
}

func (v *validation) expired() bool {
	return v.a.Expiry != nil && v.a.Expiry.Before(v.Now) || v.found(enforcer.Expired)
}

func (v *validation) state() *outcome {
	switch {
	case v.a.Status == string(CodeBanned) || v.found(enforcer.Banned):
		return no(CodeBanned)
	case v.a.Suspended || v.a.Status == string(CodeSuspended) || v.found(enforcer.Suspended):
		return no(CodeSuspended)
	case v.expired() && v.p.ExpirationStrategy == expiryRevoke:
		return no(CodeExpired)
	case v.found(enforcer.Overdue):
		return no(CodeOverdue)
	}
	return nil
}

// lapsed is the last check: the expiry of a licence whose access is not revoked.
func (v *validation) lapsed() *outcome {
	if !v.expired() {
		return nil
	}
	return &outcome{Result{CodeExpired, !v.p.expires()}, CodeExpired.Detail()}
}

// one checks a scope of a single value. The value that is null matches if null is what there is.
func (v *validation) one(name string, given *string, want func(string) bool, null, required bool,
	mismatch, missing Code) *outcome {
	switch {
	case given == nil && v.scope.null(name):
		if null {
			return nil
		}
		return no(mismatch)
	case given != nil && !want(*given):
		return no(mismatch)
	case given == nil && required:
		return no(missing)
	}
	return nil
}

// is reports whether a text is one of some that are not empty.
func is(any ...string) func(string) bool {
	return func(t string) bool { return t != "" && slices.Contains(any, t) }
}

// belongs checks the scopes of environment, product, policy and user.
func (v *validation) belongs() *outcome {
	s := v.scope
	for _, o := range []*outcome{
		v.one("environment", s.Environment, is(v.Environment, v.EnvironmentCode), v.Environment == "",
			v.p.RequireEnvironment, CodeEnvironmentMismatch, CodeEnvironmentRequired),
		v.one("product", s.Product, is(v.Product), false, v.p.RequireProductScope, CodeProductMismatch,
			CodeProductRequired),
		v.one("policy", s.Policy, is(v.PolicyID), false, v.p.RequirePolicyScope, CodePolicyMismatch,
			CodePolicyRequired),
		v.one("user", s.User, is(append(slices.Clone(v.Users), v.Owner)...), v.Owner == "", v.p.RequireUserScope,
			CodeUserMismatch, CodeUserRequired),
	} {
		if o != nil {
			return o
		}
	}
	return nil
}

// userID returns the id of a user that is named by id or by e-mail address. A name that is not known stays as it is.
func (v *validation) userID(name string) string {
	var ids, addresses []string
	for _, u := range v.Users {
		if strings.Contains(u, "@") {
			addresses = append(addresses, u)
		} else {
			ids = append(ids, u)
		}
	}
	if i := slices.Index(addresses, name); i >= 0 && i < len(ids) {
		return ids[i]
	}
	return name
}

// lessee returns the id of the scope's user, if that is one of the licence's. Under a policy that leases by user, the
// machines with this owner count; empty: those without an owner.
func (v *validation) lessee() string {
	if s := v.scope.User; s != nil && is(append(slices.Clone(v.Users), v.Owner)...)(*s) {
		return v.userID(*s)
	}
	return ""
}

// owned reports whether the scope's user, if it names one, may use a machine: its own, or one without an owner.
func (v *validation) owned(m *Machine) bool {
	return v.scope.User == nil || m.Owner == "" || v.userID(m.Owner) == v.userID(*v.scope.User)
}

func (v *validation) entitled() *outcome {
	if v.scope.Entitlements == nil {
		if v.scope.null("entitlements") {
			return no(CodeEntitlementsEmpty)
		}
		return nil
	}
	if len(*v.scope.Entitlements) == 0 {
		return no(CodeEntitlementsEmpty)
	}
	for _, code := range *v.scope.Entitlements {
		if !slices.Contains(v.Entitlements, code) {
			return no(CodeEntitlementsMissing)
		}
	}
	return nil
}

// noMachine returns the result for a licence without machines. what is "machine" or "fingerprint".
func (v *validation) noMachine(what string) *outcome {
	if v.a.Floating {
		return because(CodeNoMachines, what+" is not activated (has no associated machines)")
	}
	return because(CodeNoMachine, what+" is not activated (has no associated machine)")
}

// byID returns the machine that the scope names; nil: there is none.
func (v *validation) byID() *Machine {
	if v.scope.Machine == nil {
		return nil
	}
	for i := range v.Machines {
		if v.Machines[i].ID == *v.scope.Machine {
			return &v.Machines[i]
		}
	}
	return nil
}

func (v *validation) machine() *outcome {
	if v.scope.Machine == nil && !v.scope.null("machine") {
		if v.p.RequireMachineScope {
			return no(CodeMachineRequired)
		}
		return nil
	}
	if len(v.Machines) == 0 {
		return v.noMachine("machine")
	}
	m := v.byID()
	switch {
	case m == nil:
		return no(CodeMachineMismatch)
	case !v.owned(m):
		return because(CodeUserMismatch, "user scope does not match (does not match associated machine owner)")
	case v.unstarted(m):
		return no(CodeHeartbeatNotStarted)
	case m.Life == Dead:
		return no(CodeHeartbeatDead)
	}
	return nil
}

// unstarted reports whether a machine lacks the heartbeat that it must keep.
func (v *validation) unstarted(m *Machine) bool {
	return m.Life == NotStarted && (m.Required || v.a.RequireHeartbeat)
}

// matching returns how many of n must match under a strategy, and how people say that.
func matching(strategy string, n int) (int, string) {
	switch strategy {
	case "MATCH_TWO":
		return 2, "at least 2"
	case "MATCH_MOST":
		return (n + 1) / 2, "enough" // the server's majority: 2 of 4 is enough
	case "MATCH_ALL":
		return n, "all"
	default:
		return 1, "any"
	}
}

// matched returns the machines that are alive and that the scope's fingerprints name, and the number of the dead.
func (v *validation) matched(given []string) (alive []*Machine, dead int) {
	for i := range v.Machines {
		m := &v.Machines[i]
		switch {
		case !slices.Contains(given, m.Fingerprint):
		case m.alive():
			alive = append(alive, m)
		default:
			dead++
		}
	}
	return alive, dead
}

func (v *validation) fingerprints() *outcome {
	names, given := v.scope.machines()
	switch {
	case !given && v.p.RequireFingerprint:
		return no(CodeFingerprintRequired)
	case !given:
		return nil
	case len(names) == 0:
		return no(CodeFingerprintEmpty)
	case len(v.Machines) == 0:
		return v.noMachine("fingerprint")
	}
	alive, dead := v.matched(names)
	want, words, detail := 1, "any", "fingerprint is not activated (does not match any associated machines)"
	if len(names) > 1 {
		want, words = matching(v.p.MachineMatching, len(names))
		detail = "one or more fingerprint is not activated (does not match " + words + " associated machines)"
	}
	switch {
	case dead == len(names):
		return no(CodeHeartbeatDead)
	case len(alive) < want:
		return because(CodeFingerprintMismatch, detail)
	case slices.ContainsFunc(alive, func(m *Machine) bool { return !v.owned(m) }):
		return because(CodeUserMismatch, "user scope does not match (does not match associated machine owners)")
	case slices.ContainsFunc(alive, v.unstarted):
		return no(CodeHeartbeatNotStarted)
	}
	return nil
}

// components compares the components of the one machine that the scope's fingerprint names.
func (v *validation) components() *outcome {
	c := v.scope.Components
	switch {
	case c == nil && v.p.RequireComponentsScope && !v.scope.null("components"):
		return no(CodeComponentsRequired)
	case c == nil && !v.scope.null("components"):
		return nil
	case v.scope.Fingerprint == nil:
		return because(CodeFingerprintRequired,
			"fingerprint scope is required when using the components scope")
	case c == nil || len(*c) == 0:
		return no(CodeComponentsEmpty)
	}
	alive, _ := v.matched([]string{*v.scope.Fingerprint})
	names := once(*c)
	want, words := matching(v.p.ComponentMatching, len(names))
	n := 0
	for _, f := range names {
		if len(alive) > 0 && slices.Contains(alive[0].Components, f) {
			n++
		}
	}
	if n < want {
		return because(CodeComponentsMismatch,
			"one or more component is not activated (does not match "+words+" associated components)")
	}
	return nil
}

func (v *validation) release() *outcome {
	if o := v.one("checksum", v.scope.Checksum, is(v.Checksums...), false, v.p.RequireChecksumScope,
		CodeChecksumMismatch, CodeChecksumRequired); o != nil {
		return o
	}
	return v.one("version", v.scope.Version, is(v.Versions...), false, v.p.RequireVersionScope, CodeVersionMismatch,
		CodeVersionRequired)
}

// over returns the result for a count above a limit; it is valid if the policy's overage covers the count.
func (v *validation) over(limit *int64, n int64, code Code) *outcome {
	if limit == nil || n <= *limit {
		return nil
	}
	most := enforcer.Limit(*limit)
	return &outcome{Result{code, most.Plus(Overage(v.p.OverageStrategy, most)).Covers(n)}, code.Detail()}
}

func (v *validation) users() *outcome { return v.over(v.a.MaxUsers, v.UserCount, CodeTooManyUsers) }

// limits checks what a strict licence bounds.
func (v *validation) limits() *outcome {
	switch {
	case !v.a.Strict:
		return nil
	case len(v.Machines) == 0 && v.a.Floating:
		return because(CodeNoMachines, "must have at least 1 associated machine")
	case len(v.Machines) == 0:
		return because(CodeNoMachine, "must have exactly 1 associated machine")
	}
	counted := v.Machines
	if v.p.MachineLeasing == perUser {
		owner := v.lessee()
		counted = slices.DeleteFunc(slices.Clone(counted), func(m Machine) bool { return v.userID(m.Owner) != owner })
	}
	var cores, memory, disk int64
	for _, m := range counted {
		cores, memory, disk = sum(cores, m.Cores), sum(memory, m.Memory), sum(disk, m.Disk)
	}
	if most := v.a.machines(); len(v.Machines) > 1 {
		if o := v.over(most, int64(len(counted)), CodeTooManyMachines); o != nil {
			return o
		}
	}
	for _, o := range []*outcome{v.over(v.a.MaxCores, cores, CodeTooManyCores),
		v.over(v.a.MaxMemory, memory, CodeTooMuchMemory), v.over(v.a.MaxDisk, disk, CodeTooMuchDisk)} {
		if o != nil {
			return o
		}
	}
	return v.processes()
}

// sum adds two amounts, and saturates.
func sum(a, b int64) int64 { return a + min(b, math.MaxInt64-a) }

func (v *validation) processes() *outcome {
	if v.a.MaxProcesses == nil {
		return nil
	}
	var n int64
	switch v.p.ProcessLeasing {
	case "PER_LICENSE":
		for _, m := range v.Machines {
			n += m.Processes
		}
	case perUser:
		owner := v.lessee()
		for _, m := range v.Machines {
			if v.userID(m.Owner) == owner {
				n += m.Processes
			}
		}
	default:
		return v.processesOfMachines()
	}
	return v.over(v.a.MaxProcesses, n, CodeTooManyProcesses)
}

// processesOfMachines compares the processes of each machine that the scope names with that machine's limit.
func (v *validation) processesOfMachines() (worst *outcome) {
	var asked []*Machine
	if names, given := v.scope.machines(); given {
		asked, _ = v.matched(names)
	} else if m := v.byID(); m != nil {
		asked = []*Machine{m}
	}
	for _, m := range asked {
		limit := m.MaxProcesses
		if limit == nil {
			limit = v.a.MaxProcesses
		}
		if o := v.over(limit, m.Processes, CodeTooManyProcesses); o != nil && (worst == nil || worst.Valid) {
			worst = o
		}
	}
	return worst
}
