package keygen_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen"
)

// suiteRow is a situation of Keygen's own validation suite; see testdata/README.md.
type suiteRow struct {
	Source                   string
	License                  bool
	Attributes               keygen.Attributes
	Policy                   keygen.Policy
	Product, PolicyID, Owner string
	Users, Entitlements      []string
	UserCount                int64
	Machines                 []keygen.Machine
	Overdue, Quick           bool
	Scope                    json.RawMessage
	Want                     keygen.Result
}

// situation returns the situation and the scope of a row.
func (r *suiteRow) situation(t testing.TB) (*keygen.Situation, *keygen.Scope) {
	t.Helper()
	s := &keygen.Situation{Now: time.Date(2026, 11, 28, 17, 49, 12, 0, time.UTC), Product: r.Product,
		PolicyID: r.PolicyID, Owner: r.Owner, Users: r.Users, UserCount: r.UserCount, Entitlements: r.Entitlements,
		Machines: r.Machines}
	if r.License {
		s.Object = &keygen.Object{ID: "l", Attributes: r.Attributes, Policy: r.Policy}
	}
	if r.Overdue {
		s.Findings = []enforcer.Finding{{Code: enforcer.Overdue}}
	}
	if r.Quick {
		return s, nil
	}
	scope := &keygen.Scope{}
	if len(r.Scope) > 0 && string(r.Scope) != "null" {
		if err := json.Unmarshal(r.Scope, scope); err != nil {
			t.Fatal(err)
		}
	}
	return s, scope
}

func suite(t testing.TB) (rows []suiteRow) {
	t.Helper()
	b, err := os.ReadFile("testdata/situations/validations.json")
	if err == nil {
		err = json.Unmarshal(b, &rows)
	}
	if err != nil || len(rows) < 190 {
		t.Fatalf("%d situations: %v", len(rows), err)
	}
	return rows
}

// Every situation of Keygen's own validation suite has the code and the validity that the suite states.
func TestSituations(t *testing.T) {
	for i, r := range suite(t) {
		t.Run(fmt.Sprintf("%d %s", i, r.Source), func(t *testing.T) {
			s, scope := r.situation(t)
			if got := keygen.Validate(s, scope); got != r.Want {
				t.Errorf("%s: got %+v, want %+v", r.Scope, got, r.Want)
			}
		})
	}
}

// What a scope names twice, in another order, or by address instead of id, changes no result.
func TestScopesCountEachNameOnce(t *testing.T) {
	for _, r := range suite(t) {
		s, scope := r.situation(t)
		if scope == nil {
			continue
		}
		for _, list := range []**[]string{&scope.Fingerprints, &scope.Components, &scope.Entitlements} {
			if *list == nil {
				continue
			}
			again := append(slices.Clone(**list), **list...)
			slices.Reverse(again)
			*list = &again
		}
		if got := keygen.Validate(s, scope); got != r.Want {
			t.Errorf("%s %s named twice: got %+v, want %+v", r.Source, r.Scope, got, r.Want)
		}
		if scope.User == nil {
			continue
		}
		var ids, addresses []string
		for _, u := range r.Users {
			if strings.Contains(u, "@") {
				addresses = append(addresses, u)
			} else {
				ids = append(ids, u)
			}
		}
		for i, id := range ids {
			if *scope.User == id || *scope.User == addresses[i] {
				for _, name := range []string{id, addresses[i]} {
					scope.User = &name
					if got := keygen.Validate(s, scope); got != r.Want {
						t.Errorf("%s: user %s: got %+v, want %+v", r.Source, name, got, r.Want)
					}
				}
				break
			}
		}
	}
}

// A fault of a list of scopes: null is a value for some members, and no name in a list.
func TestNullScopes(t *testing.T) {
	for text, want := range map[string]struct {
		change func(*keygen.Situation)
		code   keygen.Code
	}{
		`{"user":null}`:        {func(s *keygen.Situation) { s.Owner = "" }, keygen.CodeValid},
		`{"user":null} `:       {func(s *keygen.Situation) {}, keygen.CodeUserMismatch},
		`{"environment":null}`: {func(s *keygen.Situation) { s.Environment = "" }, keygen.CodeValid},
		`{"environment":null} `: {func(s *keygen.Situation) {},
			keygen.CodeEnvironmentMismatch},
		`{"environment":"prod"}`: {func(s *keygen.Situation) {}, keygen.CodeValid},
		`{"environment":"live"}`: {func(s *keygen.Situation) { s.EnvironmentCode = "live" }, keygen.CodeValid},
		`{"product":null}`:       {func(s *keygen.Situation) {}, keygen.CodeProductMismatch},
		`{"machine":null}`:       {func(s *keygen.Situation) {}, keygen.CodeMachineMismatch},
		`{"fingerprints":[null]}`: {func(s *keygen.Situation) {},
			keygen.CodeFingerprintEmpty},
		`{"fingerprint":null,"fingerprints":["f1"]}`: {func(s *keygen.Situation) {}, keygen.CodeValid},
		`{"fingerprint":"f1","fingerprints":["f9"]}`: {func(s *keygen.Situation) {}, keygen.CodeValid},
		`{"fingerprint":"f1","components":[null,"c1"]}`: {func(s *keygen.Situation) {},
			keygen.CodeValid},
	} {
		s, scope := situation(), &keygen.Scope{}
		if err := json.Unmarshal([]byte(text), scope); err != nil {
			t.Fatal(err)
		}
		want.change(s)
		if got, detail := keygen.Explain(s, scope); got.Code != want.code || detail == "" {
			t.Errorf("%s: %+v %q, want %s", text, got, detail, want.code)
		}
	}
}

// Several fingerprints: one machine without its heartbeat, or with too many processes, suffices for a refusal, and a
// machine's own limit counts.
func TestSeveralMachines(t *testing.T) {
	s := situation()
	s.Object.Attributes.RequireHeartbeat = true
	s.Machines[0].Life = keygen.Alive
	both := &keygen.Scope{Fingerprints: &[]string{"f1", "f2"}}
	if got := keygen.Validate(s, both); got.Code != keygen.CodeHeartbeatNotStarted {
		t.Errorf("one has not started: %+v", got)
	}
	s = situation()
	s.Object.Attributes.Strict, s.Object.Attributes.MaxProcesses = true, new(int64(2))
	if got := keygen.Validate(s, both); got.Code != keygen.CodeValid {
		t.Errorf("within the limit: %+v", got)
	}
	s.Machines[1].MaxProcesses = new(int64(0))
	if got := keygen.Validate(s, both); got.Code != keygen.CodeTooManyProcesses {
		t.Errorf("above the machine's own limit: %+v", got)
	}
	s = situation()
	s.Object.Attributes.Floating, s.Object.Attributes.Strict = false, true
	if got := keygen.Validate(s, &keygen.Scope{}); got.Code != keygen.CodeTooManyMachines {
		t.Errorf("a node-locked licence without a limit has two machines: %+v", got)
	}
}
