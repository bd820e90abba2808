package usher_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/usher-agent/usher/plugin/usher"
)

const (
	schemaFile = "../../docs/licence.schema.json"
	formatPage = "../../docs/licence-format.md"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	path, err := filepath.Abs(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jsonschema.NewCompiler().Compile(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// bySchema reports whether the schema takes a body, which must be JSON that any parser reads.
func bySchema(t *testing.T, s *jsonschema.Schema, body string) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return s.Validate(v)
}

// with makes a body of the three claims that must be, and others.
func with(more string) string {
	b := `{"jti":"a","product":"p","iat":1`
	if more != "" {
		b += "," + more
	}
	return b + "}"
}

// schemaCase is a body, and whether a vendor may write it.
type schemaCase struct {
	body string
	ok   bool
}

var thumb = strings.Repeat("a", 43)

// documentCases are of what a document is and what it does to others.
func documentCases() []schemaCase {
	return []schemaCase{
		{with(``), true},
		{`{}`, false},
		{`[]`, false},
		{`{"product":"p","iat":1}`, false},
		{`{"jti":"a","iat":1}`, false},
		{`{"jti":"a","product":"p"}`, false},
		{`{"jti":"","product":"p","iat":1}`, false},
		{`{"jti":"a","product":"","iat":1}`, false},
		{`{"jti":1,"product":"p","iat":1}`, false},
		{`{"jti":"a","product":"p","iat":0}`, false},
		{`{"jti":"a","product":"p","iat":-1}`, false},
		{`{"jti":"a","product":"p","iat":1.5}`, false},
		{`{"jti":"a","product":"p","iat":"2026-01-01"}`, false},
		{`{"jti":"a\u0007","product":"p","iat":1}`, false},
		{with(`"iss":"Acme","licensee":"Example Ltd – größer"`), true},
		{with(`"licensee":"two\nlines"`), false},
		{with(`"licensee":"` + strings.Repeat("x", 4096) + `"`), true},
		{with(`"licensee":"` + strings.Repeat("x", 4097) + `"`), false},
		{with(`"nbf":2,"exp":3`), true},
		{with(`"exp":0`), false},
		{with(`"exp":null`), false},
		{with(`"exp":253402300799`), true},
		{with(`"exp":253402300800`), false},
		{with(`"EXP":5`), false},
		{with(`"expires":5`), false},
		{with(`"x_order":{"any":[1,null]}`), true},
		{with(`"x":1`), false},
		{with(`"environment":"test"`), true},
		{with(`"environment":"staging"`), false},
		{with(`"role":"free-tier"`), true},
		{with(`"role":"addon"`), false},
		{with(`"role":"add-on","add_on_to":"b"`), true},
		{with(`"role":"base","add_on_to":"b"`), false},
		{with(`"add_on_to":"b"`), false},
		{with(`"role":"notice","revokes":["b","c"]`), true},
		{with(`"role":"notice"`), true},
		{with(`"revokes":["b"]`), false},
		{with(`"role":"notice","pools":{"streams":{"max":1}}`), false},
		{with(`"role":"notice","revokes":"b"`), false},
		{with(`"supersedes":["b","c"]`), true},
		{with(`"supersedes":"b"`), false},
		{with(`"supersedes":[` + strings.Repeat(`"b",`, 4096) + `"b"]`), false},
	}
}

// dutyCases are of duties, durations and clocks.
func dutyCases() []schemaCase {
	return []schemaCase{
		{with(`"check_in":{"every_months":3,"grace_seconds":5}`), true},
		{with(`"check_in":{"every_months":0}`), false},
		{with(`"check_in":{"every_months":1201}`), false},
		{with(`"check_in":{"every_months":1,"every_seconds":1}`), false},
		{with(`"check_in":{}`), false},
		{with(`"heartbeat":{"every_months":1}`), false},
		{with(`"activation":{}`), true},
		{with(`"activation":{"grace_seconds":86400}`), true},
		{with(`"activation":{"grace_seconds":-1}`), false},
		{with(`"report_usage":true`), true},
		{with(`"report_usage":"yes"`), false},
		{with(`"trial_seconds":5,"agent_keys":["` + thumb + `"]`), true},
		{with(`"trial_seconds":5,"cnf":{"jkt":"` + thumb + `"}`), true},
		{with(`"trial_seconds":5`), false},
		{with(`"trial_seconds":5,"agent_keys":[]`), false},
		{with(`"trial_seconds":0`), false},
		{with(`"clock_tolerance_seconds":0`), false},
		{with(`"agent_away_seconds":0`), false},
		{with(`"hosts":[]`), false},
		{with(`"versions":""`), false},
		{with(`"reset_clock":true,"cnf":{"jkt":"` + thumb + `"}`), true},
		{with(`"reset_clock":true`), false},
		{with(`"emergency":{"length_seconds":259200,"per_year":2}`), true},
		{with(`"emergency":{"length_seconds":259200}`), false},
		{with(`"emergency":{"length_seconds":0,"per_year":2}`), false},
		{with(`"emergency":{"length_seconds":1,"per_year":367}`), false},
		{with(`"heartbeat":{"every_seconds":600,"grace_seconds":60}`), true},
		{with(`"heartbeat":{"grace_seconds":60}`), false},
		{with(`"check_in":{"every_seconds":0}`), false},
		{with(`"check_in":{"every_seconds":3162240001}`), false},
		{with(`"check_in":{"every_seconds":1,"grace_seconds":-1}`), false},
		{with(`"grace_seconds":604800,"on_expiry":"revoke"`), true},
		{with(`"grace_seconds":-1`), false},
		{with(`"grace_seconds":"7d"`), false},
		{with(`"grace_seconds":3162240001`), false},
		{with(`"on_expiry":"kill"`), false},
		{with(`"clock":"strict","clock_tolerance_seconds":60`), true},
		{with(`"clock":"Strict"`), false},
		{with(`"clock_tolerance_seconds":-1`), false},
		{with(`"agent_away_seconds":60,"max_borrow_seconds":86400`), true},
		{with(`"agent_away_seconds":-1`), false},
		{with(`"max_borrow_seconds":true`), false},
	}
}

// termCases are of what a document grants.
func termCases() []schemaCase {
	return []schemaCase{
		{with(`"pools":{"streams":{"max":8,"unit":"stream","overage":2,"scope":"site","count_by":"user"}}`), true},
		{with(`"pools":{"streams":{"max":null}}`), true},
		{with(`"pools":{"streams":{"max":0}}`), true},
		{with(`"pools":{"streams":{}}`), false},
		{with(`"pools":{"streams":null}`), false},
		{with(`"pools":{"streams":8}`), false},
		{with(`"pools":null`), false},
		{with(`"pools":{"streams":{"max":8,"MAX":9}}`), false},
		{with(`"pools":{"streams":{"limit":8,"max":9}}`), false},
		{with(`"pools":{"streams":{"max":-1}}`), false},
		{with(`"pools":{"streams":{"max":1.5}}`), false},
		{with(`"pools":{"streams":{"max":"8"}}`), false},
		{with(`"pools":{"streams":{"max":9223372036854775}}`), true},
		{with(`"pools":{"streams":{"max":9223372036854776}}`), false},
		{with(`"pools":{"streams":{"max":8,"overage":-1}}`), false},
		{with(`"pools":{"streams":{"max":8,"scope":"world"}}`), false},
		{with(`"pools":{"streams":{"max":8,"count_by":"thread"}}`), false},
		{with(`"pools":{"streams":{"max":8,"count_by":"user+host/3"}}`), true},
		{with(`"pools":{"streams":{"max":8,"count_by":"pod+label:display"}}`), true},
		{with(`"pools":{"streams":{"max":8,"count_by":"lease/3"}}`), false},
		{with(`"pools":{"streams":{"max":8,"count_by":"user/0"}}`), false},
		{with(`"pools":{"streams":{"max":8,"count_by":"user+label:a/b"}}`), false},
		{with(`"pools":{"streams":{"max":8,"resets":"month"}}`), false},
		{with(`"pools":{"two words":{"max":8}}`), false},
		{with(`"pools":{"":{"max":8}}`), false},
		{with(`"pools":{"` + strings.Repeat("n", 64) + `":{"max":8}}`), true},
		{with(`"pools":{"` + strings.Repeat("n", 65) + `":{"max":8}}`), false},
		{with(`"meters":{"renders":{"max":1000,"resets":"month"}}`), true},
		{with(`"meters":{"renders":{"max":1000,"adjustable":true}}`), true},
		{with(`"meters":{"renders":{"max":1000,"adjustable":"yes"}}`), false},
		{with(`"meters":{"renders":{}}`), false},
		{with(`"meters":{"renders":{"max":1,"resets":"day"}}`), false},
		{with(`"meters":{"renders":{"max":1,"count_by":"user"}}`), false},
		{with(`"features":{"hd":true,"bitrate":{"value":50,"unit":"Mbit/s"},"tier":"gold","n":1.5}`), true},
		{with(`"features":{"hd":{"value":true}}`), true},
		{with(`"features":{"hd":null}`), false},
		{with(`"features":{"hd":[true]}`), false},
		{with(`"features":{"hd":{"unit":"x"}}`), false},
		{with(`"features":{"hd":{"value":true,"unit":"x"}}`), false},
		{with(`"features":{"hd":{"value":1,"per":"x"}}`), false},
		{with(`"features":{"hd":{"value":{"value":1}}}`), false},
		{with(`"features":{"h d":true}`), false},
		{with(`"versions":">=4 <6"`), true},
		{with(`"released_before":1800000000`), true},
		{with(`"released_before":null`), false},
	}
}

// bindingCases are of hosts, keys and cores.
func bindingCases() []schemaCase {
	return []schemaCase{
		{with(`"site_server":{"jkt":"` + strings.Repeat("A", 43) + `"}`), true},
		{with(`"site_server":{"jkt":"me"}`), false},
		{with(`"site_server":{}`), false},
		{with(`"hosts":[{"name":"encoder-1","components":{"machine_id":["00"]},"strategy":"two"}]`), true},
		{with(`"hosts":[{"components":{}}]`), false},
		{with(`"hosts":[{}]`), false},
		{with(`"hosts":[null]`), false},
		{with(`"hosts":[{"components":{"a":["b"]},"strategy":"half"}]`), false},
		{with(`"hosts":[{"components":{"a":"b"}}]`), false},
		{with(`"hosts":[{"components":{"a":["b"]},"Strategy":"any"}]`), false},
		{with(`"cnf":{"jkt":"` + thumb + `"}`), true},
		{with(`"cnf":{"jkt":"short"}`), false},
		{with(`"cnf":{}`), false},
		{with(`"agent_keys":["` + thumb + `"]`), true},
		{with(`"agent_keys":["` + thumb + `="]`), false},
		{with(`"cores":{"max":16,"count":"logical"}`), true},
		{with(`"cores":{"max":0}`), false},
		{with(`"cores":{"count":"logical"}`), false},
		{with(`"cores":{"max":16,"count":"hyper"}`), false},
	}
}

// Schema and parser agree on what a vendor may write.
func TestSchemaAgrees(t *testing.T) {
	s := schema(t)
	for _, test := range slices.Concat(documentCases(), dutyCases(), termCases(), bindingCases()) {
		_, parse := usher.ParseClaims([]byte(test.body), true)
		schema := bySchema(t, s, test.body)
		if (parse == nil) != test.ok {
			t.Errorf("%.120s\nParseClaims: %v", test.body, parse)
		}
		if (schema == nil) != test.ok {
			t.Errorf("%.120s\nschema: %v", test.body, schema)
		}
	}
}

// The parser refuses these, and no schema can; the page names each under "What the schema cannot say".
func TestBeyondTheSchema(t *testing.T) {
	s := schema(t)
	for _, test := range []struct{ body, reason string }{
		{with(`"nbf":3,"exp":3`), "expires before it begins"},
		{with(`"pools":{"a":{"max":1}},"meters":{"a":{"max":1}}`), "both a pool and a meter"},
		{with(`"versions":">=four"`), `claim "versions"`},
		{with(`"licensee":"` + strings.Repeat("é", 4096) + `"`), "8192 bytes"},
		{with(`"exp":5.0`), `claim "exp"`},
		{with(`"exp":1e3`), `claim "exp"`},
	} {
		if err := bySchema(t, s, test.body); err != nil {
			t.Errorf("%.80s: the schema can say it after all: %v", test.body, err)
		}
		if _, err := usher.ParseClaims([]byte(test.body), true); err == nil ||
			!strings.Contains(err.Error(), test.reason) {
			t.Errorf("%.80s: got %v, want %q", test.body, err, test.reason)
		}
	}
	// Two of one name: a schema sees only what its JSON parser leaves of them.
	if _, err := usher.ParseClaims([]byte(with(`"exp":5,"exp":6`)), true); err == nil ||
		!strings.Contains(err.Error(), "twice") {
		t.Errorf("duplicate claim: %v", err)
	}
	// An empty text is read as an absent one, which vendors should not write.
	for _, name := range []string{"environment", "role", "on_expiry", "clock"} {
		body := with(`"` + name + `":""`)
		if _, err := usher.ParseClaims([]byte(body), true); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if bySchema(t, s, body) == nil {
			t.Errorf("%s: the schema takes it", body)
		}
	}
}

// A licence of a later version is read by an earlier one, but never as granting more for what it leaves out.
func TestUnknownIsPassedOver(t *testing.T) {
	for _, body := range []string{with(`"later":1`), with(`"pools":{"s":{"max":1,"later":2}}`),
		with(`"cores":{"max":1,"later":[]}`)} {
		if _, err := usher.ParseClaims([]byte(body), false); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if _, err := usher.ParseClaims([]byte(body), true); err == nil || !strings.Contains(err.Error(), "later") {
			t.Errorf("%s: strict says %v", body, err)
		}
	}
	for _, body := range []string{with(`"pools":{"s":{"maximum":1}}`), with(`"pools":{"s":{"Max":1}}`),
		with(`"meters":{"s":null}`), with(`"exp":null`), with(`"exp":0`)} {
		if c, err := usher.ParseClaims([]byte(body), false); err == nil {
			t.Errorf("%s: read as %+v", body, c)
		}
	}
}

// Every claim has a property in the schema and a row or a section on the page, and the other way round.
func TestClaimsAreDocumented(t *testing.T) {
	names := usher.ClaimNames()
	slices.Sort(names)
	var file struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal([]byte(read(t, schemaFile)), &file); err != nil {
		t.Fatal(err)
	}
	var inSchema []string
	for name := range file.Properties {
		inSchema = append(inSchema, name)
	}
	slices.Sort(inSchema)
	if !slices.Equal(inSchema, names) {
		t.Errorf("the schema has %q, the code %q", inSchema, names)
	}
	_, claims, ok := strings.Cut(read(t, formatPage), "\n## Claims\n")
	if !ok {
		t.Fatal("the page has no section Claims")
	}
	claims, _, _ = strings.Cut(claims, "\n## ")
	var onPage []string
	inTable := false // in a table of claims, not of a claim's members
	for line := range strings.Lines(claims) {
		inTable = strings.HasPrefix(line, "| claim |") || inTable && strings.HasPrefix(line, "|")
		if m := regexp.MustCompile("^\\| `([a-z_]+)` \\|").FindStringSubmatch(line); inTable && m != nil {
			onPage = append(onPage, m[1])
		}
	}
	slices.Sort(onPage)
	if !slices.Equal(onPage, names) {
		t.Errorf("the page has %q, the code %q", onPage, names)
	}
}

// Every example of claims on the page is one, for parser and schema, and every member of the schema is on the page.
func TestPageExamples(t *testing.T) {
	s, page, examples := schema(t), read(t, formatPage), 0
	for _, m := range regexp.MustCompile("(?s)```json\n(\\{\n.*?\n\\})\n```").FindAllStringSubmatch(page, -1) {
		examples++
		if _, err := usher.ParseClaims([]byte(m[1]), true); err != nil {
			t.Error(err)
		}
		if err := bySchema(t, s, m[1]); err != nil {
			t.Error(err)
		}
	}
	if examples == 0 {
		t.Error("no example")
	}
	var file struct {
		Defs map[string]struct {
			Properties map[string]json.RawMessage `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(read(t, schemaFile)), &file); err != nil {
		t.Fatal(err)
	}
	for def, d := range file.Defs {
		for name := range d.Properties {
			if !bytes.Contains([]byte(page), []byte("`"+name+"`")) {
				t.Errorf("member %s of %s is not on the page", name, def)
			}
		}
	}
}
