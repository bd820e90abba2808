package elastic_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/elastic"
)

// vectors reads a file of test data.
func vectors(t testing.TB, name string, into any) {
	t.Helper()
	if err := json.Unmarshal(file(t, name), into); err != nil {
		t.Fatal(err)
	}
}

func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// anchors returns the anchors of Elastic's test keys.
func anchors(t testing.TB) (out []plugin.Anchor) {
	t.Helper()
	var keys map[string]struct {
		DER string `json:"spki_der_base64"`
	}
	vectors(t, "keys.json", &keys)
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		a, err := elastic.NewAnchor(name, []byte(keys[name].DER), "")
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

type vectorCase struct {
	Name, File, Kind, Key, Signature, Tier, Semantic, Container string
	BlobVersion                                                 int32  `json:"blob_version"`
	Content                                                     string `json:"signed_content"`
	Validity                                                    struct {
		NotBefore int64 `json:"not_before_millis"`
		Expires   int64 `json:"expires_millis"`
	}
	States []struct {
		At    int64 `json:"at_millis"`
		State string
	}
}

type vectorSet struct {
	Cases     []vectorCase
	Mutations []struct {
		Name, Base, Signature string
		Change                map[string]any
	}
	HostileBlobs []struct {
		Name, Base, Expect string
		Field              string `json:"signature_field"`
	} `json:"hostile_blobs"`
	ParseOnly []struct{ Name, File string } `json:"parse_only"`
}

func millis(n int64) time.Time { return time.UnixMilli(n).UTC() }

// Each published licence verifies over the very bytes that its signature covers, and is good from its beginning to
// before its end.
func TestVectors(t *testing.T) {
	var all vectorSet
	vectors(t, "cases.json", &all)
	trust := anchors(t)
	for _, c := range all.Cases {
		t.Run(c.Name, func(t *testing.T) {
			doc := file(t, c.File)
			if !(elastic.Format{}).Recognise(doc) {
				t.Error("it is not recognised")
			}
			l, p := elastic.Format{}.Verify(doc, trust)
			switch {
			case c.Signature == "invalid", c.Semantic == "rejected":
				if p == nil {
					t.Fatal("it verifies")
				}
				return
			case p != nil:
				t.Fatalf("%+v", p)
			}
			if got := elastic.SignedContent(t, doc, c.Kind, c.BlobVersion); got != c.Content {
				t.Errorf("signed:\n%s\nand not\n%s", got, c.Content)
			}
			if l.KeyID != c.Key || l.Terms["kind"] != c.Kind || l.Features["tier"].Text != c.Tier {
				t.Errorf("by key %q: %v, tier %+v", l.KeyID, l.Terms, l.Features["tier"])
			}
			if !l.NotBefore.Equal(millis(c.Validity.NotBefore)) || !l.Expires.Equal(millis(c.Validity.Expires)) {
				t.Errorf("good from %s to %s", l.NotBefore, l.Expires)
			}
			for _, s := range c.States {
				v := enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "a", License: l}}},
					millis(s.At))
				want := map[string]enforcer.Code{"not_yet_valid": enforcer.NotYetValid, "active": enforcer.Valid,
					"expired": enforcer.Expired}[s.State]
				if v.Code != want {
					t.Errorf("at %d it is %s, and not %s", s.At, v.Code, want)
				}
			}
		})
	}
}

// changed returns a licence file with members changed.
func changed(t *testing.T, name string, change map[string]any) []byte {
	t.Helper()
	var doc map[string]any
	d := json.NewDecoder(strings.NewReader(string(file(t, name))))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	in, ok := doc["license"].(map[string]any)
	if !ok {
		in = doc["licenses"].([]any)[0].(map[string]any)
	}
	for k, v := range change {
		if v == "__delete__" {
			delete(in, k)
			continue
		}
		in[k] = v
		if f, ok := v.(float64); ok {
			in[k] = int64(f)
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// One change of a published licence breaks it, or changes nothing that it grants.
func TestMutations(t *testing.T) {
	var all vectorSet
	vectors(t, "cases.json", &all)
	trust := anchors(t)
	for _, m := range all.Mutations {
		t.Run(m.Name, func(t *testing.T) {
			was, p := elastic.Format{}.Verify(file(t, m.Base), trust)
			if p != nil {
				t.Fatal(p)
			}
			is, p := elastic.Format{}.Verify(changed(t, m.Base, m.Change), trust)
			switch {
			case m.Signature == "invalid" && p == nil:
				t.Error("it verifies")
			case m.Signature == "invalid":
			case p != nil:
				t.Errorf("it does not verify: %+v", p)
			case !maps.Equal(is.Pools, was.Pools) || !maps.Equal(is.Features, was.Features) ||
				!is.Expires.Equal(was.Expires) || !is.NotBefore.Equal(was.NotBefore):
				t.Errorf("it grants %+v, and not %+v", is, was)
			}
		})
	}
}

// No signature, however it is broken, is believed or crashes.
func TestHostileSignatures(t *testing.T) {
	var all vectorSet
	vectors(t, "cases.json", &all)
	trust := anchors(t)
	for _, h := range all.HostileBlobs {
		t.Run(h.Name, func(t *testing.T) {
			_, p := elastic.Format{}.Verify(changed(t, h.Base, map[string]any{"signature": h.Field}), trust)
			// Of what the vendor's readers disagree on, the strict reading is taken but for bytes that follow.
			good := h.Expect == "valid" || h.Name == "trailing bytes"
			if good != (p == nil) {
				t.Errorf("%s: %+v", h.Expect, p)
			}
			if h.Name == "version six" && (p == nil || p.SystemCode != "NEWER") {
				t.Errorf("it is not called newer: %+v", p)
			}
			if h.Name == "fingerprint flipped" && (p == nil || !strings.HasPrefix(p.Reason, "issued for another key")) {
				t.Errorf("it does not say which key: %+v", p)
			}
		})
	}
	for _, c := range all.ParseOnly {
		if l, p := (elastic.Format{}).Verify(file(t, c.File), trust); l != nil || p == nil {
			t.Errorf("%s: %+v, %+v", c.Name, l, p)
		}
	}
}

// A string enters the signed bytes as each signer writes it.
func TestEscaping(t *testing.T) {
	var all struct {
		Strings []struct {
			Input  string `json:"input_utf8_hex"`
			Before string `json:"stack_before_surrogate_change"`
			After  string `json:"stack_after_surrogate_change"`
			Go     string `json:"go_encoder_no_html_escape"`
		}
	}
	vectors(t, "string-escaping.json", &all)
	if len(all.Strings) < 8 {
		t.Fatal("vectors are missing")
	}
	for _, s := range all.Strings {
		in, err := hex.DecodeString(s.Input)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{s.Before, s.After, s.Go} {
			if got := hex.EncodeToString(elastic.Escaped(i, string(in))); got != want {
				t.Errorf("%q by signer %d: %s, and not %s", in, i, got, want)
			}
		}
	}
}

// A licence that an Elasticsearch has made for itself is known for what it is, and grants nothing.
func TestSelfGenerated(t *testing.T) {
	var all struct {
		Cases []struct {
			Name    string
			Licence json.RawMessage
			Self    string `json:"self_generated"`
		}
	}
	vectors(t, "self-generated.json", &all)
	for _, c := range all.Cases {
		_, p := elastic.Format{}.Verify(c.Licence, anchors(t))
		want := enforcer.UntrustedKey
		if c.Self == "mismatch" {
			want = enforcer.BadSignature
		}
		if p == nil || p.Code != want || p.SystemCode != "SELF_GENERATED" {
			t.Errorf("%s: %+v", c.Name, p)
		}
	}
}

// A key that stands in the licence itself proves nothing: anybody may sign with one and put it there.
func TestOwnKeyProvesNothing(t *testing.T) {
	var doc struct{ Licenses []map[string]any }
	if err := json.Unmarshal(file(t, "licences/es-v1-gold.json"), &doc); err != nil {
		t.Fatal(err)
	}
	for _, a := range anchors(t) {
		if a.KeyID == "es-test" {
			continue
		}
		_, p := elastic.Format{}.Verify(file(t, "licences/es-v1-gold.json"), []plugin.Anchor{a})
		if p == nil || p.Code != enforcer.UntrustedKey || !strings.Contains(p.Reason, "0a39ff1ea1aec1a1") {
			t.Errorf("%+v: it must name the key it was issued for", p)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(doc.Licenses[0]["signature"].(string))
	if err != nil || len(raw) != 693 {
		t.Errorf("the sample is not one with a key in it: %d bytes, %v", len(raw), err)
	}
}
