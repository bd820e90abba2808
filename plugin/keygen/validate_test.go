package keygen_test

import (
	"slices"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen"
)

var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

// situation returns a floating licence with two machines. Most rows are about m1.
func situation() *keygen.Situation {
	return &keygen.Situation{Object: &keygen.Object{ID: "l", Attributes: keygen.Attributes{Floating: true}}, Now: noon,
		Product: "p", PolicyID: "pol", Environment: "prod", Owner: "u1", Users: []string{"u1", "a@example.com"},
		UserCount: 1, Entitlements: []string{"A", "B"},
		Machines: []keygen.Machine{{ID: "m1", Fingerprint: "f1", Owner: "u1", Life: keygen.NotStarted, Cores: 4,
			Memory: 8, Disk: 16, Processes: 2, Components: []string{"c1", "c2", "c3"}},
			{ID: "m2", Fingerprint: "f2", Life: keygen.NotStarted, Cores: 4, Memory: 8, Disk: 16, Processes: 1}},
		Checksums: []string{"sum"}, Versions: []string{"1.0"}}
}

type change = func(*keygen.Situation, *keygen.Scope)

var past, future = noon.Add(-time.Hour), noon.Add(time.Hour)

func policy(f func(*keygen.Policy)) change {
	return func(s *keygen.Situation, _ *keygen.Scope) { f(&s.Object.Policy) }
}

func attributes(f func(*keygen.Attributes)) change {
	return func(s *keygen.Situation, _ *keygen.Scope) { f(&s.Object.Attributes) }
}

func scope(f func(*keygen.Scope)) change { return func(_ *keygen.Situation, s *keygen.Scope) { f(s) } }

var expired = attributes(func(a *keygen.Attributes) { a.Expiry = &past })

func strategy(name string) change {
	return policy(func(p *keygen.Policy) { p.ExpirationStrategy = name })
}

var strict = attributes(func(a *keygen.Attributes) { a.Strict = true })

func overage(name string) change { return policy(func(p *keygen.Policy) { p.OverageStrategy = name }) }

func machine(f func(*keygen.Machine)) change {
	return func(s *keygen.Situation, _ *keygen.Scope) { f(&s.Machines[0]) }
}

var fingerprint = scope(func(s *keygen.Scope) { s.Fingerprint = new("f1") })

func fingerprints(f ...string) change { return scope(func(s *keygen.Scope) { s.Fingerprints = &f }) }

func components(c ...string) change { return scope(func(s *keygen.Scope) { s.Components = &c }) }

func matching(m, c string) change {
	return policy(func(p *keygen.Policy) { p.MachineMatching, p.ComponentMatching = m, c })
}

func none(s *keygen.Situation, _ *keygen.Scope) { s.Machines = nil }

func finding(c enforcer.Code) change {
	return func(s *keygen.Situation, _ *keygen.Scope) { s.Findings = []enforcer.Finding{{Code: c}} }
}

// validations are the rows of TestValidate.
var validations = []struct {
	name    string
	changes []change
	want    keygen.Code
	valid   bool
}{
	{"all is well", nil, keygen.CodeValid, true},
	{"not there", []change{func(s *keygen.Situation, _ *keygen.Scope) {
		s.Object = nil
	}}, keygen.CodeNotFound, false},
	{"banned", []change{attributes(func(a *keygen.Attributes) {
		a.Status, a.Suspended = "BANNED", true
	})}, keygen.CodeBanned, false},
	{"banned, as the upstream says", []change{finding(enforcer.Banned)}, keygen.CodeBanned, false},
	{"suspended", []change{attributes(func(a *keygen.Attributes) {
		a.Suspended = true
	}), expired, strategy("REVOKE_ACCESS")}, keygen.CodeSuspended, false},
	{"suspended, as the upstream says", []change{finding(enforcer.Suspended)}, keygen.CodeSuspended, false},
	{"expires later", []change{attributes(func(a *keygen.Attributes) {
		a.Expiry = &future
	})}, keygen.CodeValid, true},
	{"expired", []change{expired}, keygen.CodeExpired, false},
	{"expired, and a scope that comes before", []change{expired, scope(func(s *keygen.Scope) {
		s.Product = new("q")
	})}, keygen.CodeProductMismatch, false},
	{"expired and revoked comes before scopes",
		[]change{expired, strategy("REVOKE_ACCESS"), scope(func(s *keygen.Scope) {
			s.Product = new("q")
		})}, keygen.CodeExpired, false},
	{"expired, access maintained", []change{expired, strategy("MAINTAIN_ACCESS")}, keygen.CodeExpired, true},
	{"expired, access allowed", []change{expired, strategy("ALLOW_ACCESS")}, keygen.CodeExpired, true},
	{"overdue", []change{finding(enforcer.Overdue)}, keygen.CodeOverdue, false},
	{"environment", []change{scope(func(s *keygen.Scope) {
		s.Environment = new("test")
	})}, keygen.CodeEnvironmentMismatch, false},
	{"environment wanted", []change{policy(func(p *keygen.Policy) {
		p.RequireEnvironment = true
	})}, keygen.CodeEnvironmentRequired, false},
	{"product", []change{scope(func(s *keygen.Scope) { s.Product = new("q") })}, keygen.CodeProductMismatch, false},
	{"product wanted", []change{policy(func(p *keygen.Policy) {
		p.RequireProductScope = true
	})}, keygen.CodeProductRequired, false},
	{"product given", []change{policy(func(p *keygen.Policy) {
		p.RequireProductScope = true
	}), scope(func(s *keygen.Scope) { s.Product = new("p") })}, keygen.CodeValid, true},
	{"policy", []change{scope(func(s *keygen.Scope) { s.Policy = new("q") })}, keygen.CodePolicyMismatch, false},
	{"policy wanted", []change{policy(func(p *keygen.Policy) {
		p.RequirePolicyScope = true
	})}, keygen.CodePolicyRequired, false},
	{"user", []change{scope(func(s *keygen.Scope) { s.User = new("u9") })}, keygen.CodeUserMismatch, false},
	{"user by e-mail", []change{scope(func(s *keygen.Scope) {
		s.User = new("a@example.com")
	})}, keygen.CodeValid, true},
	{"user of another's machine", []change{scope(func(s *keygen.Scope) {
		s.User, s.Machine = new("u1"), new("m1")
	}), machine(func(m *keygen.Machine) { m.Owner = "u2" })}, keygen.CodeUserMismatch, false},
	{"user wanted", []change{policy(func(p *keygen.Policy) {
		p.RequireUserScope = true
	})}, keygen.CodeUserRequired, false},
	{"no entitlement asked", []change{scope(func(s *keygen.Scope) {
		s.Entitlements = &[]string{}
	})}, keygen.CodeEntitlementsEmpty, false},
	{"entitlement lacking", []change{scope(func(s *keygen.Scope) {
		s.Entitlements = &[]string{"A", "C"}
	})}, keygen.CodeEntitlementsMissing, false},
	{"entitlements", []change{scope(func(s *keygen.Scope) {
		s.Entitlements = &[]string{"A", "B"}
	})}, keygen.CodeValid, true},
	{"no machines", []change{none, fingerprint}, keygen.CodeNoMachines, false},
	{"no machine", []change{none, fingerprint, attributes(func(a *keygen.Attributes) {
		a.Floating = false
	})}, keygen.CodeNoMachine, false},
	{"no machines, and nobody asked", []change{none}, keygen.CodeValid, true},
	{"strict wants a machine", []change{none, strict}, keygen.CodeNoMachines, false},
	{"machine", []change{scope(func(s *keygen.Scope) {
		s.Machine = new("m9")
	})}, keygen.CodeMachineMismatch, false},
	{"machine wanted", []change{policy(func(p *keygen.Policy) {
		p.RequireMachineScope = true
	})}, keygen.CodeMachineRequired, false},
	{"heartbeat not started", []change{scope(func(s *keygen.Scope) {
		s.Machine = new("m1")
	}), attributes(func(a *keygen.Attributes) {
		a.RequireHeartbeat = true
	})}, keygen.CodeHeartbeatNotStarted, false},
	{"heartbeat not required", []change{scope(func(s *keygen.Scope) {
		s.Machine = new("m1")
	})}, keygen.CodeValid, true},
	{"machine dead", []change{scope(func(s *keygen.Scope) {
		s.Machine = new("m1")
	}), machine(func(m *keygen.Machine) { m.Life = keygen.Dead })}, keygen.CodeHeartbeatDead, false},
	{"fingerprint dead", []change{fingerprint, machine(func(m *keygen.Machine) {
		m.Life = keygen.Dead
	})}, keygen.CodeHeartbeatDead, false},
	{"fingerprint resurrected", []change{fingerprint, machine(func(m *keygen.Machine) {
		m.Life = keygen.Resurrected
	})}, keygen.CodeValid, true},
	{"no fingerprint", []change{fingerprints()}, keygen.CodeFingerprintEmpty, false},
	{"fingerprint wanted", []change{policy(func(p *keygen.Policy) {
		p.RequireFingerprint = true
	})}, keygen.CodeFingerprintRequired, false},
	{"fingerprint", []change{scope(func(s *keygen.Scope) {
		s.Fingerprint = new("f9")
	})}, keygen.CodeFingerprintMismatch, false},
	{"any of the fingerprints", []change{fingerprints("f1", "f8", "f9")}, keygen.CodeValid, true},
	{"two of the fingerprints", []change{fingerprints("f1", "f8", "f9"), matching("MATCH_TWO", "")},
		keygen.CodeFingerprintMismatch, false},
	{"most of the fingerprints is half of an even number",
		[]change{fingerprints("f1", "f2", "f8", "f9"), matching("MATCH_MOST", "")}, keygen.CodeValid, true},
	{"all of the fingerprints", []change{fingerprints("f1", "f2", "f9"), matching("MATCH_ALL", "")},
		keygen.CodeFingerprintMismatch, false},
	{"one fingerprint needs one match", []change{fingerprints("f1"), matching("MATCH_TWO", "")}, keygen.CodeValid,
		true},
	{"no components", []change{fingerprint, components()}, keygen.CodeComponentsEmpty, false},
	{"components without their machine", []change{components("c1")}, keygen.CodeFingerprintRequired, false},
	{"components wanted", []change{fingerprint, policy(func(p *keygen.Policy) {
		p.RequireComponentsScope = true
	})}, keygen.CodeComponentsRequired, false},
	{"components", []change{fingerprint, components("c9")}, keygen.CodeComponentsMismatch, false},
	{"two components where one is given", []change{fingerprint, components("c1"), matching("", "MATCH_TWO")},
		keygen.CodeComponentsMismatch, false},
	{"most components", []change{fingerprint, components("c1", "c2", "c9"), matching("", "MATCH_MOST")},
		keygen.CodeValid, true},
	{"checksum", []change{scope(func(s *keygen.Scope) {
		s.Checksum = new("other")
	})}, keygen.CodeChecksumMismatch, false},
	{"checksum wanted", []change{policy(func(p *keygen.Policy) {
		p.RequireChecksumScope = true
	})}, keygen.CodeChecksumRequired, false},
	{"version", []change{scope(func(s *keygen.Scope) {
		s.Version = new("9.9")
	})}, keygen.CodeVersionMismatch, false},
	{"version wanted", []change{policy(func(p *keygen.Policy) {
		p.RequireVersionScope = true
	})}, keygen.CodeVersionRequired, false},
	{"users, strict or not", []change{attributes(func(a *keygen.Attributes) {
		a.MaxUsers = new(int64(0))
	})}, keygen.CodeTooManyUsers, false},
	{"machines, not strict", []change{attributes(func(a *keygen.Attributes) {
		a.MaxMachines = new(int64(1))
	})}, keygen.CodeValid, true},
	{"machines", []change{strict, attributes(func(a *keygen.Attributes) {
		a.MaxMachines = new(int64(1))
	})}, keygen.CodeTooManyMachines, false},
	{"machines within the overage",
		[]change{strict, overage("ALLOW_2X_OVERAGE"), attributes(func(a *keygen.Attributes) {
			a.MaxMachines = new(int64(1))
		})}, keygen.CodeTooManyMachines, true},
	{"machines within the overage hide the expiry",
		[]change{strict, expired, overage("ALWAYS_ALLOW_OVERAGE"), attributes(func(a *keygen.Attributes) {
			a.MaxMachines = new(int64(1))
		})}, keygen.CodeTooManyMachines, true},
	{"machines of each user", []change{strict, policy(func(p *keygen.Policy) {
		p.MachineLeasing = "PER_USER"
	}), attributes(func(a *keygen.Attributes) { a.MaxMachines = new(int64(1)) })}, keygen.CodeValid, true},
	{"cores", []change{strict, attributes(func(a *keygen.Attributes) {
		a.MaxCores = new(int64(7))
	})}, keygen.CodeTooManyCores, false},
	{"cores within 1.25", []change{strict, overage("ALLOW_1_25X_OVERAGE"), attributes(func(a *keygen.Attributes) {
		a.MaxCores = new(int64(4))
	})}, keygen.CodeTooManyCores, false},
	{"cores within 1.5", []change{strict, overage("ALLOW_1_5X_OVERAGE"), attributes(func(a *keygen.Attributes) {
		a.MaxCores = new(int64(6))
	})}, keygen.CodeTooManyCores, true},
	{"memory", []change{strict, attributes(func(a *keygen.Attributes) {
		a.MaxMemory = new(int64(15))
	})}, keygen.CodeTooMuchMemory, false},
	{"disk", []change{strict, attributes(func(a *keygen.Attributes) {
		a.MaxDisk = new(int64(31))
	})}, keygen.CodeTooMuchDisk, false},
	{"processes of a machine that nobody named", []change{strict, attributes(func(a *keygen.Attributes) {
		a.MaxProcesses = new(int64(1))
	})}, keygen.CodeValid, true},
	{"processes of the machine", []change{strict, fingerprint, attributes(func(a *keygen.Attributes) {
		a.MaxProcesses = new(int64(1))
	})}, keygen.CodeTooManyProcesses, false},
	{"processes of the licence", []change{strict, policy(func(p *keygen.Policy) {
		p.ProcessLeasing = "PER_LICENSE"
	}), attributes(func(a *keygen.Attributes) {
		a.MaxProcesses = new(int64(2))
	})}, keygen.CodeTooManyProcesses, false},
	{"processes of the user", []change{strict, policy(func(p *keygen.Policy) {
		p.ProcessLeasing = "PER_USER"
	}), attributes(func(a *keygen.Attributes) { a.MaxProcesses = new(int64(2)) })}, keygen.CodeValid, true},
	{"expired and strict", []change{strict, expired}, keygen.CodeExpired, false},
}

func TestValidate(t *testing.T) {
	seen := map[keygen.Code]bool{}
	for _, test := range validations {
		t.Run(test.name, func(t *testing.T) {
			s, asked := situation(), &keygen.Scope{}
			for _, c := range test.changes {
				c(s, asked)
			}
			got := keygen.Validate(s, asked)
			if got.Code != test.want || got.Valid != test.valid {
				t.Errorf("got %+v, want %s, %v", got, test.want, test.valid)
			}
			if got.Code.Detail() == "" {
				t.Errorf("%s has no sentence", got.Code)
			}
			seen[got.Code] = true
		})
	}
	if n := len(keygen.Codes()); n != 38 {
		t.Errorf("there are %d codes, and Keygen has 38", n)
	}
	for _, c := range keygen.Codes() {
		if !seen[c] {
			t.Errorf("no row comes to %s", c)
		}
	}
}

// A quick validation has no scope, and needs none.
func TestQuickValidation(t *testing.T) {
	s := situation()
	s.Object.Policy = keygen.Policy{RequireProductScope: true, RequireMachineScope: true, RequireFingerprint: true,
		RequireUserScope: true}
	if got := keygen.Validate(s, nil); got.Code != keygen.CodeValid || !got.Valid {
		t.Errorf("got %+v", got)
	}
	if !slices.Contains(keygen.Codes(), keygen.CodeValid) {
		t.Error("VALID is no code")
	}
}
