package redact_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/redact"
)

// Names of secrets and innocent names, in many spellings.
func TestNames(t *testing.T) {
	for _, name := range strings.Fields(
		`key keys Key KEY apiKey api_key api-key apikey APIKey APIKeys x_api_keys licenseKey license_key
		licenceKey licensekey accessKey access_key_id accessToken token tokens tokenValue authToken
		accesstoken refresh-token secret secrets Secret clientSecret client_secret clientsecret secretId
		password passwords Password passwordHash password_hash userPassword dbpassword passwd passphrase pwd
		db_pw credential credentials awsCredentials private privateKey private_key_pem privatekey privateData
		signing_key signingKey encryption.key secretary_password bearer jwt sessionCookie x-key key2 KEY_1
		license_key_number public_key_password pin PIN psk keyMaterial secret_key_id`) {
		if !redact.Member(name, "x") {
			t.Errorf("%s is taken to be innocent", name)
		}
	}
	for _, name := range strings.Fields(
		`keyboard monkey monkeys keynote turkey hockey keyed whiskey key_id keyId keyID keyIds kid key_type
		keyAlgorithm public_key publicKey pubkey_x agent_key agent_keys verification_key secretary
		secretariat tokenizer tokenise passenger passed compass bypass passive spinning pinned opinion
		authenticationStrategy note mail name maxMachines requireHeartbeat privately deprived accredited
		incredible pools features cnf jkt`) {
		if redact.Member(name, "x") {
			t.Errorf("%s is taken to be a secret's", name)
		}
	}
	// A number under a secret's name is hidden unless it counts something. true, false and null are never hidden.
	for name, hidden := range map[string]bool{"secret": true, "pin": true, "apiKey": true, "passwords": true,
		"pins": true, "max_keys": false, "maxTokens": false, "keyCount": false,
		"tokens": false, "api_keys": false, "tokens_per_minute": false, "password_min_length": false, "key_size": false,
		"note": false} {
		if redact.Member(name, 12345678.0) != hidden || redact.Member(name, json.Number("12345678")) != hidden {
			t.Errorf("a number under %s: hidden is %t", name, !hidden)
		}
		if redact.Member(name, true) || redact.Member(name, nil) {
			t.Errorf("true or null under %s is hidden", name)
		}
	}
	if !redact.Member("max_keys", "ABCD-1234") || !redact.Member("api_keys", []any{1.0}) {
		t.Error("what counts hides no texts")
	}
}

// Texts with a secret anywhere in them.
func TestTexts(t *testing.T) {
	jwt := "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
	pem := "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----"
	for in, want := range map[string]string{
		"bob@customer.example":                          "(hidden)",
		"Bob <bob@customer.example>":                    "Bob <(hidden)>",
		"ask bob.smith+x@mail.customer.example, now.":   "ask (hidden), now.",
		"mailto:bob@customer.example?subject=x":         "mailto:(hidden)?subject=x",
		"x_contact_carol@vendor.example":                "(hidden)",
		`"bob smith"@customer.example`:                  "(hidden)",
		"jürgen@münchen.example":                        "(hidden)",
		"bob＠customer.example":                          "(hidden)",
		"to=bob%40customer.example&x":                   "to=(hidden)&x",
		"bob [at] customer [dot] example":               "(hidden)",
		"bob(at)customer.example":                       "(hidden)",
		"bob@[192.0.2.1]":                               "(hidden)",
		"root@localhost":                                "(hidden)",
		"a@b.example;c@d.example":                       "(hidden);(hidden)",
		"token " + jwt + " end":                         "token (hidden) end",
		jwt[:40]:                                        "(hidden)",
		"x\n" + pem + "\ny":                             "x\n(hidden)\ny",
		pem[:40]:                                        "(hidden)",
		"key/eyJhY2NvdW50Ijp7fX0=.c2lnbmF0dXJlc2lnbmF0": "(hidden)",
		"postgres://app:hunter2@db.example/x":           "postgres://(hidden)@db.example/x",
		"https://v.example/?access_token=abc&n=1":       "https://v.example/?access_token=(hidden)&n=1",
		"DB_PASSWORD=hunter2 run":                       "DB_PASSWORD=(hidden) run",
		"Authorization: Bearer abcdefgh1234":            "Authorization: Bearer (hidden)",
		`{"apiKey":"x","n":1}`:                          `{"apiKey":"(hidden)","n":1}`,
		`[{"mail":"bob@customer.example"}]`:             `[{"mail":"(hidden)"}]`,
	} {
		if got := redact.Text(in); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
		if got := redact.Text(redact.Text(in)); got != want {
			t.Errorf("%q becomes %q when it is hidden twice", in, got)
		}
	}
	for _, plain := range []string{"", "streams", "the licence a.lic is good", "4 @ 2 GHz", "usher@", "@home",
		"usher@acme.service failed", "start acme-usher@a.b.socket",
		"sha256:abc@", "v1.2.3", "they.are", "obey the.rules", "key 2024-a", "{x}", "[1]", "a=b",
		"keyboard=yes", "max_keys=5", "https://docs.example/a.b", "/v1/licenses/1.2", "basic plan",
		"look at example.com", "`usher status`", "{\"n\":1.50}"} {
		if got := redact.Text(plain); got != plain {
			t.Errorf("%q becomes %q", plain, got)
		}
	}
}

func TestValues(t *testing.T) {
	in := map[string]any{
		"x_crm":                map[string]any{"key": map[string]any{"value": "S"}, "note": "n", "n": 7.0},
		"list":                 []any{map[string]any{"accessToken": "S"}, "bob@customer.example", true},
		"carol@vendor.example": true,
		"dave@vendor.example":  1.0,
		"settings": []any{map[string]any{"name": "dbPassword", "value": "S"},
			map[string]any{"name": "colour", "value": "red"}},
		"passwords": []any{"S", 1.0, nil},
		"private":   true,
		"max_keys":  3.0,
		"text":      json.RawMessage(`{"token":"S"}`),
		"typed":     map[string]string{"secret": "S", "kid": "k"},
	}
	before, _ := json.Marshal(in)
	got, _ := json.Marshal(redact.Value(in))
	want := `{"(hidden)":true,"(hidden) 2":1,"list":[{"accessToken":"(hidden)"},"(hidden)",true],"max_keys":3,` +
		`"passwords":"(hidden)","private":true,` +
		`"settings":[{"name":"dbPassword","value":"(hidden)"},{"name":"colour","value":"red"}],` +
		`"text":{"token":"(hidden)"},"typed":{"kid":"k","secret":"(hidden)"},` +
		`"x_crm":{"key":"(hidden)","n":7,"note":"n"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if after, _ := json.Marshal(in); string(after) != string(before) {
		t.Error("the value itself was changed")
	}
	if got := redact.Texts(
		map[string]any{"tokens": map[string]any{"links": "bob@customer.example"}}); !reflect.DeepEqual(got,
		map[string]any{"tokens": map[string]any{"links": "(hidden)"}}) {
		t.Errorf("texts alone: %v", got)
	}
}

type feature struct {
	Value any
	Unit  string
}

type shape struct {
	Name     string
	Token    string // of a type that is known: no secret by its name
	At       *time.Time
	Now      time.Time
	List     []shape
	Features map[string]feature
	Labels   map[string]string
	Limits   map[string]*int64
	Terms    map[string]any
}

func TestShapes(t *testing.T) {
	now, n := time.Now(), int64(3)
	in := shape{Name: "bob@customer.example", Token: "t", At: &now, Now: now, List: []shape{{Name: "c@d.example"}},
		Features: map[string]feature{"apiToken": {Value: "S"}, "hd": {Value: "4k"},
			"e@f.example": {Value: "g@h.example"}, "pin": {Value: 1234.0}, "secret-sauce": {Value: true}},
		Labels: map[string]string{"password": "S", "colour": "red"}, Limits: map[string]*int64{"tokens": &n},
		Terms: map[string]any{"key": "S"}}
	want := shape{Name: "(hidden)", Token: "t", At: &now, Now: now, List: []shape{{Name: "(hidden)"}},
		Features: map[string]feature{"apiToken": {Value: "(hidden)"}, "hd": {Value: "4k"},
			"(hidden)": {Value: "(hidden)"}, "pin": {Value: "(hidden)"}, "secret-sauce": {Value: true}},
		Labels: map[string]string{"password": "(hidden)", "colour": "red"}, Limits: map[string]*int64{"tokens": &n},
		Terms: map[string]any{"key": "(hidden)"}}
	if got := redact.Shape(in); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := redact.Shape[any](in); !reflect.DeepEqual(got, any(want)) || redact.Shape[any](nil) != nil {
		t.Errorf("as any value: got %+v", got)
	}
	if in.Name != "bob@customer.example" || in.Features["apiToken"].Value != "S" || in.Terms["key"] != "S" {
		t.Error("the shape itself was changed")
	}
}
