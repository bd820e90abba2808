package awslm_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
	"github.com/usher-agent/usher/plugin/plugintest"
)

var borrowedAt = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func payload(node string) map[string]any {
	return awstest.Payload(arn, "c-1", node, borrowedAt, borrowedAt.Add(24*time.Hour),
		map[string]string{"mac": "00:11"},
		awslm.EntitlementData{Name: "streams", Unit: "Count", Value: "3"},
		awslm.EntitlementData{Name: "hd", Unit: "None"},
		awslm.EntitlementData{Name: drawn, Unit: "Gigabytes", Value: "5"},
		awslm.EntitlementData{Name: "bandwidth", Unit: "Megabits/Second", Value: "100"})
}

var ps384 = map[string]any{"alg": "PS384", "typ": "JWT"}

func TestFormat(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := awstest.Sign(s.Key, ps384, payload(agentThumb))
	answer, err := json.Marshal(awslm.BorrowResponse{LicenseArn: arn, SignedToken: token})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(granted())
	if err != nil {
		t.Fatal(err)
	}
	statement, err := json.Marshal(payload(agentThumb))
	if err != nil {
		t.Fatal(err)
	}
	tampered := bytes.Replace(slices.Clone(s.doc), []byte("."), []byte(".A"), 1)
	plugintest.Format(t, awslm.Format{},
		plugintest.FormatSamples{Good: [][]byte{s.doc, []byte(token), answer, []byte("\xef\xbb\xbf" + token + "\r\n")},
			Anchors: []plugin.Anchor{sealedAnchor(t), sellerAnchor(t, s.Server, sku+"#2026")},
			Broken: [][]byte{raw, s.doc[:len(s.doc)/2], tampered, []byte(token[:100]), []byte(token + ".x"),
				[]byte(`{"SignedToken":"a.b.c"}`)},
			Foreign: [][]byte{[]byte("ACME1.a.b"), []byte(`{"license-manager":1}`)}, Statement: statement,
			Sign: func(statement []byte) ([]byte, error) {
				var p map[string]any
				err := json.Unmarshal(statement, &p)
				return []byte(awstest.Sign(s.Key, ps384, p)), err
			}})
}

func TestSealed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := sealedAnchor(t)
	l, p := awslm.Format{}.Verify(s.doc, []plugin.Anchor{a})
	if p != nil {
		t.Fatalf("%+v", p)
	}
	want := &enforcer.License{ID: arn, System: "awslm", Product: sku, Issuer: "AWS/Marketplace", Issued: s.Now(),
		KeyID: issuer, SystemCode: "AVAILABLE",
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Expires: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
		Pools: map[string]enforcer.PoolTerm{"streams": {Max: 8, Scope: enforcer.ScopeSite},
			"Named-Users-9aebbd": {Max: 2, Overage: 1_000_000, Scope: enforcer.ScopeSite}},
		Meters: map[string]enforcer.MeterTerm{"renders": {Max: 1000, Scope: enforcer.ScopeSite,
			Resets: enforcer.ResetsMonthly},
			drawn: {Max: 50, Scope: enforcer.ScopeSite, Resets: enforcer.ResetsMonthly, Unit: "Gigabytes"}},
		Features: map[string]enforcer.Value{"hd": {Kind: enforcer.KindBool, Bool: true},
			"tier":      {Kind: enforcer.KindText, Text: "gold"},
			"bandwidth": {Kind: enforcer.KindNumber, Number: 100, Unit: "Megabits/Second"},
			"load":      {Kind: enforcer.KindNumber, Number: 80, Unit: "Percent"}},
		CheckIn: enforcer.Period{Every: time.Hour, Grace: 36 * time.Hour}, Terms: l.Terms}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("got  %+v\nwant %+v", l, want)
	}
	if err := l.Validate(); err != nil {
		t.Error(err)
	}
	for _, k := range []string{"LicenseName", "HomeRegion", "LicenseMetadata", "ReceivedMetadata",
		"ConsumptionConfiguration", "Version"} {
		if l.Terms[k] == nil {
			t.Errorf("the terms have no %s", k)
		}
	}
	// An agent hands out no slot without a budget.
	v := enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: l}},
		Products: []string{sku}}, s.Now())
	if v.State != enforcer.StateValid || v.Pools["streams"].Budget != 0 || v.Pools["streams"].NotShared == "" ||
		!v.Features["hd"].Bool {
		t.Errorf("%+v", v)
	}

	t.Run("of another agent", func(t *testing.T) {
		pub, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		b := a
		b.Key = pub
		l, p := awslm.Format{}.Verify(s.doc, []plugin.Anchor{b})
		if p == nil || l == nil || p.Code != enforcer.UntrustedKey || !strings.Contains(p.Reason, "another agent") {
			t.Errorf("%+v", p)
		}
	})
	t.Run("of another issuer", func(t *testing.T) {
		b := a
		b.KeyID = "aws:111111111111:Else:issuer-fingerprint"
		if _, p := (awslm.Format{}).Verify(s.doc, []plugin.Anchor{b}); p == nil || p.Code != enforcer.UntrustedKey ||
			!strings.Contains(p.Reason, issuer) {
			t.Errorf("%+v", p)
		}
	})
	t.Run("nobody's key", func(t *testing.T) {
		b := a
		b.Key = nil
		if _, p := (awslm.Format{}).Verify(s.doc, []plugin.Anchor{b}); p == nil || p.Code != enforcer.UntrustedKey {
			t.Errorf("%+v", p)
		}
	})
	t.Run("by the seller's key", func(t *testing.T) { // one kind is never taken for the other
		forged := awstest.Sign(s.Key, map[string]any{"alg": "PS384", "typ": "awslm-license+jwt"},
			map[string]any{"asked": borrowedAt, "license": granted()})
		if l, p := (awslm.Format{}).Verify([]byte(forged), []plugin.Anchor{a, sellerAnchor(t, s.Server, sku)}); p ==
			nil {
			t.Errorf("%+v", l)
		}
	})
}

// during is an instant within a borrow.
var during = borrowedAt.Add(time.Hour)

func judged(l *enforcer.License, agent string, host map[string][]string, now time.Time) *enforcer.Verdict {
	return enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: l}},
		Products: []string{sku}, AgentKey: agent, Host: enforcer.Host{Components: host}}, now)
}

func TestBorrowed(t *testing.T) {
	t.Parallel()
	s := awstest.New(t, borrowedAt)
	a := sellerAnchor(t, s, sku+"#2026")
	good := awstest.Sign(s.Key, ps384, payload(agentThumb))
	l, p := awslm.Format{}.Verify([]byte(good), []plugin.Anchor{sellerOther(t), a})
	if p != nil {
		t.Fatalf("%+v", p)
	}
	want := &enforcer.License{ID: arn, System: "awslm", Product: sku, Issued: borrowedAt, NotBefore: borrowedAt,
		Expires: borrowedAt.Add(24 * time.Hour), KeyID: sku + "#2026",
		AgentKeys: []string{agentThumb}, Terms: l.Terms,
		Pools:  map[string]enforcer.PoolTerm{"streams": {Max: 3, Scope: enforcer.ScopeHost}},
		Meters: map[string]enforcer.MeterTerm{drawn: {Max: 5, Scope: enforcer.ScopeHost, Unit: "Gigabytes"}},
		Features: map[string]enforcer.Value{"hd": {Kind: enforcer.KindBool, Bool: true},
			"bandwidth": {Kind: enforcer.KindNumber, Number: 100, Unit: "Megabits/Second"}}}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("got  %+v\nwant %+v", l, want)
	}
	if c, _ := l.Terms["checkoutMetadata"].(map[string]any); c["mac"] != "00:11" {
		t.Errorf("the terms have no metadata: %v", l.Terms)
	}
	if v := judged(l, agentThumb, nil, during); v.Code != enforcer.Valid || v.Pools["streams"].Budget != 3 {
		t.Errorf("on its node: %s, %+v", v.Code, v.Pools)
	}
	if v := judged(l, "another", nil, during); v.Code != enforcer.AgentKeyMismatch {
		t.Errorf("on another node: %s", v.Code)
	}
	if v := judged(l, agentThumb, nil, borrowedAt.Add(24*time.Hour)); v.Code != enforcer.Expired {
		t.Errorf("when it is over: %s", v.Code)
	}
}

func TestBorrowedBinding(t *testing.T) {
	t.Parallel()
	s := awstest.New(t, borrowedAt)
	a := sellerAnchor(t, s, sku+"#2026")
	t.Run("node id", func(t *testing.T) {
		l, p := awslm.Format{}.Verify([]byte(awstest.Sign(s.Key, ps384, payload("Node-7"))), []plugin.Anchor{a})
		if p != nil {
			t.Fatal(p.Reason)
		}
		// As docs/fingerprint.md has it: HMAC-SHA-256(product, "usher-fingerprint/1" NUL "node-id" NUL "node-7").
		m := hmac.New(sha256.New, []byte(sku))
		m.Write([]byte("usher-fingerprint/1\x00node-id\x00node-7"))
		here := map[string][]string{"node-id": {hex.EncodeToString(m.Sum(nil))}}
		if v := judged(l, "any", here, during); v.Code != enforcer.Valid || v.Pools["streams"].Budget != 3 {
			t.Errorf("on its node: %s, %+v", v.Code, v.Pools)
		}
		if v := judged(l, "any", map[string][]string{"node-id": {"00"}}, during); v.Code !=
			enforcer.FingerprintMismatch {
			t.Errorf("on another node: %s", v.Code)
		}
	})
	t.Run("of another product", func(t *testing.T) {
		m := payload(agentThumb)
		m["checkoutMetadata"] = map[string]string{awslm.ProductKey: "prod-else"}
		l, p := awslm.Format{}.Verify([]byte(awstest.Sign(s.Key, ps384, m)), []plugin.Anchor{a})
		if p != nil || l.Product != "prod-else" {
			t.Errorf("%+v %+v", l, p)
		}
	})
}

func TestBorrowedRefused(t *testing.T) {
	t.Parallel()
	s := awstest.New(t, borrowedAt)
	a := sellerAnchor(t, s, sku+"#2026")
	good := awstest.Sign(s.Key, ps384, payload(agentThumb))
	with := func(name string, value any) map[string]any {
		m := maps.Clone(payload(agentThumb))
		if m[name] = value; value == nil {
			delete(m, name)
		}
		return m
	}
	one := func(e map[string]any) any { return []any{e} }
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	for name, row := range map[string]struct {
		doc  string
		code enforcer.Code
		says string
	}{
		"alg none":           {none + "." + rest, enforcer.Malformed, "PS384"},
		"alg none, unsigned": {none + "." + strings.Split(rest, ".")[0] + ".", enforcer.Malformed, "PS384"},
		"alg RS384": {awstest.Sign(s.Key, map[string]any{"alg": "RS384"}, payload(agentThumb)),
			enforcer.Malformed, "PS384"},
		"alg PS256": {awstest.Sign(s.Key, map[string]any{"alg": "PS256"}, payload(agentThumb)),
			enforcer.Malformed, "PS384"},
		"alg HS256": {awstest.Sign(s.Key, map[string]any{"alg": "HS256"}, payload(agentThumb)),
			enforcer.Malformed, "PS384"},
		"no alg": {awstest.Sign(s.Key, map[string]any{}, payload(agentThumb)), enforcer.Malformed,
			"PS384"},
		"crit": {awstest.Sign(s.Key, map[string]any{"alg": "PS384", "crit": []string{"x"}},
			payload(agentThumb)), enforcer.Malformed, "crit"},
		"a salt of 32": {awstest.SignSalted(s.Key, ps384, payload(agentThumb), 32), enforcer.BadSignature,
			"signature"},
		"a salt of 0": {awstest.SignSalted(s.Key, ps384, payload(agentThumb), 0), enforcer.BadSignature,
			"signature"},
		"the longest salt": {awstest.SignSalted(s.Key, ps384, payload(agentThumb), rsa.PSSSaltLengthAuto),
			enforcer.BadSignature, "signature"},
		"another key": {awstest.Sign(weak, ps384, payload(agentThumb)), enforcer.BadSignature,
			"another seller"},
		"no node": {awstest.Sign(s.Key, ps384, with("nodeId", "")), enforcer.Malformed,
			"bound to no node"},
		"no expiry": {awstest.Sign(s.Key, ps384, with("expiration", nil)), enforcer.Malformed,
			"when it expires"},
		"expiry before issue": {awstest.Sign(s.Key, ps384, with("expiration", "2026-05-01T11:00:00")),
			enforcer.Malformed, "before it was issued"},
		"expiry that is none": {awstest.Sign(s.Key, ps384, with("expiration", "soon")), enforcer.Malformed,
			"expiration"},
		"expiry that is a date": {awstest.Sign(s.Key, ps384, with("expiration", 1777636800)), enforcer.Malformed,
			"not a number"},
		"no licence": {awstest.Sign(s.Key, ps384, with("licenseArn", "l-1")), enforcer.Malformed, "licenseArn"},
		"no entitlements": {awstest.Sign(s.Key, ps384, with("entitlementsAllowed", []any{})), enforcer.Malformed,
			"no entitlement"},
		"a negative value": {awstest.Sign(s.Key, ps384, with("entitlementsAllowed",
			one(map[string]any{"name": "a", "unit": "Count", "value": "-1"}))), enforcer.Malformed, "value"},
		"an exponent": {awstest.Sign(s.Key, ps384, with("entitlementsAllowed",
			one(map[string]any{"name": "a", "unit": "Count", "value": "1e9"}))), enforcer.Malformed, "value"},
		"too large a value": {awstest.Sign(s.Key, ps384, with("entitlementsAllowed",
			one(map[string]any{"name": "a", "unit": "Count", "value": "9223372036854775808"}))), enforcer.Malformed,
			"too large"},
		"twice the same": {awstest.Sign(s.Key, ps384, with("entitlementsAllowed",
			[]any{map[string]any{"name": "a", "unit": "None"}, map[string]any{"name": "a", "unit": "None"}})),
			enforcer.Malformed, "names it twice"},
	} {
		l, p := awslm.Format{}.Verify([]byte(row.doc), []plugin.Anchor{a})
		if p == nil || p.Code != row.code || !strings.Contains(p.Reason, row.says) {
			t.Errorf("%s: %+v %+v", name, p, l)
		}
	}
}

// sellerKey signs where there is no server.
var sellerKey = func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}()

func sellerOther(t *testing.T) plugin.Anchor {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return plugin.Anchor{System: awslm.System, KeyID: "other", Algorithm: awslm.AlgorithmPS384, Key: &k.PublicKey}
}

// A token or sealed licence with any byte changed is refused.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	anchors := []plugin.Anchor{sealedAnchor(t), sellerAnchor(t, s.Server, sku)}
	for name, doc := range map[string][]byte{"token": []byte(awstest.Sign(s.Key, ps384, payload(agentThumb))),
		"sealed": bytes.TrimSpace(s.doc)} {
		if _, p := (awslm.Format{}).Verify(doc, anchors); p != nil {
			t.Fatalf("%s: %+v", name, p)
		}
		for i := range doc {
			for _, flip := range []byte{0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80} {
				changed := slices.Clone(doc)
				changed[i] ^= flip
				if _, p := (awslm.Format{}).Verify(changed, anchors); p == nil {
					t.Fatalf("%s: byte %d changed by %#x, it verifies", name, i, flip)
				}
			}
		}
	}
}

func TestAnchors(t *testing.T) {
	t.Parallel()
	s := awstest.New(t, borrowedAt)
	token := []byte(awstest.Sign(s.Key, ps384, payload(agentThumb)))
	for name, change := range map[string]func(*plugin.Anchor){
		"revoked":       func(a *plugin.Anchor) { a.Revoked = true },
		"later":         func(a *plugin.Anchor) { a.NotBefore = borrowedAt.Add(time.Hour) },
		"earlier":       func(a *plugin.Anchor) { a.NotAfter = borrowedAt.Add(-time.Hour) },
		"of usher":      func(a *plugin.Anchor) { a.System = "usher" },
		"for the seals": func(a *plugin.Anchor) { a.Algorithm = awslm.AlgorithmSealed },
	} {
		a := sellerAnchor(t, s, sku)
		change(&a)
		if l, p := (awslm.Format{}).Verify(token, []plugin.Anchor{a}); p == nil || p.Code != enforcer.UntrustedKey {
			t.Errorf("%s: %+v %+v", name, l, p)
		}
	}
	for name, row := range map[string]struct{ kid, key, alg string }{
		"no fingerprint":        {"prod", "", awslm.AlgorithmSealed},
		"a key with a seal":     {issuer, "x", awslm.AlgorithmSealed},
		"no key":                {sku, "", ""},
		"no key in it":          {sku, "AAAA", ""},
		"another algorithm":     {sku, "AAAA", "RS256"},
		"no id":                 {"", "AAAA", ""},
		"an id of two lines":    {"a\nb", "AAAA", ""},
		"a fingerprint of none": {"aws:1:x:issuer-fingerprint", "", ""},
	} {
		if a, err := awslm.NewAnchor(row.kid, []byte(row.key), row.alg); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if a, err := awslm.NewAnchor(issuer, nil, ""); err != nil || a.Algorithm != awslm.AlgorithmSealed || a.Key != nil {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestTermName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 70)
	seen := map[string]string{}
	for _, name := range []string{"streams", drawn, "AWS::Marketplace::Usage", "Named Users", "Named-Users",
		"Named_Users", " x", "/x", "x", "…", "", long, long + "b"} {
		got := awslm.TermName(name)
		if was, ok := seen[got]; ok {
			t.Errorf("%q and %q are both called %s", was, name, got)
		}
		seen[got] = name
		l := &enforcer.License{ID: "a", System: "awslm", Product: "p",
			Features: map[string]enforcer.Value{got: {Kind: enforcer.KindBool}}}
		if err := l.Validate(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, same := range []string{"streams", drawn, "Named-Users"} {
		if got := awslm.TermName(same); got != same {
			t.Errorf("%s is called %s", same, got)
		}
	}
}

func FuzzVerify(f *testing.F) {
	said, err := json.Marshal(granted())
	if err != nil {
		f.Fatal(err)
	}
	doc, err := awslm.Seal(agentKey, said, borrowedAt)
	if err != nil {
		f.Fatal(err)
	}
	s := &awstest.Server{Key: sellerKey}
	anchors := []plugin.Anchor{sealedAnchor(f), sellerAnchor(f, s, sku)}
	f.Add(doc)
	f.Add([]byte(awstest.Sign(s.Key, ps384, payload(agentThumb))))
	f.Add([]byte(`{"License":{"LicenseArn":"` + arn +
		`","ProductSKU":"a","Issuer":{"KeyFingerprint":"b"},"Entitlements":[{"Name":"a","Unit":"Count",` +
		`"MaxCount":-1}]}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		l, p := awslm.Format{}.Verify(doc, anchors)
		awslm.Format{}.Recognise(doc)
		if (l == nil) == (p == nil) &&
			(p == nil || p.Code != enforcer.BadSignature && p.Code != enforcer.UntrustedKey) {
			t.Errorf("%+v %+v", l, p)
		}
		if l != nil && l.Validate() != nil {
			t.Errorf("%v", l.Validate())
		}
	})
}

// FuzzTerms: every signed payload is refused with a reason or can be judged.
func FuzzTerms(f *testing.F) {
	sealed, err := json.Marshal(map[string]any{"asked": borrowedAt, "license": granted()})
	if err != nil {
		f.Fatal(err)
	}
	token, err := json.Marshal(payload(agentThumb))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(token)
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, of := range []func([]byte) (*enforcer.License, error){awslm.ReceivedLicense, awslm.BorrowedLicense} {
			l, err := of(payload)
			if err == nil && l.Validate() == nil {
				enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "a", License: l}},
					Products: []string{l.Product}}, borrowedAt)
			}
		}
	})
}
