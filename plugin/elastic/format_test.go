package elastic_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/elastic"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// issued is when the licences of these tests were issued.
var issued = time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)

func anchor(t testing.TB, s elastictest.Signer, schemes ...string) plugin.Anchor {
	t.Helper()
	a, err := elastic.NewAnchor("test", s.PEM(), "")
	if err == nil {
		err = elastic.NameSchemes(&a, schemes)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func verify(t testing.TB, doc []byte, schemes ...string) (*enforcer.License, *enforcer.Problem) {
	t.Helper()
	return elastic.Format{}.Verify(doc, []plugin.Anchor{anchor(t, elastictest.Shared(), schemes...)})
}

func good(t testing.TB, doc []byte) *enforcer.License {
	t.Helper()
	l, p := verify(t, doc)
	if p != nil {
		t.Fatalf("%+v", p)
	}
	return l
}

// The format keeps what every format keeps.
func TestFormatKeepsThePromises(t *testing.T) {
	s := elastictest.Shared()
	plugintest.Format(t, elastic.Format{}, plugintest.FormatSamples{
		Good: [][]byte{
			file(t, "licences/es-v1-gold.json"), file(t, "licences/es-v5-enterprise.json"),
			file(t, "licences/eck-v3-enterprise.json"), file(t, "licences/eck-v4-enterprise-external.json"),
			s.Orchestration(elastictest.License{UID: "o", Issued: issued, Units: 7}),
			s.Stack(elastictest.License{UID: "s", Type: "platinum", Issued: issued, Nodes: 3}),
		},
		Anchors: append(anchors(t), anchor(t, s)),
		Statement: []byte(`{"uid": "s", "type": "enterprise", "issue_date_in_millis": 1775044800000,
			"expiry_date_in_millis": 1877636800000, "max_nodes": null, "max_resource_units": 7, "issued_to": "Lab",
			"issuer": "API", "start_date_in_millis": 1775048400000}`),
		Sign: func(statement []byte) ([]byte, error) { return s.Signed(5, statement) },
		Foreign: [][]byte{
			[]byte(`{"license": "AAAA"}`), []byte(`{"license": {"id": "x"}}`), []byte(`{"uid": "x"}`),
		},
		Broken: [][]byte{
			file(t, "licences/es-v2-gold-truncated-signature.json"), file(t, "licences/eck-parse-wrong-type.json"),
			[]byte(`{"license":{"uid":"x"}}`), []byte(`{"license":{"uid":"x","type":"gold","signature":"AAAA"`),
			[]byte(`{"licenses":[]}`), []byte(`{"licenses":[{"uid":"x"},5]}`),
		},
	})
}

// What a licence says becomes pools, features and dates.
func TestLicense(t *testing.T) {
	s := elastictest.Shared()
	at := func(day int) time.Time { return issued.AddDate(0, 0, day) }
	for _, c := range []struct {
		name      string
		doc       []byte
		pool      string
		max       enforcer.Limit
		tier      string
		notBefore time.Time
		role      enforcer.Role
	}{
		{"units", s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 100}),
			"resource_units", 100, "enterprise", issued, enforcer.RoleBase},
		{"instances", s.Orchestration(elastictest.License{UID: "a", Issued: issued, Instances: 23}),
			"instances", 23, "enterprise", issued, enforcer.RoleBase},
		{"units before instances", s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 2,
			Instances: 23}), "resource_units", 2, "enterprise", issued, enforcer.RoleBase},
		{"start of an orchestration licence", s.Orchestration(elastictest.License{UID: "a", Issued: issued,
			Starts: at(-9), Units: 1}), "resource_units", 1, "enterprise", at(-9), enforcer.RoleBase},
		{"trial", s.Orchestration(elastictest.License{UID: "a", Type: "enterprise_trial", Issued: issued, Units: 1}),
			"resource_units", 1, "trial", issued, enforcer.RoleBase},
		{"nodes", s.Stack(elastictest.License{UID: "a", Type: "silver", Issued: issued, Nodes: 3}),
			"nodes", 3, "gold", issued, enforcer.RoleBase},
		{"stack enterprise", s.Stack(elastictest.License{UID: "a", Type: "enterprise", Issued: issued, Units: 9}),
			"resource_units", 9, "enterprise", issued, enforcer.RoleBase},
		{"start of a stack licence", s.Stack(elastictest.License{UID: "a", Type: "platinum", Issued: issued,
			Starts: at(9), Nodes: 3}), "nodes", 3, "platinum", at(9), enforcer.RoleBase},
		{"basic", s.Stack(elastictest.License{UID: "a", Type: "basic", Issued: issued, Nodes: 3}),
			"nodes", 3, "basic", issued, enforcer.RoleFree},
	} {
		l := good(t, c.doc)
		want := enforcer.PoolTerm{Max: c.max, Scope: enforcer.ScopeHost, Unit: l.Pools[c.pool].Unit,
			Quantum: map[string]int64{"resource_units": 65536, "instances": 32768}[c.pool]}
		if len(l.Pools) != 1 || l.Pools[c.pool] != want {
			t.Errorf("%s: pools %+v", c.name, l.Pools)
		}
		if l.Features["tier"].Text != c.tier || !l.NotBefore.Equal(c.notBefore) || l.Role != c.role ||
			l.Licensee != "Acme & Sons <test>" || l.ID != "a" || !l.Expires.Equal(at(30)) {
			t.Errorf("%s: %+v", c.name, l)
		}
		for tier, on := range map[string]bool{"basic": true, "platinum": c.tier != "basic" && c.tier != "gold",
			"enterprise": c.tier == "enterprise" || c.tier == "trial"} {
			if l.Features[tier].Bool != on {
				t.Errorf("%s: feature %s is %+v", c.name, tier, l.Features[tier])
			}
		}
	}
}

// What no signature covers is shown apart, and raises nothing.
func TestUnsignedMembersRaiseNothing(t *testing.T) {
	s := elastictest.Shared()
	plain := elastictest.License{UID: "a", Issued: issued, Instances: 5}
	more := plain
	more.Unsigned = map[string]any{"version": 4, "subscription_type": "platinum", "operation_mode": "production",
		"max_allocators": 9999, "max_ram_per_allocator_mb": 999999, "max_nodes": 777, "hello": 1, "status": "active"}
	was, is := good(t, s.Orchestration(plain)), good(t, s.Orchestration(more))
	if !reflect.DeepEqual(was.Pools, is.Pools) || !reflect.DeepEqual(was.Features, is.Features) {
		t.Errorf("%+v is granted, and not %+v", is, was)
	}
	unsigned := is.Terms["unsigned"].(map[string]any)
	if unsigned["subscription_type"] != "platinum" || unsigned["operation_mode"] != "production" ||
		unsigned["max_allocators"] != 9999.0 || unsigned["max_nodes"] != 777.0 || unsigned["hello"] != nil {
		t.Errorf("shown: %v", is.Terms)
	}
}

// Each cluster licence stands on its own signature, and gives nothing to the whole.
func TestClusterLicenses(t *testing.T) {
	s := elastictest.Shared()
	inner := s.Stack(elastictest.License{UID: "in", Type: "gold", Issued: issued, Nodes: 9})
	forged := bytes.Replace(inner, []byte(`"max_nodes":9`), []byte(`"max_nodes":99`), 1)
	l := good(t, s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 5,
		Unsigned: map[string]any{"cluster_licenses": []json.RawMessage{inner, forged,
			elastictest.New().Stack(elastictest.License{UID: "x", Type: "gold", Issued: issued, Nodes: 9}),
			json.RawMessage(`{"license": 5}`)}}}))
	list := l.Terms["unsigned"].(map[string]any)["cluster_licenses"].([]any)
	var says []string
	for _, c := range list {
		says = append(says, fmt.Sprint(c.(map[string]any)["signature"]))
	}
	if len(says) != 4 || says[0] != "good" || !strings.Contains(says[1], "not good") ||
		!strings.Contains(says[2], "issued for another key") || says[3] == "good" || len(l.Pools) != 1 {
		t.Errorf("%q, pools %+v", says, l.Pools)
	}
}

// A licence that cannot be verified, or that Elastic's own products refuse, is refused with the reason.
func TestRefusals(t *testing.T) {
	s := elastictest.Shared()
	o := func(change ...string) []byte {
		doc := s.Orchestration(elastictest.License{UID: "a", Issued: issued, Units: 5})
		return []byte(strings.NewReplacer(change...).Replace(string(doc)))
	}
	sign := func(version int32, members ...any) []byte {
		sig := s.Blob(version, nil, elastictest.Content(members...))
		return append(append([]byte(`{"license":`),
			elastictest.Content(append(members, "signature", sig)...)...), '}')
	}
	old := []any{"uid", "a", "type", "enterprise", "issue_date_in_millis", issued.UnixMilli(),
		"start_date_in_millis", issued.UnixMilli(), "expiry_date_in_millis", issued.AddDate(1, 0, 0).UnixMilli(),
		"max_allocators", 3, "max_ram_per_allocator_mb", 1024, "issued_to", "x", "issuer", "y"}
	for _, c := range []struct {
		name string
		doc  []byte
		code enforcer.Code
		says string
	}{
		{"version 1 or 2 of ECE", sign(2, old...), enforcer.Malformed, "orchestration licence of version 1 or 2"},
		{"allocators alone", sign(3, old...), enforcer.Malformed, "orchestration licence of version 1 or 2"},
		{"an unknown type", s.Stack(elastictest.License{UID: "a", Type: "diamond", Issued: issued, Nodes: 1}),
			enforcer.Malformed, "its type is none that is known"},
		{"old enterprise", file(t, "licences/es-v4-enterprise-legacy.json"), enforcer.UntrustedKey, "another key"},
		{"a member twice", o(`"type"`, `"uid":"b","type"`), enforcer.Malformed, "names a member twice"},
		{"no uid", o(`"uid"`, `"Uid"`), enforcer.Malformed, "has no uid"},
		{"no end", o(`"expiry_date_in_millis"`, `"expiry"`), enforcer.Malformed, "has no expiry_date_in_millis"},
		{"units in fractions", o(`:5,`, `:5.5,`), enforcer.Malformed, "max_resource_units is no whole number"},
		{"negative units", o(`:5,`, `:-5,`), enforcer.Malformed, "max_resource_units is negative"},
		{"a date before 1970", o(`_date_in_millis":1`, `_date_in_millis":-1`), enforcer.Malformed, "before 1970"},
		{"text that is no UTF-8", o(`Acme`, "Acm\xe9"), enforcer.Malformed, "no whole JSON document"},
		{"something behind it", append(o(), "{}"...), enforcer.Malformed, "no whole JSON document"},
	} {
		if l, p := verify(t, c.doc); p == nil || p.Code != c.code || !strings.Contains(p.Reason, c.says) {
			t.Errorf("%s: %+v, %+v", c.name, l, p)
		}
	}
	if _, p := (elastic.Format{}).Verify(file(t, "licences/es-v4-enterprise-legacy.json"), anchors(t)); p == nil ||
		p.SystemCode != "ENTERPRISE_BEFORE_V5" {
		t.Errorf("an enterprise licence of version 4: %+v", p)
	}
	if _, p := verify(t, o(), elastic.KindStack); p == nil || p.Code != enforcer.UntrustedKey ||
		!strings.Contains(p.Reason, "not in trust for orchestration") {
		t.Errorf("a key that is for the other kind: %+v", p)
	}
	if _, p := (elastic.Format{}).Verify(o(), nil); p == nil || p.SystemCode != "NO_KEY" {
		t.Errorf("without a key: %+v", p)
	}
}

// Of several licences in one document the latest issued counts.
func TestLicenseList(t *testing.T) {
	s := elastictest.Shared()
	one := func(uid string, day int) json.RawMessage {
		var doc struct{ License json.RawMessage }
		if err := json.Unmarshal(s.Stack(elastictest.License{UID: uid, Type: "gold",
			Issued: issued.AddDate(0, 0, day), Nodes: 1}), &doc); err != nil {
			t.Fatal(err)
		}
		return doc.License
	}
	doc, err := json.Marshal(map[string]any{"licenses": []json.RawMessage{one("a", 0), one("b", 2), one("c", 1)}})
	if err != nil {
		t.Fatal(err)
	}
	if l := good(t, doc); l.ID != "b" {
		t.Errorf("it is %s that counts", l.ID)
	}
}

// A public key is read in each form that Elastic's products and people have it in.
func TestAnchor(t *testing.T) {
	s := elastictest.Shared()
	want := anchor(t, s).Key
	for name, key := range map[string][]byte{"DER": s.DER(), "PEM": s.PEM(),
		"base64": []byte(base64.StdEncoding.EncodeToString(s.DER()) + "\n")} {
		if a, err := elastic.NewAnchor("k", key, "RS512"); err != nil || !reflect.DeepEqual(a.Key, want) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for name, key := range map[string][]byte{"nothing": nil, "text": []byte("no key"), "half": s.DER()[:99]} {
		if _, err := elastic.NewAnchor("k", key, ""); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	if _, err := elastic.NewAnchor("k", s.DER(), "RS256"); err == nil {
		t.Error("another algorithm is taken")
	}
	a := anchor(t, s)
	if err := elastic.NameSchemes(&a, []string{"cluster"}); err == nil {
		t.Error("an unknown scheme is taken")
	}
}

// No document crashes the format, and what verifies is what was signed.
func FuzzVerify(f *testing.F) {
	trust := anchors(f)
	for _, name := range []string{"es-v1-gold", "es-v5-enterprise", "eck-v3-enterprise", "eck-v4-enterprise-external",
		"eck-parse-nested-unsigned", "es-v3-gold-nostart"} {
		f.Add(file(f, "licences/"+name+".json"))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		elastic.Format{}.Recognise(doc)
		l, p := elastic.Format{}.Verify(doc, trust)
		if (l == nil) == (p == nil) &&
			(p == nil || p.Code != enforcer.BadSignature && p.Code != enforcer.UntrustedKey) {
			t.Fatalf("%+v, %+v", l, p)
		}
		if l != nil {
			if err := l.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// No signature crashes its reader, and none makes it read beyond its end.
func FuzzSignature(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x20"))
	f.Add([]byte("\xff\xff\xff\xfb\x00\x00\x00\x10aaaaaaaaaaaaaaaa"))
	f.Add([]byte("\x00\x00\x00\x01\xff\xff\xff\xff"))
	trust := anchors(f)
	f.Fuzz(func(t *testing.T, blob []byte) {
		doc := fmt.Appendf(nil,
			`{"license":{"uid":"a","type":"gold","issue_date_in_millis":1,"expiry_date_in_millis":2,`+
				`"max_nodes":1,"issued_to":"x","issuer":"y","signature":%q}}`, base64.StdEncoding.EncodeToString(blob))
		if _, p := (elastic.Format{}).Verify(doc, trust); p == nil {
			t.Fatal("it verifies")
		}
	})
}
