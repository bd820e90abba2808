package keygen_test

import (
	"slices"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen"
)

// ranks are faults of a licence or a scope in the order in which Keygen's server looks for them. Each leaves the others
// as they are.
var ranks = []struct {
	code   keygen.Code
	change change
}{
	{keygen.CodeBanned, attributes(func(a *keygen.Attributes) { a.Status = "BANNED" })},
	{keygen.CodeSuspended, attributes(func(a *keygen.Attributes) { a.Suspended = true })},
	{keygen.CodeOverdue, finding(enforcer.Overdue)},
	{"ENVIRONMENT_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Environment = new("sandbox") })},
	{"PRODUCT_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Product = new("q") })},
	{"POLICY_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Policy = new("q") })},
	{"USER_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.User = new("nobody") })},
	{"ENTITLEMENTS_MISSING", scope(func(s *keygen.Scope) { s.Entitlements = &[]string{"A", "Z"} })},
	{"MACHINE_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Machine = new("m9") })},
	{"FINGERPRINT_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Fingerprint = new("f9") })},
	{"CHECKSUM_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Checksum = new("other") })},
	{"VERSION_SCOPE_MISMATCH", scope(func(s *keygen.Scope) { s.Version = new("9.9") })},
	{"TOO_MANY_USERS", attributes(func(a *keygen.Attributes) { a.MaxUsers = new(int64(0)) })},
	{"TOO_MANY_MACHINES", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxMachines = true, new(int64(1)) })},
	{"TOO_MANY_CORES", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxCores = true, new(int64(1)) })},
	{"TOO_MUCH_MEMORY", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxMemory = true, new(int64(1)) })},
	{"TOO_MUCH_DISK", attributes(func(a *keygen.Attributes) { a.Strict, a.MaxDisk = true, new(int64(1)) })},
	{"TOO_MANY_PROCESSES", func(s *keygen.Situation, _ *keygen.Scope) {
		s.Object.Attributes.Strict, s.Object.Attributes.MaxProcesses = true, new(int64(1))
		s.Object.Policy.ProcessLeasing = "PER_LICENSE"
	}},
	{keygen.CodeExpired, expired},
}

// needMachines are the faults that the server looks for only where there are machines.
var needMachines = []keygen.Code{"MACHINE_SCOPE_MISMATCH", "FINGERPRINT_SCOPE_MISMATCH", "TOO_MANY_MACHINES",
	"TOO_MANY_CORES", "TOO_MUCH_MEMORY", "TOO_MUCH_DISK", "TOO_MANY_PROCESSES", keygen.CodeExpired}

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
	for i, first := range ranks {
		if got := judge(first.change); got.Code != first.code || got.Valid {
			t.Errorf("%s alone: %+v", first.code, got)
		}
		for _, second := range ranks[i+1:] {
			for _, both := range [][]change{{first.change, second.change}, {second.change, first.change}} {
				if got := judge(both...); got.Code != first.code || got.Valid {
					t.Errorf("%s and %s: %+v", first.code, second.code, got)
				}
			}
		}
		want := keygen.CodeExpired
		if i < 2 {
			want = first.code
		}
		if got := judge(first.change, expired, strategy("REVOKE_ACCESS")); got.Code != want || got.Valid {
			t.Errorf("%s and expired under REVOKE_ACCESS: %+v", first.code, got)
		}
		want = first.code
		if slices.Contains(needMachines, want) {
			want = keygen.CodeNoMachines
		}
		none := func(s *keygen.Situation, _ *keygen.Scope) { s.Machines = nil }
		if got := judge(first.change, strict, none); got.Code != want || got.Valid {
			t.Errorf("%s, strict and without machines: %+v, want %s", first.code, got, want)
		}
	}
}
