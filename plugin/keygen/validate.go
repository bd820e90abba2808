package keygen

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Code is Keygen's code for the result of a validation.
type Code string

// The codes of validations: all that the server has.
const (
	CodeValid               Code = "VALID"
	CodeNotFound            Code = "NOT_FOUND"
	CodeBanned              Code = "BANNED"
	CodeSuspended           Code = "SUSPENDED"
	CodeExpired             Code = "EXPIRED"
	CodeOverdue             Code = "OVERDUE"
	CodeEnvironmentMismatch Code = "ENVIRONMENT_SCOPE_MISMATCH"
	CodeEnvironmentRequired Code = "ENVIRONMENT_SCOPE_REQUIRED"
	CodeProductMismatch     Code = "PRODUCT_SCOPE_MISMATCH"
	CodeProductRequired     Code = "PRODUCT_SCOPE_REQUIRED"
	CodePolicyMismatch      Code = "POLICY_SCOPE_MISMATCH"
	CodePolicyRequired      Code = "POLICY_SCOPE_REQUIRED"
	CodeUserMismatch        Code = "USER_SCOPE_MISMATCH"
	CodeUserRequired        Code = "USER_SCOPE_REQUIRED"
	CodeEntitlementsEmpty   Code = "ENTITLEMENTS_SCOPE_EMPTY"
	CodeEntitlementsMissing Code = "ENTITLEMENTS_MISSING"
	CodeNoMachine           Code = "NO_MACHINE"
	CodeNoMachines          Code = "NO_MACHINES"
	CodeMachineMismatch     Code = "MACHINE_SCOPE_MISMATCH"
	CodeMachineRequired     Code = "MACHINE_SCOPE_REQUIRED"
	CodeHeartbeatNotStarted Code = "HEARTBEAT_NOT_STARTED"
	CodeHeartbeatDead       Code = "HEARTBEAT_DEAD"
	CodeFingerprintEmpty    Code = "FINGERPRINT_SCOPE_EMPTY"
	CodeFingerprintRequired Code = "FINGERPRINT_SCOPE_REQUIRED"
	CodeFingerprintMismatch Code = "FINGERPRINT_SCOPE_MISMATCH"
	CodeComponentsEmpty     Code = "COMPONENTS_SCOPE_EMPTY"
	CodeComponentsRequired  Code = "COMPONENTS_SCOPE_REQUIRED"
	CodeComponentsMismatch  Code = "COMPONENTS_SCOPE_MISMATCH"
	CodeChecksumMismatch    Code = "CHECKSUM_SCOPE_MISMATCH"
	CodeChecksumRequired    Code = "CHECKSUM_SCOPE_REQUIRED"
	CodeVersionMismatch     Code = "VERSION_SCOPE_MISMATCH"
	CodeVersionRequired     Code = "VERSION_SCOPE_REQUIRED"
	CodeTooManyUsers        Code = "TOO_MANY_USERS"
	CodeTooManyMachines     Code = "TOO_MANY_MACHINES"
	CodeTooManyCores        Code = "TOO_MANY_CORES"
	CodeTooMuchMemory       Code = "TOO_MUCH_MEMORY"
	CodeTooMuchDisk         Code = "TOO_MUCH_DISK"
	CodeTooManyProcesses    Code = "TOO_MANY_PROCESSES"
)

// Codes returns every code, in the order in which the server checks, VALID last.
func Codes() []Code {
	return []Code{CodeNotFound, CodeBanned, CodeSuspended, CodeExpired, CodeOverdue, CodeEnvironmentMismatch,
		CodeEnvironmentRequired, CodeProductMismatch,
		CodeProductRequired, CodePolicyMismatch, CodePolicyRequired, CodeUserMismatch, CodeUserRequired,
		CodeEntitlementsEmpty, CodeEntitlementsMissing, CodeNoMachine, CodeNoMachines,
		CodeMachineMismatch, CodeMachineRequired, CodeHeartbeatNotStarted, CodeHeartbeatDead, CodeFingerprintEmpty,
		CodeFingerprintRequired, CodeFingerprintMismatch,
		CodeComponentsEmpty, CodeComponentsMismatch, CodeComponentsRequired, CodeChecksumMismatch, CodeChecksumRequired,
		CodeVersionMismatch, CodeVersionRequired,
		CodeTooManyUsers, CodeTooManyMachines, CodeTooManyCores, CodeTooMuchMemory, CodeTooMuchDisk,
		CodeTooManyProcesses, CodeValid}
}

// details are the sentences beside the codes.
var details = map[Code]string{
	CodeValid: "is valid", CodeNotFound: "does not exist", CodeBanned: "is banned", CodeSuspended: "is suspended",
	CodeExpired: "is expired", CodeOverdue: "is overdue for check in",
	CodeEnvironmentMismatch: "environment scope does not match",
	CodeEnvironmentRequired: "environment scope is required",
	CodeProductMismatch:     "product scope does not match", CodeProductRequired: "product scope is required",
	CodePolicyMismatch: "policy scope does not match", CodePolicyRequired: "policy scope is required",
	CodeUserMismatch: "user scope does not match", CodeUserRequired: "user scope is required",
	CodeEntitlementsEmpty:   "entitlements scope is empty",
	CodeEntitlementsMissing: "is missing one or more required entitlements",
	CodeNoMachine:           "machine is not activated (has no associated machine)",
	CodeNoMachines:          "machine is not activated (has no associated machines)",
	CodeMachineMismatch:     "machine is not activated (does not match any associated machines)",
	CodeMachineRequired:     "machine scope is required",
	CodeHeartbeatNotStarted: "machine heartbeat is required", CodeHeartbeatDead: "machine heartbeat is dead",
	CodeFingerprintEmpty: "fingerprint scope is empty", CodeFingerprintRequired: "fingerprint scope is required",
	CodeFingerprintMismatch: "fingerprint is not activated (does not match any associated machines)",
	CodeComponentsEmpty:     "components scope is empty", CodeComponentsRequired: "components scope is required",
	CodeComponentsMismatch: "components are not activated (does not match any associated components)",
	CodeChecksumMismatch:   "checksum scope is not valid (does not match any accessible artifacts)",
	CodeChecksumRequired:   "checksum scope is required",
	CodeVersionMismatch:    "version scope is not valid (does not match any accessible releases)",
	CodeVersionRequired:    "version scope is required",
	CodeTooManyUsers:       "has too many associated users", CodeTooManyMachines: "has too many associated machines",
	CodeTooManyCores:     "has too many associated machine cores",
	CodeTooMuchMemory:    "has too much associated machine memory",
	CodeTooMuchDisk:      "has too much associated machine disk",
	CodeTooManyProcesses: "has too many associated processes",
}

// Detail returns the sentence that goes with a code.
func (c Code) Detail() string { return details[c] }

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
	Owner               string // id; empty: none
	Life                Life
	Required            bool // it must keep a heartbeat
	Cores, Memory, Disk int64
	Processes           int64
	Components          []string // fingerprints
}

// alive reports whether the machine counts for fingerprints; a machine without a heartbeat does.
func (m *Machine) alive() bool { return m.Life != Dead }

// Situation is everything that a validation considers apart from its scope.
type Situation struct {
	Object   *Object // nil: there is no such licence
	Findings []enforcer.Finding
	Now      time.Time

	Product, PolicyID, Environment string
	Owner                          string   // user id; empty: none
	Users                          []string // ids and e-mail addresses, the owner's too
	UserCount                      int64    // the owner included
	Entitlements                   []string // codes
	Machines                       []Machine
	// Checksums and Versions of the accessible releases; nil: not known, so no scope of them matches.
	Checksums, Versions []string
}

// Scope is the scope of a validation. A nil field is not given.
type Scope struct {
	Product, Policy, User, Machine, Fingerprint, Checksum, Version, Environment *string

	Fingerprints, Components, Entitlements *[]string
}

// Result is the result of a validation. Valid may accompany codes other than VALID: EXPIRED if the policy lets an
// expired licence run on, and TOO_MANY_* within the policy's overage.
type Result struct {
	Code  Code
	Valid bool
}

// Validate returns the result of a validation, by the server's checks in the server's order (keygen-api 1.8: the
// license validation service). It is a pure function.
func Validate(s *Situation, scope *Scope) Result {
	if s.Object == nil {
		return Result{Code: CodeNotFound}
	}
	v := validation{Situation: s, scope: scope, a: &s.Object.Attributes, p: &s.Object.Policy}
	if scope == nil {
		v.scope, v.quick = &Scope{}, true
	}
	for _, check := range []func() *Result{v.state, v.belongs, v.machine, v.fingerprints, v.components, v.release,
		v.users} {
		if r := check(); r != nil {
			return *r
		}
	}
	if v.a.Strict {
		if r := v.limits(); r != nil {
			return *r
		}
	}
	if v.expired() {
		return Result{CodeExpired, !v.p.expires()}
	}
	return Result{CodeValid, true}
}

type validation struct {
	*Situation
	scope *Scope
	quick bool // without a scope, and none is required
	a     *Attributes
	p     *Policy
	asked *Machine // the one machine that the scope names
}

func no(c Code) *Result { return &Result{Code: c} }

// found reports whether the judge has found something.
func (v *validation) found(codes ...enforcer.Code) bool {
	return slices.ContainsFunc(v.Findings, func(f enforcer.Finding) bool { return slices.Contains(codes, f.Code) })
}

func (v *validation) expired() bool {
	return v.a.Expiry != nil && v.a.Expiry.Before(v.Now) || v.found(enforcer.Expired)
}

func (v *validation) state() *Result {
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

// one checks a scope of a single value.
func (v *validation) one(given *string, want func(string) bool, required bool, mismatch, missing Code) *Result {
	switch {
	case given != nil && !want(*given):
		return no(mismatch)
	case given == nil && required && !v.quick:
		return no(missing)
	}
	return nil
}

func is(s string) func(string) bool { return func(t string) bool { return s == t } }

func in(list []string) func(string) bool {
	return func(t string) bool { return slices.Contains(list, t) }
}

// belongs checks the scopes of environment, product, policy, user and entitlements.
func (v *validation) belongs() *Result {
	s := v.scope
	for _, r := range []*Result{
		v.one(s.Environment, is(v.Environment), v.p.RequireEnvironment, CodeEnvironmentMismatch,
			CodeEnvironmentRequired),
		v.one(s.Product, is(v.Product), v.p.RequireProductScope, CodeProductMismatch, CodeProductRequired),
		v.one(s.Policy, is(v.PolicyID), v.p.RequirePolicyScope, CodePolicyMismatch, CodePolicyRequired),
		v.one(s.User, in(v.Users), v.p.RequireUserScope, CodeUserMismatch, CodeUserRequired),
	} {
		if r != nil {
			return r
		}
	}
	if s.User != nil && s.Machine != nil {
		if m := v.byID(*s.Machine); m != nil && m.Owner != "" && m.Owner != *s.User {
			return no(CodeUserMismatch)
		}
	}
	if e := s.Entitlements; e != nil {
		if len(*e) == 0 {
			return no(CodeEntitlementsEmpty)
		}
		for _, code := range *e {
			if !slices.Contains(v.Entitlements, code) {
				return no(CodeEntitlementsMissing)
			}
		}
	}
	return nil
}

func (v *validation) byID(id string) *Machine {
	for i := range v.Machines {
		if v.Machines[i].ID == id {
			return &v.Machines[i]
		}
	}
	return nil
}

// noMachine returns the result for a licence without machines.
func (v *validation) noMachine() *Result {
	if v.a.Floating {
		return no(CodeNoMachines)
	}
	return no(CodeNoMachine)
}

func (v *validation) machine() *Result {
	s := v.scope
	if (s.Machine != nil || s.Fingerprint != nil || s.Fingerprints != nil) && len(v.Machines) == 0 {
		return v.noMachine()
	}
	if s.Machine == nil {
		if v.p.RequireMachineScope && !v.quick {
			return no(CodeMachineRequired)
		}
		return nil
	}
	if v.asked = v.byID(*s.Machine); v.asked == nil {
		return no(CodeMachineMismatch)
	}
	return v.heartbeat(v.asked)
}

func (v *validation) heartbeat(m *Machine) *Result {
	switch {
	case m.Life == Dead:
		return no(CodeHeartbeatDead)
	case m.Life == NotStarted && (m.Required || v.a.RequireHeartbeat):
		return no(CodeHeartbeatNotStarted)
	}
	return nil
}

// needed returns how many of n must match under a strategy.
func needed(strategy string, n int) int {
	switch strategy {
	case "MATCH_TWO":
		return 2
	case "MATCH_MOST":
		return (n + 1) / 2 // the server's majority: 2 of 4 is enough
	case "MATCH_ALL":
		return n
	default:
		return 1
	}
}

func (v *validation) fingerprints() *Result {
	s := v.scope
	var given []string
	switch {
	case s.Fingerprints != nil:
		for _, f := range *s.Fingerprints {
			if f != "" && !slices.Contains(given, f) {
				given = append(given, f)
			}
		}
	case s.Fingerprint != nil && *s.Fingerprint != "":
		given = []string{*s.Fingerprint}
	}
	switch {
	case s.Fingerprint == nil && s.Fingerprints == nil:
		if v.p.RequireFingerprint && !v.quick {
			return no(CodeFingerprintRequired)
		}
		return nil
	case len(given) == 0:
		return no(CodeFingerprintEmpty)
	}
	alive, dead := 0, 0
	var last *Machine
	for i := range v.Machines {
		m := &v.Machines[i]
		switch {
		case !slices.Contains(given, m.Fingerprint):
		case m.alive():
			alive++
			last = m
		default:
			dead++
		}
	}
	want := 1
	if len(given) > 1 {
		want = needed(v.p.MachineMatching, len(given))
	}
	switch {
	case alive == 0 && dead > 0:
		return no(CodeHeartbeatDead)
	case alive < want:
		return no(CodeFingerprintMismatch)
	case len(given) == 1 && v.asked == nil:
		v.asked = last
		return v.heartbeat(last)
	}
	return nil
}

func (v *validation) components() *Result {
	c := v.scope.Components
	switch {
	case c == nil && v.p.RequireComponentsScope && !v.quick:
		return no(CodeComponentsRequired)
	case c == nil:
		return nil
	case len(*c) == 0:
		return no(CodeComponentsEmpty)
	case v.scope.Fingerprint == nil || v.asked == nil:
		return no(CodeFingerprintRequired)
	}
	n := 0
	for _, f := range *c {
		if slices.Contains(v.asked.Components, f) {
			n++
		}
	}
	if n < needed(v.p.ComponentMatching, len(*c)) {
		return no(CodeComponentsMismatch)
	}
	return nil
}

func (v *validation) release() *Result {
	if r := v.one(v.scope.Checksum, in(v.Checksums), v.p.RequireChecksumScope, CodeChecksumMismatch,
		CodeChecksumRequired); r != nil {
		return r
	}
	return v.one(v.scope.Version, in(v.Versions), v.p.RequireVersionScope, CodeVersionMismatch, CodeVersionRequired)
}

// over returns the result for a count above a limit; it is valid if the policy's overage covers the count.
func (v *validation) over(limit *int64, n int64, code Code) *Result {
	if limit == nil || n <= *limit {
		return nil
	}
	max := enforcer.Limit(*limit)
	return &Result{code, max.Plus(Overage(v.p.OverageStrategy, max)).Covers(n)}
}

func (v *validation) users() *Result { return v.over(v.a.MaxUsers, v.UserCount, CodeTooManyUsers) }

func (v *validation) limits() *Result {
	if len(v.Machines) == 0 {
		return v.noMachine()
	}
	counted := v.Machines
	if v.p.MachineLeasing == "PER_USER" {
		owner := v.Owner
		if v.asked != nil {
			owner = v.asked.Owner
		}
		counted = slices.DeleteFunc(slices.Clone(counted), func(m Machine) bool { return m.Owner != owner })
	}
	var cores, memory, disk int64
	for _, m := range counted {
		cores, memory, disk = cores+m.Cores, memory+m.Memory, disk+m.Disk
	}
	if n := int64(len(counted)); n > 1 {
		if r := v.over(v.a.MaxMachines, n, CodeTooManyMachines); r != nil {
			return r
		}
	}
	for _, r := range []*Result{v.over(v.a.MaxCores, cores, CodeTooManyCores),
		v.over(v.a.MaxMemory, memory, CodeTooMuchMemory), v.over(v.a.MaxDisk, disk, CodeTooMuchDisk)} {
		if r != nil {
			return r
		}
	}
	return v.processes()
}

func (v *validation) processes() *Result {
	var n int64
	switch v.p.ProcessLeasing {
	case "PER_LICENSE":
		for _, m := range v.Machines {
			n += m.Processes
		}
	case "PER_USER":
		owner := v.Owner
		if v.asked != nil {
			owner = v.asked.Owner
		}
		for _, m := range v.Machines {
			if m.Owner == owner {
				n += m.Processes
			}
		}
	default:
		if v.asked == nil {
			return nil
		}
		n = v.asked.Processes
	}
	return v.over(v.a.MaxProcesses, n, CodeTooManyProcesses)
}
