package keygen_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen"
)

// rank is a fault of a licence or a scope.
type rank struct {
	code   keygen.Code
	change change
	// about are the parts of the situation that it changes. Two faults that share one are not judged together; any
	// other two leave each other as they are.
	about    []string
	machines bool // the server looks for it only where there are machines
}

func about(parts ...string) []string { return parts }

func demand(f func(*keygen.Policy) *bool) change {
	return policy(func(p *keygen.Policy) { *f(p) = true })
}

// ofMachine names m1, and changes it.
func ofMachine(f func(*keygen.Situation, *keygen.Machine)) change {
	return func(s *keygen.Situation, c *keygen.Scope) {
		c.Machine = new("m1")
		f(s, &s.Machines[0])
	}
}

// ofFingerprint names m2 by its fingerprint, and changes it.
func ofFingerprint(f func(*keygen.Situation, *keygen.Machine)) change {
	return func(s *keygen.Situation, c *keygen.Scope) {
		c.Fingerprint = new("f2")
		f(s, &s.Machines[1])
	}
}

// ofComponents names components of the machine f1, or of the one that another fault names.
func ofComponents(strategy string, names ...string) change {
	return func(s *keygen.Situation, c *keygen.Scope) {
		if c.Fingerprint == nil {
			c.Fingerprint = new("f1")
		}
		s.Object.Policy.ComponentMatching, c.Components = strategy, &names
	}
}

// several names fingerprints, of which too few match.
func several(strategy string, names ...string) change {
	return func(s *keygen.Situation, c *keygen.Scope) {
		s.Object.Policy.MachineMatching, c.Fingerprints = strategy, &names
	}
}

func otherUser(s *keygen.Situation, c *keygen.Scope) {
	s.Users, c.User = append([]string{"u2"}, s.Users...), new("u2")
}

// ranks are the faults in the order in which Keygen's server looks for them.
var ranks = []rank{
	{keygen.CodeBanned, attributes(func(a *keygen.Attributes) { a.Status = "BANNED" }), nil, false},
	{keygen.CodeSuspended, attributes(func(a *keygen.Attributes) { a.Suspended = true }), nil, false},
	{keygen.CodeOverdue, finding(enforcer.Overdue), nil, false},
	{"ENVIRONMENT_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Environment = new("PROD") }), about("env"), false},
	{"ENVIRONMENT_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireEnvironment }), about("env"),
		false},
	{"PRODUCT_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Product = new("q") }), about("product"), false},
	{"PRODUCT_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireProductScope }),
		about("product"), false},
	{"POLICY_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Policy = new("q") }), about("policy"), false},
	{"POLICY_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequirePolicyScope }), about("policy"),
		false},
	{"USER_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.User = new("nobody") }), about("user"), false},
	{"USER_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.User = new("b@example.com") }), about("user"), false},
	{"USER_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireUserScope }), about("user"), false},
	{"ENTITLEMENTS_SCOPE_EMPTY", scope(func(s *keygen.Scope) { s.Entitlements = &[]string{} }),
		about("entitlements"), false},
	{"ENTITLEMENTS_MISSING", scope(func(s *keygen.Scope) { s.Entitlements = &[]string{"A", "Z"} }),
		about("entitlements"), false},
	{"MACHINE_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Machine = new("m9") }), about("machine"), true},
	{"USER_SCOPE_MISMATCH", func(s *keygen.Situation, c *keygen.Scope) {
		otherUser(s, c)
		c.Machine = new("m1")
	}, about("machine", "user", "owner"), true},
	{keygen.CodeHeartbeatNotStarted, ofMachine(func(s *keygen.Situation, _ *keygen.Machine) {
		s.Object.Attributes.RequireHeartbeat = true
	}), about("machine", "owner"), true},
	{keygen.CodeHeartbeatDead, ofMachine(func(_ *keygen.Situation, m *keygen.Machine) { m.Life = keygen.Dead }),
		about("machine", "owner", "components"), true},
	{"MACHINE_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireMachineScope }),
		about("machine"), false},
	{"FINGERPRINT_SCOPE_EMPTY", fingerprints(), about("fingerprint", "components", "leasing"), false},
	{keygen.CodeHeartbeatDead, ofFingerprint(func(_ *keygen.Situation, m *keygen.Machine) { m.Life = keygen.Dead }),
		about("fingerprint", "owner"), true},
	{"FINGERPRINT_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Fingerprint = new("f9") }), about("fingerprint"),
		true},
	{"FINGERPRINT_SCOPE_MISMATCH", several("MATCH_ANY", "f8", "f9", "f8"),
		about("fingerprint", "components", "leasing"), true},
	{"FINGERPRINT_SCOPE_MISMATCH", several("MATCH_TWO", "f1", "f1", "f9"),
		about("fingerprint", "components", "leasing"), true},
	{"FINGERPRINT_SCOPE_MISMATCH", several("MATCH_MOST", "f1", "f8", "f9"),
		about("fingerprint", "components", "leasing"), true},
	{"FINGERPRINT_SCOPE_MISMATCH", several("MATCH_ALL", "f1", "f2", "f9", "f2"),
		about("fingerprint", "components", "leasing"), true},
	{"USER_SCOPE_MISMATCH", func(s *keygen.Situation, c *keygen.Scope) {
		otherUser(s, c)
		s.Machines[1].Owner, c.Fingerprint = "u1", new("f2")
	}, about("fingerprint", "user", "owner"), true},
	{keygen.CodeHeartbeatNotStarted, ofFingerprint(func(s *keygen.Situation, _ *keygen.Machine) {
		s.Object.Attributes.RequireHeartbeat = true
	}), about("fingerprint", "owner"), true},
	{"FINGERPRINT_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireFingerprint }),
		about("fingerprint", "components", "leasing"), false},
	{"FINGERPRINT_SCOPE_REQUIRED", components("c1"), about("fingerprint", "components", "leasing"), false},
	{"COMPONENTS_SCOPE_EMPTY", ofComponents(""), about("components"), true},
	{"COMPONENTS_SCOPE_MISMATCH", ofComponents("MATCH_ANY", "c9", "c9"), about("components"), true},
	{"COMPONENTS_SCOPE_MISMATCH", ofComponents("MATCH_TWO", "c1", "c1"), about("components"), true},
	{"COMPONENTS_SCOPE_MISMATCH", ofComponents("MATCH_MOST", "c1", "c8", "c9", "c1"), about("components"), true},
	{"COMPONENTS_SCOPE_MISMATCH", ofComponents("MATCH_ALL", "c1", "c2", "c9"), about("components"), true},
	{"COMPONENTS_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireComponentsScope }),
		about("components"), false},
	{"CHECKSUM_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Checksum = new("other") }), about("checksum"), false},
	{"CHECKSUM_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireChecksumScope }),
		about("checksum"), false},
	{"VERSION_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Version = new("9.9") }), about("version"), false},
	{"VERSION_SCOPE_REQUIRED", demand(func(p *keygen.Policy) *bool { return &p.RequireVersionScope }),
		about("version"), false},
	{"TOO_MANY_USERS", attributes(func(a *keygen.Attributes) { a.MaxUsers = new(int64(0)) }), nil, false},
	{"TOO_MANY_MACHINES", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxMachines = true, new(int64(1)) }), nil,
		true},
	{"TOO_MANY_CORES", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxCores = true, new(int64(1)) }), nil,
		true},
	{"TOO_MUCH_MEMORY", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxMemory = true, new(int64(1)) }), nil,
		true},
	{"TOO_MUCH_DISK", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxDisk = true, new(int64(1)) }), nil, true},
	{"TOO_MANY_PROCESSES", func(s *keygen.Situation, _ *keygen.Scope) {
		s.Object.Attributes.Strict, s.Object.Attributes.MaxProcesses = true, new(int64(1))
		s.Object.Policy.ProcessLeasing = "PER_LICENSE"
	}, about("processes"), true},
	{"TOO_MANY_PROCESSES", func(s *keygen.Situation, c *keygen.Scope) {
		s.Object.Attributes.Strict, s.Object.Attributes.MaxProcesses = true, new(int64(1))
		if c.Fingerprint == nil {
			c.Fingerprint = new("f1")
		}
	}, about("processes", "leasing"), true},
	{keygen.CodeExpired, expired, nil, true},
}

// TestValidationOrder: of any two faults the one that the server looks for first is the answer, and neither is valid;
// with REVOKE_ACCESS the expiry comes right after a suspension. A strict licence without machines says so only after
// its scopes.
func TestValidationOrder(t *testing.T) {
	judge := func(changes ...change) keygen.Result {
		s, asked := situation(), &keygen.Scope{}
		for _, c := range changes {
			c(s, asked)
		}
		return keygen.Validate(s, asked)
	}
	pairs := 0
	for i, first := range ranks {
		if got := judge(first.change); got.Code != first.code || got.Valid {
			t.Errorf("%d %s alone: %+v", i, first.code, got)
		}
		for j, second := range ranks[i+1:] {
			if slices.ContainsFunc(first.about, func(a string) bool { return slices.Contains(second.about, a) }) {
				continue
			}
			pairs++
			for _, both := range [][]change{{first.change, second.change}, {second.change, first.change}} {
				if got := judge(both...); got.Code != first.code || got.Valid {
					t.Errorf("%d %s and %d %s: %+v", i, first.code, i+1+j, second.code, got)
				}
			}
		}
		want := keygen.CodeExpired
		if i < 2 {
			want = first.code
		}
		if got := judge(first.change, expired, strategy("REVOKE_ACCESS")); got.Code != want || got.Valid {
			t.Errorf("%d %s and expired under REVOKE_ACCESS: %+v", i, first.code, got)
		}
		want = first.code
		if first.machines {
			want = keygen.CodeNoMachines
		}
		if got := judge(first.change, strict, none); got.Code != want || got.Valid {
			t.Errorf("%d %s, strict and without machines: %+v, want %s", i, first.code, got, want)
		}
	}
	if pairs < 900 {
		t.Errorf("only %d pairs", pairs)
	}
}

// enough has how many of so many given names must match, by strategy. The server's majority of 2 is 1, and of 4 is 2.
var enough = map[string][]int{"": {1, 1, 1, 1, 1}, "MATCH_ANY": {1, 1, 1, 1, 1}, "MATCH_TWO": {2, 2, 2, 2, 2},
	"MATCH_MOST": {1, 1, 2, 2, 3}, "MATCH_ALL": {1, 2, 3, 4, 5}}

// Each strategy needs so many of the names given, however often each is named. One fingerprint needs one match whatever
// the strategy; components are held to it even where there is one. A machine counts unless it is dead.
func TestMatchingStrategies(t *testing.T) {
	for strategy, needs := range enough {
		for given := 1; given <= 5; given++ {
			for there := 0; there <= given; there++ {
				s := situation()
				s.Object.Policy.MachineMatching, s.Object.Policy.ComponentMatching = strategy, strategy
				s.Machines[0].Components = nil
				s.Machines = append(s.Machines, keygen.Machine{ID: "dead", Fingerprint: "m4", Life: keygen.Dead})
				var names, parts []string
				for i := range given {
					names, parts = append(names, fmt.Sprintf("m%d", i)), append(parts, fmt.Sprintf("p%d", i))
					if i < there {
						if i < 4 {
							s.Machines = append(s.Machines, keygen.Machine{ID: names[i], Fingerprint: names[i],
								Life: []keygen.Life{keygen.NotStarted, keygen.Alive, keygen.Resurrected}[i%3]})
						}
						s.Machines[0].Components = append(s.Machines[0].Components, parts[i])
					}
				}
				need, alive := needs[given-1], min(there, 4)
				if given == 1 {
					need = 1
				}
				twice := append(slices.Clone(names), names...)
				if got := keygen.Validate(s, &keygen.Scope{Fingerprints: &twice}); got.Valid != (alive >= need) {
					t.Errorf("%q: %d of %d fingerprints: %+v", strategy, alive, given, got)
				}
				twice = append(slices.Clone(parts), parts...)
				asked := &keygen.Scope{Fingerprint: new("f1"), Components: &twice}
				if got := keygen.Validate(s, asked); got.Valid != (there >= needs[given-1]) {
					t.Errorf("%q: %d of %d components: %+v", strategy, there, given, got)
				}
			}
		}
	}
}
