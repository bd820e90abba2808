package remote

import (
	"bytes"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/pluginpb"
)

// Generators of what a licence says.
var (
	text  = rapid.StringOfN(rapid.RuneFrom([]rune("aZ9 é世\U0001F600\u2028\"\\<&")), 0, 12, -1)
	some  = rapid.StringOfN(rapid.RuneFrom([]rune("aZ9é-")), 1, 12, -1)
	name  = rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._:/-]{0,10}`)
	limit = rapid.Custom(func(t *rapid.T) enforcer.Limit {
		return enforcer.Limit(rapid.Int64Range(-1, int64(enforcer.MaxCount)).Draw(t, "limit"))
	})
	span = rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(100*365*24*time.Hour)).Draw(t, "span"))
	})
	moment = rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.IntRange(0, 3).Draw(t, "stated") == 0 {
			return time.Time{}
		}
		return time.Unix(rapid.Int64Range(0, 253402300799).Draw(t, "s"),
			rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
	})
	pools = rapid.Custom(func(t *rapid.T) enforcer.PoolTerm {
		return enforcer.PoolTerm{Max: limit.Draw(t, "max"), Unit: text.Draw(t, "unit"),
			Overage: limit.Draw(t, "overage"), Scope: enforcer.Scope(oneOf("host", "site").Draw(t, "scope")),
			CountBy: enforcer.CountBy(oneOf("lease", "pod").Draw(t, "count_by"))}
	})
	meters = rapid.Custom(func(t *rapid.T) enforcer.MeterTerm {
		return enforcer.MeterTerm{Max: limit.Draw(t, "max"), Unit: text.Draw(t, "unit"),
			Overage: limit.Draw(t, "overage"), Scope: enforcer.Scope(oneOf("host", "site").Draw(t, "scope")),
			Resets:     enforcer.Resets(oneOf("week", "month").Draw(t, "resets")),
			Adjustable: rapid.Bool().Draw(t, "adjustable")}
	})
	features = rapid.Custom(func(t *rapid.T) enforcer.Value {
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return enforcer.Value{Kind: enforcer.KindBool, Bool: rapid.Bool().Draw(t, "b")}
		case 1:
			return enforcer.Value{Kind: enforcer.KindNumber, Number: rapid.Float64Range(-1e300, 1e300).Draw(t, "n"),
				Unit: text.Draw(t, "unit")}
		default:
			return enforcer.Value{Kind: enforcer.KindText, Text: rapid.String().Draw(t, "t")}
		}
	})
)

func oneOf(of ...string) *rapid.Generator[string] { return rapid.SampledFrom(append(of, "")) }

// term makes a value of [enforcer.License.Terms].
func term(depth int) *rapid.Generator[any] {
	of := []*rapid.Generator[any]{rapid.Just[any](nil), rapid.Bool().AsAny(),
		rapid.Float64().Filter(func(f float64) bool {
			return !math.IsNaN(f) && !math.IsInf(f, 0)
		}).AsAny(), text.AsAny()}
	if depth > 0 {
		of = append(of, rapid.SliceOfN(term(depth-1), 0, 3).AsAny(),
			rapid.MapOfN(text, term(depth-1), 0, 3).AsAny())
	}
	return rapid.OneOf(of...)
}

// draw makes any licence that Validate passes.
func draw(t *rapid.T) *enforcer.License {
	l := &enforcer.License{ID: some.Draw(t, "id"), System: some.Draw(t, "system"), Product: some.Draw(t, "product"),
		Licensee: text.Draw(t, "licensee"), Issuer: text.Draw(t, "issuer"),
		Issued: moment.Draw(t, "issued"), NotBefore: moment.Draw(t, "nbf"), Expires: moment.Draw(t, "exp"),
		Environment: enforcer.Environment(oneOf("production", "test").Draw(t, "env")),
		Role:        enforcer.Role(oneOf("base", "add-on", "free-tier", "notice").Draw(t, "role")),
		Supersedes:  rapid.SliceOfN(text, 0, 3).Draw(t, "supersedes"),
		Suspended:   rapid.Bool().Draw(t, "suspended"), Banned: rapid.Bool().Draw(t, "banned"),
		Revoked:        rapid.Bool().Draw(t, "revoked"),
		Pools:          rapid.MapOfN(name, pools, 0, 3).Draw(t, "pools"),
		Meters:         rapid.MapOfN(name, meters, 0, 3).Draw(t, "meters"),
		Features:       rapid.MapOfN(name, features, 0, 3).Draw(t, "features"),
		Versions:       rapid.SampledFrom([]string{"", "<3", ">=1.2"}).Draw(t, "versions"),
		ReleasedBefore: moment.Draw(t, "released"),
		Hosts: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) enforcer.HostBinding {
			return enforcer.HostBinding{Name: text.Draw(t, "name"),
				Components: rapid.MapOfN(some, rapid.SliceOfN(some, 1, 3), 1, 3).Draw(t, "components"),
				Strategy:   enforcer.Strategy(oneOf("any", "all").Draw(t, "strategy"))}
		}), 0, 2).Draw(t, "hosts"),
		AgentKeys: rapid.SliceOfN(some, 0, 2).Draw(t, "keys"), SiteServer: text.Draw(t, "site server"),
		CoreCap: limit.Draw(t, "cores"), CoreKind: enforcer.CoreKind(oneOf("physical", "effective").Draw(t, "kind")),
		Heartbeat: enforcer.Period{Every: span.Draw(t, "hb"), Months: rapid.IntRange(0, 1200).Draw(t, "months"),
			Grace: span.Draw(t, "hbg")},
		CheckIn:    enforcer.Period{Every: span.Draw(t, "ci"), Grace: span.Draw(t, "cig")},
		Activation: enforcer.Activation{Required: rapid.Bool().Draw(t, "activate"), Grace: span.Draw(t, "ag")},
		Usage:      rapid.Bool().Draw(t, "usage"), Trial: span.Draw(t, "trial"),
		Emergency: enforcer.Emergency{Length: span.Draw(t, "emergency"),
			PerYear: rapid.IntRange(0, 365).Draw(t, "per year")},
		Revokes:     rapid.SliceOfN(text, 0, 3).Draw(t, "revokes"),
		ResetsClock: rapid.Bool().Draw(t, "resets"), EarlyReturn: rapid.Bool().Draw(t, "early"),
		Grace: span.Draw(t, "grace"), OnExpiry: enforcer.OnExpiry(oneOf("drain", "keep").Draw(t, "on_expiry")),
		Clock:          enforcer.ClockPolicy(oneOf("strict").Draw(t, "clock")),
		ClockTolerance: span.Draw(t, "tolerance"), AgentAway: span.Draw(t, "away"), MaxBorrow: span.Draw(t, "borrow"),
		KeyID:             some.Draw(t, "kid"),
		AnchorEnvironment: enforcer.Environment(oneOf("test").Draw(t, "aenv")),
		Terms:             rapid.MapOfN(text, term(3), 0, 4).Draw(t, "terms"), SystemCode: text.Draw(t, "code")}
	// An empty list and none are one.
	v := reflect.ValueOf(l).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); (f.Kind() == reflect.Slice || f.Kind() == reflect.Map) && f.Len() == 0 {
			f.SetZero()
		}
	}
	return l
}

// Whatever a licence says, it says the same at the other end.
func TestLicenseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := draw(t)
		b, err := EncodeLicense(l)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeLicense(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if !reflect.DeepEqual(got, l) {
			t.Fatalf("%s:\n%+v\n%+v", b, l, got)
		}
		if err := l.Validate(); (err == nil) != (got.Validate() == nil) {
			t.Fatalf("one is valid: %v", err)
		}
	})
}

// Each field of a License crosses the wire: one that is added and forgotten here fails.
func TestEveryFieldCrosses(t *testing.T) {
	zero, err := EncodeLicense(&enforcer.License{})
	if err != nil {
		t.Fatal(err)
	}
	typ := reflect.TypeFor[enforcer.License]()
	for i := range typ.NumField() {
		l := &enforcer.License{}
		fill(reflect.ValueOf(l).Elem().Field(i))
		b, err := EncodeLicense(l)
		if err != nil || bytes.Equal(b, zero) {
			t.Errorf("%s does not cross: %s, %v", typ.Field(i).Name, b, err)
			continue
		}
		if got, err := DecodeLicense(b); err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%s: %s, %v", typ.Field(i).Name, b, err)
		}
	}
}

// fill makes a value other than zero, all the way down.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1, 2).UTC()))
	case v.Type() == reflect.TypeFor[any]():
		v.Set(reflect.ValueOf("x"))
	case v.Kind() == reflect.String:
		v.SetString("x")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(7)
	case v.CanFloat():
		v.SetFloat(1.5)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), e)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	default:
		panic(v.Type())
	}
}

// docs/plugins.md names every member.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[license](), reflect.TypeFor[pool](), reflect.TypeFor[meter](),
		reflect.TypeFor[value](), reflect.TypeFor[host](), reflect.TypeFor[period](), reflect.TypeFor[activation](),
		reflect.TypeFor[emergency]()} {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("docs/plugins.md lacks %s of a %s", name, typ.Name())
			}
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for _, doc := range []string{``, `null x`, `{"ID":"a"}`, `{"id":"a","id":"a"}`, `{"x":1}`,
		`{"pools":{"p":{"max":1.5}}}`, `{"pools":{"p":{"max":null}}}`,
		`{"meters":{"m":{}}}`, `{"issued":"yesterday"}`, `{"grace":"1h"}`, `{"hosts":[{"x":1}]}`, "{\"id\":\"\xff\"}",
		`{"core_cap":9223372036854775808}`} {
		if l, err := DecodeLicense([]byte(doc)); err == nil {
			t.Errorf("%s is read as %+v", doc, l)
		}
	}
}

// The first date of all that a plugin states is no absent one: its licence does not last for ever.
func TestFirstDate(t *testing.T) {
	for name, at := range map[string]func(*enforcer.License) time.Time{
		"issued":          func(l *enforcer.License) time.Time { return l.Issued },
		"not_before":      func(l *enforcer.License) time.Time { return l.NotBefore },
		"expires":         func(l *enforcer.License) time.Time { return l.Expires },
		"released_before": func(l *enforcer.License) time.Time { return l.ReleasedBefore },
		"checked_in":      func(l *enforcer.License) time.Time { return l.CheckedIn },
	} {
		l, err := DecodeLicense([]byte(`{"id":"a","system":"s","product":"p","` + name + `":"0001-01-01T00:00:00Z"}`))
		if err != nil || at(l).IsZero() || l.Validate() == nil {
			t.Errorf("%s: %v, %v", name, l, err)
		}
		if l, err = DecodeLicense([]byte(`{"id":"a","system":"s","product":"p","` + name + `":null}`)); err == nil &&
			!at(l).IsZero() {
			t.Errorf("%s: null is read as %v", name, at(l))
		}
	}
	if instant(nanos(time.Unix(0, 0))).IsZero() {
		t.Error("an anchor's end in 1970 is none")
	}
}

// An instant that the wire cannot say is still far away.
func TestInstants(t *testing.T) {
	for _, at := range []time.Time{{}, time.Unix(0, 1).UTC(), time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)} {
		if got := instant(nanos(at)); !got.Equal(at) {
			t.Errorf("%s became %s", at, got)
		}
	}
	if got := instant(nanos(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))); got.Year() < 2262 {
		t.Errorf("it became %s", got)
	}
}

// Any bytes that are read as a licence and pass are safe, and say the same when they are written again.
func FuzzLicense(f *testing.F) {
	f.Add([]byte(`{"id":"a","system":"s","product":"p","pools":{"p":{"max":-1}},"terms":{"a":[1,null]}}`))
	f.Add([]byte(`{"issued":"2026-01-01T00:00:00.5+02:00","heartbeat":{"every":7}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLicense(b)
		if err != nil || l.Validate() != nil {
			return
		}
		again, err := EncodeLicense(l)
		if err != nil {
			t.Fatalf("%s: what is valid cannot be written: %v", b, err)
		}
		if got, err := DecodeLicense(again); err != nil || !reflect.DeepEqual(normal(got), normal(l)) {
			t.Fatalf("%s became %s, %v", b, again, err)
		}
	})
}

// normal makes an empty list and none one.
func normal(l *enforcer.License) *enforcer.License {
	out := *l
	v := reflect.ValueOf(&out).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); (f.Kind() == reflect.Slice || f.Kind() == reflect.Map) && f.Len() == 0 {
			f.SetZero()
		}
	}
	return &out
}

// Any answer of an upstream or a format that passes the checks is within the bounds.
func FuzzMessages(f *testing.F) {
	for _, m := range []proto.Message{&pluginpb.Reply{Document: []byte("d"), State: []byte("s"), NextCheckIn: 7},
		&pluginpb.Reply{Error: &pluginpb.Error{Class: "refused", Code: "BANNED", Reason: "x"}},
		&pluginpb.BlockReply{Id: "b", Pool: "p", Slots: 1, For: 2},
		&pluginpb.VerifyReply{License: []byte(`{"id":"a","system":"s","product":"p","key_id":"k"}`)},
		&pluginpb.VerifyReply{Problem: &pluginpb.Problem{Code: "MALFORMED", Reason: "x"}},
		&pluginpb.Request{Components: map[string]*pluginpb.Values{"a": {Values: []string{"b"}}}}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	anchors := []plugin.Anchor{{System: "s", KeyID: "k"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var reply pluginpb.Reply
		if proto.Unmarshal(b, &reply) == nil {
			if e := decodeError(reply.GetError()); e != nil {
				checked(t, AsError(e).Checked())
			}
			r := plugin.Reply{Document: reply.GetDocument(), NextHeartbeat: instant(reply.GetNextHeartbeat()),
				NextCheckIn: instant(reply.GetNextCheckIn()), Time: instant(reply.GetTime()), State: reply.GetState()}
			if r.Check(now) == nil && (len(r.State) > plugin.MaxState || r.NextCheckIn.Year() > 2127) {
				t.Errorf("passed: %+v", r)
			}
		}
		var blockReply pluginpb.BlockReply
		if proto.Unmarshal(b, &blockReply) == nil {
			if out, err := block(&blockReply, nil); err == nil && out.Check("p", 9, 1, time.Hour) == nil &&
				(out.Slots < 1 || out.Slots > 9 || out.For > time.Hour || out.For <= 0 || out.ID == "") {
				t.Errorf("passed: %+v", out)
			}
		}
		var v pluginpb.VerifyReply
		if proto.Unmarshal(b, &v) == nil {
			l, err := DecodeLicense(v.GetLicense())
			if err != nil {
				l = nil
			}
			var p *enforcer.Problem
			if q := v.GetProblem(); q != nil {
				p = &enforcer.Problem{Code: enforcer.Code(q.GetCode()), Reason: q.GetReason(), Hint: q.GetHint(),
					SystemCode: q.GetSystemCode()}
			}
			l, p = plugin.CheckVerified("s", anchors, l, p)
			if l == nil && p == nil || l != nil && l.Validate() != nil || p == nil && l.KeyID != "k" {
				t.Errorf("passed: %+v, %+v", l, p)
			}
			if p != nil && (len(p.Reason) > 2048 || strings.ContainsAny(p.Reason+p.Hint+p.SystemCode, "\n\x00\x1b")) {
				t.Errorf("a reason of %d bytes passed", len(p.Reason))
			}
		}
		var in pluginpb.Request
		if proto.Unmarshal(b, &in) == nil {
			r := decodeRequest(&in)
			if got := decodeRequest(encodeRequest(r)); !reflect.DeepEqual(got, r) &&
				r.Cores.Effective == r.Cores.Effective {
				t.Errorf("%+v became %+v", r, got)
			}
		}
	})
}

func checked(t *testing.T, e *plugin.Error) {
	if e.Class == plugin.Refused && e.Code == "" || e.Class != plugin.Refused && e.Code != "" || e.RetryAfter < 0 ||
		e.RetryAfter > plugin.MaxRetryAfter || len(e.Reason) > 2048 {
		t.Errorf("passed: %+v", e)
	}
}
