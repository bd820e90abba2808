package plugin_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		"streams":                              "streams",
		"5c7f0d3e-9a1b-4c2d-8e3f-0a1b2c3d4e5f": "5c7f0d3e-9a1b-4c2d-8e3f-0a1b2c3d4e5f",
		"a\x1b[31mb\nc":                        "a?[31mb?c",
		"a\u202eb\u0085c":                      "a?b?c",
		"a\xffb":                               "a?b",
		strings.Repeat("x", 65):                strings.Repeat("x", 64) + "…",
		strings.Repeat("x", 63) + "é":          strings.Repeat("x", 63) + "…",
		strings.Repeat("\x80", 80):             strings.Repeat("?", 60) + "…",
	} {
		if got := plugin.Short(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzShort(f *testing.F) {
	f.Add("a\u202eb")
	f.Fuzz(func(t *testing.T, s string) {
		got := plugin.Short(s)
		if !utf8.ValidString(got) || len(got) > 64+len("…") || plugin.Short(got) != got && len(got) <= 64 {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}

func TestJSONFault(t *testing.T) {
	var into struct {
		Max  uint64                     `json:"max"`
		Name string                     `json:"name"`
		Deep map[string]struct{ N int } `json:"deep"`
	}
	for in, want := range map[string]string{
		`{"max":1,"max":2}`:            `it names "max" twice`,
		`{"max":"secret"}`:             `claim "max" must be a whole number, not a text`,
		`{"max":-1}`:                   `claim "max" must be a whole number, and not of this sign, size or precision`,
		`{"deep":{"a":{"N":[1]}}}`:     `claim "deep.a.N" must be a whole number, not a list`,
		`{"name":1}`:                   `claim "name" must be a text, not a number`,
		`{"min":1}`:                    `claim "min" is not known`,
		`{"max":1`:                     "it is not JSON, at byte 8",
		`["secret"]`:                   "it must be an object, not a list",
		`{"secret` + "\xff" + `":"x"}`: "it is not JSON, at byte 8",
	} {
		err := json.Unmarshal([]byte(in), &into, json.RejectUnknownMembers(true))
		if err == nil {
			t.Fatalf("%s: no error", in)
		}
		if got := plugin.JSONFault(err, "claim").Error(); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

// The key and its thumbprint are those of RFC 8037, appendix A.3.
func TestThumbprint(t *testing.T) {
	key, err := hex.DecodeString("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	if err != nil {
		t.Fatal(err)
	}
	got, err := plugin.Thumbprint(ed25519.PublicKey(key))
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, err := plugin.Thumbprint("no key"); err == nil {
		t.Error("a text has a thumbprint")
	}
}
