package keygen_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
)

// account signs documents for the tests.
type account struct {
	key     ed25519.PrivateKey
	anchors []plugin.Anchor
}

func newAccount(t testing.TB) *account {
	t.Helper()
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))
	return &account{key, []plugin.Anchor{anchor(t, "account", hex.EncodeToString(key.Public().(ed25519.PublicKey)),
		"")}}
}

type object = map[string]any

// licence returns a dataset, with attributes and a policy that the test changes.
func licence(attributes, policy object) object {
	a := object{"name": "Acme", "key": "SECRET-KEY", "expiry": "2027-01-01T00:00:00.000Z", "status": "ACTIVE",
		"uses": 4, "suspended": false, "floating": true, "strict": true,
		"maxMachines": 4, "maxProcesses": 8, "maxUsers": nil, "maxCores": 64, "maxUses": 10}
	maps.Copy(a, attributes)
	rel := func(kind, id string) object { return object{"data": object{"type": kind, "id": id}} }
	out := object{"data": object{"type": "licenses", "id": "lic-1", "attributes": a,
		"relationships": object{"product": rel("products", "prod-1"), "policy": rel("policies", "pol-1"),
			"account": rel("accounts", "acc-1")}},
		"meta": object{"issued": "2026-01-01T00:00:00.000Z", "expiry": "2026-02-01T00:00:00.000Z", "ttl": 2629746}}
	if policy != nil {
		out["included"] = []any{object{"type": "policies", "id": "pol-1", "attributes": policy}}
	}
	return out
}

// machineOf returns a machine file's dataset around a licence's.
func machineOf(l object, attributes object) object {
	a := object{"fingerprint": "host-1", "name": "render-7"}
	maps.Copy(a, attributes)
	return object{"data": object{"type": "machines", "id": "mac-1", "attributes": a,
		"relationships": object{"license": object{"data": object{"type": "licenses", "id": "lic-1"}}}},
		"included": append([]any{l["data"]}, included(l)...), "meta": l["meta"]}
}

func included(l object) []any { all, _ := l["included"].([]any); return all }

func encode(kind, enc, alg string, key ed25519.PrivateKey) []byte {
	e, _ := json.Marshal(object{"enc": enc,
		"sig": base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte(strings.ToLower(kind)+"/"+enc))), "alg": alg})
	body := base64.StdEncoding.EncodeToString(e)
	var b strings.Builder
	fmt.Fprintf(&b, "-----BEGIN %s FILE-----\n", kind)
	for chunk := range slices.Chunk([]byte(body), 60) {
		b.Write(append(chunk, '\n'))
	}
	fmt.Fprintf(&b, "-----END %s FILE-----\n", kind)
	return []byte(b.String())
}

func (a *account) file(kind string, dataset object) []byte {
	b, _ := json.Marshal(dataset)
	return encode(kind, base64.StdEncoding.EncodeToString(b), "base64+ed25519", a.key)
}

func (a *account) read(t *testing.T, kind string, dataset object) *enforcer.License {
	t.Helper()
	l, p := keygen.Format{}.Verify(a.file(kind, dataset), a.anchors)
	if p != nil {
		t.Fatalf("%s: %s", p.Code, p.Reason)
	}
	return l
}

const day = 24 * time.Hour

// policies are the rows of TestTerms.
var policies = []struct {
	name               string
	attributes, policy object
	check              func(l *enforcer.License) bool
}{
	{"the licence ends before its file", object{"expiry": "2026-01-15T00:00:00.000Z"}, nil,
		func(l *enforcer.License) bool {
			return l.Expires.Equal(time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC))
		}},
	{"an expired licence that runs on", object{"expiry": "2026-01-15T00:00:00.000Z"},
		object{"expirationStrategy": "MAINTAIN_ACCESS"},
		func(l *enforcer.License) bool {
			return l.Expires.Equal(time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)) && l.OnExpiry == enforcer.Keep
		}},
	{"access revoked", nil, object{"expirationStrategy": "REVOKE_ACCESS"}, func(l *enforcer.License) bool {
		return l.OnExpiry == enforcer.Revoke
	}},
	{"made for a licence that had expired", object{"expiry": "2025-01-01T00:00:00.000Z"}, nil,
		func(l *enforcer.License) bool {
			return l.NotBefore.IsZero() && l.Expires.Year() == 2025
		}},
	{"overage 1.25", nil, object{"overageStrategy": "ALLOW_1_25X_OVERAGE"}, func(l *enforcer.License) bool {
		return l.Pools["machines"].Overage == 1 && l.Pools["processes"].Overage == 5*10-4*8 && l.CoreCap == 80
	}},
	{"overage 1.5", nil, object{"overageStrategy": "ALLOW_1_5X_OVERAGE"}, func(l *enforcer.License) bool {
		return l.Pools["machines"].Overage == 2 && l.CoreCap == 96
	}},
	{"overage 2", nil, object{"overageStrategy": "ALLOW_2X_OVERAGE"}, func(l *enforcer.License) bool {
		return l.Pools["machines"].Overage == 4
	}},
	{"overage always", nil, object{"overageStrategy": "ALWAYS_ALLOW_OVERAGE"}, func(l *enforcer.License) bool {
		return l.Pools["machines"].Overage == enforcer.Unlimited && l.CoreCap == 0
	}},
	{"concurrent, as API 1.1 said", nil, object{"concurrent": true}, func(l *enforcer.License) bool {
		return l.Pools["machines"].Overage == enforcer.Unlimited
	}},
	{"not strict", object{"strict": false}, nil, func(l *enforcer.License) bool {
		return l.CoreCap == 0 && l.Pools["cores"].Max == 64
	}},
	{"node-locked", object{"floating": false, "maxMachines": 1}, nil, func(l *enforcer.License) bool {
		return l.Pools["machines"].Scope == enforcer.ScopeHost
	}},
	{"suspended", object{"suspended": true}, nil, func(l *enforcer.License) bool { return l.Suspended }},
	{"banned", object{"status": "BANNED"}, nil, func(l *enforcer.License) bool { return l.Banned }},
	{"used up", object{"uses": 12, "floating": false, "maxMachines": 1}, nil, func(l *enforcer.License) bool {
		return l.Meters["uses"].Max == 0
	}},
	{"used in part", object{"floating": false, "maxMachines": 1}, nil, func(l *enforcer.License) bool {
		return l.Meters["uses"] == enforcer.MeterTerm{Max: 6, Unit: "use", Scope: enforcer.ScopeHost}
	}},
	{"memory and disk", object{"maxMemory": 1 << 34, "maxDisk": 1 << 40}, nil, func(l *enforcer.License) bool {
		return l.Pools["memory"].Max == 1<<34 && l.Pools["disk"].Max == 1<<40 && l.MemoryCap == 1<<34 &&
			l.DiskCap == 1<<40
	}},
	{"heartbeat", object{"requireHeartbeat": true}, nil, func(l *enforcer.License) bool {
		return l.Heartbeat == enforcer.Period{Every: 10 * time.Minute} && l.Activation.Grace == 10*time.Minute
	}},
	{"heartbeat of a policy", object{"requireHeartbeat": true},
		object{"heartbeatDuration": 120, "heartbeatResurrectionStrategy": "5_MINUTE_REVIVE"},
		func(l *enforcer.License) bool {
			return l.Heartbeat == enforcer.Period{Every: 2 * time.Minute, Grace: 5 * time.Minute}
		}},
	{"check-in by its next", object{"requireCheckIn": true, "lastCheckIn": "2025-12-30T00:00:00.000Z",
		"nextCheckIn": "2026-01-06T00:00:00.000Z"}, nil,
		func(l *enforcer.License) bool {
			return l.CheckIn == enforcer.Period{Every: 7 * day} &&
				l.CheckedIn.Equal(time.Date(2025, 12, 30, 0, 0, 0, 0, time.UTC))
		}},
	{"check-in of a policy", object{"requireCheckIn": true, "lastCheckIn": "2025-12-30T00:00:00.000Z"},
		object{"checkInInterval": "month", "checkInIntervalCount": 3},
		func(l *enforcer.License) bool { return l.CheckIn == enforcer.Period{Months: 3} }},
	{"check-in by the week", object{"requireCheckIn": true},
		object{"checkInInterval": "week", "checkInIntervalCount": 2},
		func(l *enforcer.License) bool {
			return l.CheckIn == enforcer.Period{Every: 14 * day} && l.CheckedIn.Equal(l.Issued)
		}},
	{"check-in that nothing dates", object{"requireCheckIn": true}, nil, dailyFromIssue},
	{"check-in of a policy without an interval", object{"requireCheckIn": true}, object{"checkInIntervalCount": 3},
		dailyFromIssue},
	{"processes of any number of machines", object{"maxMachines": nil}, nil, func(l *enforcer.License) bool {
		return l.Pools["processes"].Max == 8 && l.Pools["processes"].Scope == enforcer.ScopeHost
	}},
	{"processes of the licence", nil, object{"processLeasingStrategy": "PER_LICENSE"}, func(l *enforcer.License) bool {
		return l.Pools["processes"].Max == 8 && l.Pools["processes"].Scope == enforcer.ScopeSite
	}},
	{"processes of one machine", object{"floating": false, "maxMachines": 1}, nil, func(l *enforcer.License) bool {
		return l.Pools["processes"].Max == 8 && l.Pools["processes"].Scope == enforcer.ScopeHost
	}},
	{"processes of more machines than can be counted", object{"maxMachines": 1 << 40, "maxProcesses": 1 << 40}, nil,
		func(l *enforcer.License) bool { return l.Pools["processes"].Max == enforcer.MaxCount }},
}

// dailyFromIssue reports whether a licence must be checked in a day after it was issued.
func dailyFromIssue(l *enforcer.License) bool {
	return l.CheckIn == enforcer.Period{Every: 24 * time.Hour} && l.CheckedIn.Equal(l.Issued)
}

// Attributes and policy of a licence become its terms.
func TestTerms(t *testing.T) {
	a := newAccount(t)
	t.Run("plain", func(t *testing.T) {
		l := a.read(t, "LICENSE", licence(nil, nil))
		want := map[string]enforcer.PoolTerm{
			"machines":  {Max: 4, Unit: "machine", Scope: enforcer.ScopeSite},
			"processes": {Max: 4 * 8, Unit: "process", Scope: enforcer.ScopeSite},
			"users": {Max: enforcer.Unlimited, Unit: "user", Scope: enforcer.ScopeSite,
				CountBy: enforcer.CountUser},
			"cores": {Max: 64, Unit: "core", Scope: enforcer.ScopeSite},
		}
		if !maps.Equal(l.Pools, want) {
			t.Errorf("pools %+v, want %+v", l.Pools, want)
		}
		if l.Meters["uses"] != (enforcer.MeterTerm{Max: 10, Unit: "use", Scope: enforcer.ScopeSite}) ||
			l.CoreCap != 64 || l.CoreKind != enforcer.CoresLogical || l.Product != "prod-1" || l.Issuer != "acc-1" ||
			l.Licensee != "Acme" || l.SystemCode != "ACTIVE" {
			t.Errorf("got %+v", l)
		}
		if want := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC); !l.Expires.Equal(want) ||
			!l.NotBefore.Equal(l.Issued.Add(-5*time.Minute)) {
			t.Errorf("expires %v, not before %v", l.Expires, l.NotBefore)
		}
		data := l.Terms["data"].(object)["attributes"].(object)
		if data["key"] != keygen.KeyDigest("SECRET-KEY") || data["maxUses"] != 10.0 {
			t.Errorf("terms %v", data)
		}
	})
	for _, test := range policies {
		t.Run(test.name, func(t *testing.T) {
			if l := a.read(t, "LICENSE", licence(test.attributes, test.policy)); !test.check(l) {
				t.Errorf("got %+v", l)
			}
		})
	}
}

func TestMachineFile(t *testing.T) {
	a := newAccount(t)
	l := a.read(t, "MACHINE",
		machineOf(licence(nil, nil), object{"maxProcesses": 2, "requireHeartbeat": true, "heartbeatDuration": 90}))
	host := enforcer.Host{Components: map[string][]string{keygen.Component: {keygen.Fingerprint("host-1")}}, Logical: 8}
	if l.ID != "lic-1" || len(l.Hosts) != 1 || l.Hosts[0].Name != "render-7" || l.Pools["processes"].Max != 2 ||
		l.Pools["machines"].Scope != enforcer.ScopeHost || l.Heartbeat.Every != 90*time.Second {
		t.Errorf("got %+v", l)
	}
	facts := enforcer.Facts{Documents: []enforcer.Document{{Name: "m.lic", License: l}}, Host: host,
		Upstream: map[enforcer.Ref]enforcer.Upstream{l.Ref(): {LastHeartbeat: l.Issued}}}
	if v := enforcer.Judge(facts, l.Issued); v.Code != enforcer.Valid || v.Pools["processes"].Budget != 2 {
		t.Errorf("on its host: %s, %s", v.Code, v.Reason)
	}
	facts.Host.Components[keygen.Component] = []string{keygen.Fingerprint("host-2")}
	if v := enforcer.Judge(facts, l.Issued); v.Code != enforcer.FingerprintMismatch {
		t.Errorf("on another host: %s", v.Code)
	}
	// A machine alone states only that this host is activated.
	alone := machineOf(licence(nil, nil), nil)
	delete(alone, "included")
	if l := a.read(t, "MACHINE", alone); l.ID != "lic-1" || len(l.Pools) != 0 || l.Product != "keygen" {
		t.Errorf("got %+v", l)
	}
}

// A file issued ahead of the clock is not yet valid; a few minutes ahead do not matter.
func TestIssuedAhead(t *testing.T) {
	l := newAccount(t).read(t, "LICENSE", licence(object{"strict": false}, nil))
	for ahead, want := range map[time.Duration]enforcer.Code{6 * time.Minute: enforcer.NotYetValid,
		4 * time.Minute: enforcer.Valid} {
		if v := enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "a.lic", License: l}}},
			l.Issued.Add(-ahead)); v.Code != want {
			t.Errorf("%v ahead: %s, want %s", ahead, v.Code, want)
		}
	}
}

// A signed document may still be nonsense; no size of IV and tag may crash the agent.
func TestNonsense(t *testing.T) {
	a := newAccount(t)
	b64 := base64.StdEncoding.EncodeToString
	for name, doc := range map[string][]byte{
		"a machine in a licence file": a.file("LICENSE", machineOf(licence(nil, nil), nil)),
		"a negative limit":            a.file("LICENSE", licence(object{"maxMachines": -1}, nil)),
		"a limit that is text":        a.file("LICENSE", licence(object{"maxMachines": "many"}, nil)),
		"no issue":                    a.file("LICENSE", object{"data": licence(nil, nil)["data"], "meta": object{}}),
		"null":                        encode("LICENSE", b64([]byte("null")), "base64+ed25519", a.key),
		"a list":                      encode("LICENSE", b64([]byte("[]")), "base64+ed25519", a.key),
		"no JSON":                     encode("LICENSE", b64([]byte("{")), "base64+ed25519", a.key),
		"no fingerprint":              a.file("MACHINE", machineOf(licence(nil, nil), object{"fingerprint": ""})),
		"two parts":                   encode("LICENSE", "AAAA.AAAA", "aes-256-gcm+ed25519", a.key),
		"another encoding":            encode("LICENSE", "AAAA", "rot13+ed25519", a.key),
		"another algorithm":           encode("LICENSE", "AAAA", "base64+none", a.key),
		"no algorithm":                encode("LICENSE", "AAAA", "base64", a.key),
		"two files":                   slices.Repeat(a.file("LICENSE", licence(nil, nil)), 2),
		"cut off":                     a.file("LICENSE", licence(nil, nil))[:300],
		"no armour at its end":        []byte("-----BEGIN LICENSE FILE-----\nAAAA\n-----END MACHINE FILE-----\n"),
	} {
		if _, p := (keygen.Format{}).Verify(doc, a.anchors); p == nil || p.Code != enforcer.Malformed {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for iv := range 20 {
		for tag := range 20 {
			doc := encode("LICENSE", b64([]byte("c"))+"."+b64(make([]byte, iv))+"."+b64(make([]byte, tag)),
				"aes-256-gcm+ed25519", a.key)
			want := enforcer.Malformed
			if iv == 12 && tag == 16 {
				want = enforcer.Unavailable
			}
			if _, p := (keygen.Format{}).Open(doc, a.anchors, plugin.Secrets{Keys: []string{"k"}}); p == nil ||
				p.Code != want {
				t.Fatalf("IV %d, tag %d: %+v", iv, tag, p)
			}
		}
	}
}

// A good tag proves nothing: a text that is encrypted with the right key but unsigned is refused without decryption.
func TestSignatureFirst(t *testing.T) {
	a := newAccount(t)
	b, _ := json.Marshal(licence(object{"maxMachines": 1000}, nil))
	key := sha256.Sum256([]byte("SECRET-KEY"))
	block, _ := aes.NewCipher(key[:])
	gcm, _ := cipher.NewGCM(block)
	iv := make([]byte, 12)
	sealed := gcm.Seal(nil, iv, b, nil)
	b64 := base64.StdEncoding.EncodeToString
	enc := b64(sealed[:len(b)]) + "." + b64(iv) + "." + b64(sealed[len(b):])
	s := plugin.Secrets{Keys: []string{"SECRET-KEY"}}
	if l, p := (keygen.Format{}).Open(encode("LICENSE", enc, "aes-256-gcm+ed25519", a.key), a.anchors, s); p != nil ||
		l.Pools["machines"].Max != 1000 {
		t.Fatalf("signed: %+v", p)
	}
	_, other, _ := ed25519.GenerateKey(nil)
	if l, p := (keygen.Format{}).Open(encode("LICENSE", enc, "aes-256-gcm+ed25519", other), a.anchors, s); l != nil ||
		p == nil || p.Code != enforcer.BadSignature {
		t.Errorf("forged: %+v %+v", l, p)
	}
}

func TestAnchors(t *testing.T) {
	a := newAccount(t)
	pub := a.key.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	armoured := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	b64 := base64.StdEncoding.EncodeToString
	for form, text := range map[string]string{"hex": hex.EncodeToString(pub),
		"hex with a line's end": hex.EncodeToString(pub) + "\r\n", "PEM": string(armoured), "base64 of DER": b64(der),
		"base64 of PEM": b64(armoured), "base64": b64(pub)} {
		got, err := keygen.NewAnchor("acc", []byte(text), "")
		if err != nil || !pub.Equal(got.Key) || got.Algorithm != "ed25519" {
			t.Errorf("%s: %+v, %v", form, got, err)
		}
	}
	for _, bad := range []struct{ key, alg, want string }{
		{"", "", "cannot be read"}, {"zz", "", "cannot be read"},
		{hex.EncodeToString(pub), "rsa-sha256", "does not fit"},
		{"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "", "private key"},
	} {
		if _, err := keygen.NewAnchor("acc", []byte(bad.key), bad.alg); err == nil ||
			!strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q: %v", bad.key, err)
		}
	}
	// The time of an anchor is compared with the file's issue.
	doc := a.file("LICENSE", licence(nil, nil))
	late := a.anchors[0]
	late.NotAfter = time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC)
	if _, p := (keygen.Format{}).Verify(doc, []plugin.Anchor{late}); p == nil || p.Code != enforcer.UntrustedKey {
		t.Errorf("issued after the anchor's time: %+v", p)
	}
	revoked := a.anchors[0]
	revoked.Revoked = true
	if _, p := (keygen.Format{}).Verify(doc, []plugin.Anchor{revoked}); p == nil || p.Code != enforcer.UntrustedKey ||
		!strings.Contains(p.Reason, "revoked") {
		t.Errorf("revoked: %+v", p)
	}
}

func TestSecretsPrintAsNothing(t *testing.T) {
	s := plugin.Secrets{Keys: []string{"SECRET-KEY"}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s)
	if out := fmt.Sprintf("%v %+v %#v %s", s, s, s, s) + log.String(); strings.Contains(out, "SECRET") {
		t.Error(out)
	}
}

func FuzzOpen(f *testing.F) {
	a := newAccount(f)
	for _, v := range vectors(f) {
		f.Add(v.document(), "k", "h")
	}
	f.Add(a.file("LICENSE", licence(nil, nil)), "k", "h")
	f.Fuzz(func(t *testing.T, doc []byte, key, fingerprint string) {
		recognised := keygen.Format{}.Recognise(doc)
		l, p := keygen.Format{}.Open(doc, a.anchors, plugin.Secrets{Keys: []string{key}, Fingerprint: fingerprint})
		if l == nil && p == nil || p == nil && !recognised {
			t.Fatalf("recognised %v, got %v and %v", recognised, l, p)
		}
	})
}

// FuzzEnvelope fuzzes signed envelopes, so that decoding gets past the signature.
func FuzzEnvelope(f *testing.F) {
	a := newAccount(f)
	f.Add("LICENSE", "AAAA.AAAA.AAAA", "aes-256-gcm+ed25519")
	f.Add("MACHINE", "e30=", "base64+ed25519")
	f.Fuzz(func(t *testing.T, kind, enc, alg string) {
		if l, p := (keygen.Format{}).Open(encode(kind, enc, alg, a.key), a.anchors,
			plugin.Secrets{Keys: []string{"k"}}); l == nil && p == nil {
			t.Fatal("neither a licence nor a problem")
		}
	})
}

// FuzzDataset fuzzes the dataset of a good file: the resulting licence is always safe to judge.
func FuzzDataset(f *testing.F) {
	a := newAccount(f)
	for _, d := range []object{licence(nil, nil), licence(object{"requireCheckIn": true, "requireHeartbeat": true},
		object{"overageStrategy": "ALLOW_2X_OVERAGE", "checkInInterval": "year", "checkInIntervalCount": 365}),
		machineOf(licence(nil, nil), nil)} {
		b, _ := json.Marshal(d)
		f.Add(b, strings.Contains(string(b), `"machines","id":"mac-1"`))
	}
	f.Fuzz(func(t *testing.T, data []byte, machine bool) {
		kind := "LICENSE"
		if machine {
			kind = "MACHINE"
		}
		l, p := keygen.Format{}.Verify(encode(kind, base64.StdEncoding.EncodeToString(data), "base64+ed25519", a.key),
			a.anchors)
		if p != nil {
			return
		}
		if err := l.Validate(); err != nil {
			t.Fatal(err)
		}
		enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "f", License: l}}}, noon)
	})
}
