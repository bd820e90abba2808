package upstreams

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/pulse"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

func requests(carries plugin.Carries) *Requests {
	return &Requests{
		AgentKey: "thumb",
		Carries:  func(string) plugin.Carries { return carries },
		Host: func() (enforcer.Host, string) {
			return enforcer.Host{Components: map[string][]string{"nic": {"measured"}},
				Configured: map[string][]string{"nic": {"claimed"}, "cluster": {"c1"}}, Physical: 4, Logical: 8,
				Memory: 1 << 30, Disk: 1 << 40}, "one text"
		},
		Version: func() string { return "2.1" },
		Emergencies: func(enforcer.Ref, time.Time) []plugin.Emergency {
			return []plugin.Emergency{{Reason: "why"}}
		},
		Pools: func() []enforcer.PoolStatus { return []enforcer.PoolStatus{{Name: "streams", InUse: 3, Peak: 5}} },
		Now:   time.Now,
	}
}

// A request carries what its system may learn of the host and nothing else, usage where the licence asks for it, and to
// a site's server neither usage nor emergencies. What is measured counts before what is configured.
func TestRequestsCarryWhatTheyMay(t *testing.T) {
	t.Parallel()
	l := &enforcer.License{System: "toy", ID: "L1", Product: "acme"}
	r := requests(plugin.Carries{}).For(l, []byte("doc"))
	if r.Fingerprint != "" || r.Hostname != "" || r.Memory != 0 || r.Disk != 0 || r.Usage != nil ||
		len(r.Emergencies) != 1 || r.Version != "2.1" || r.AgentKey != "thumb" || string(r.Document) != "doc" {
		t.Errorf("nothing may be carried: %+v", r)
	}
	if want := map[string][]string{"nic": {"measured"}, "cluster": {"c1"}}; !reflect.DeepEqual(r.Components, want) {
		t.Errorf("components %v, want %v", r.Components, want)
	}
	l.Usage = true
	q := requests(plugin.Carries{Fingerprint: true, Memory: true, Disk: true})
	r = q.For(l, nil)
	if r.Fingerprint != "one text" || r.Memory != 1<<30 || r.Disk != 1<<40 || r.Hostname != "" ||
		!reflect.DeepEqual(r.Usage, []plugin.Usage{{Pool: "streams", InUse: 3, Peak: 5}}) {
		t.Errorf("all but the name may be carried: %+v", r)
	}
	if r = q.ForShares(l, nil); r.Usage != nil || r.Emergencies != nil || r.Fingerprint != "one text" {
		t.Errorf("to a site's server: %+v", r)
	}
}

// A preview shows what leaves the host. What a system's client holds back does not leave it.
func TestPreviewLeavesOutWhatIsHeld(t *testing.T) {
	t.Parallel()
	in := []plugin.Request{{System: "toy", LicenseID: "L1", Document: []byte("doc"), State: []byte("chain"),
		AgentKey: "thumb", Usage: []plugin.Usage{{Pool: "streams", InUse: 1, Peak: 2}},
		Emergencies: []plugin.Emergency{{Reason: "why"}}}}
	for _, held := range []bool{false, true} {
		out := Preview(in, func(string) plugin.Carries { return plugin.Carries{Held: held} })
		if len(out) != 1 || (out[0].Document == "") != held || (out[0].Chain == "") != held ||
			(out[0].AgentKey == "") != held || len(out[0].Usage) != 1 || len(out[0].Emergencies) != 1 {
			t.Errorf("held %t: %+v", held, out)
		}
	}
	if out := Preview(nil, nil); out == nil {
		t.Error("nothing is null")
	}
}

// A renewed document is found again under a name that no file of the licence folder has, the later one of a licence in
// the place of the earlier. A file of another kind and one that is too large are left alone.
func TestRenewals(t *testing.T) {
	t.Parallel()
	r := Renewals(filepath.Join(t.TempDir(), "renewed"))
	if all, err := r.Read(); err != nil || all != nil {
		t.Fatalf("before anything is kept: %v, %v", all, err)
	}
	for ref, doc := range map[enforcer.Ref]string{"toy/a": "1", "toy/b": "2"} {
		for _, text := range []string{"old", doc} {
			if err := r.Keep(ref, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Keep("toy/large", make([]byte, plugin.MaxDocument+1)); err != nil {
		t.Fatal(err)
	}
	all, err := r.Read()
	if err != nil || len(all) != 2 || string(all[0].Data)+string(all[1].Data) != "12" &&
		string(all[0].Data)+string(all[1].Data) != "21" {
		t.Fatalf("%v, %v", all, err)
	}
	for _, d := range all {
		if filepath.Ext(d.Name) != ".lic" || d.Name[:8] != "renewed-" {
			t.Errorf("it is called %s", d.Name)
		}
	}
}

// Licences that their upstream cannot heal have no duties: nobody is called for them. A licence without an upstream
// says so to people.
func TestDuties(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	p, err := pulse.New(pulse.Config{File: filepath.Join(t.TempDir(), "upstream.json"), Now: func() time.Time {
		return now
	},
		Uptime:  func() pulse.Uptime { return pulse.Uptime{} },
		Request: func(*enforcer.License, []byte) plugin.Request { return plugin.Request{} }})
	if err != nil {
		t.Fatal(err)
	}
	d := &Duties{Pulse: p, Upstreams: map[string]plugin.Upstream{"toy": checker{}}}
	judged := func(id, system string, code enforcer.Code) enforcer.Judged {
		return enforcer.Judged{Document: id, Code: code, Findings: []enforcer.Finding{{Code: code}},
			License: &enforcer.License{ID: id, System: system, Issued: now,
				CheckIn: enforcer.Period{Every: 24 * time.Hour}}}
	}
	v := &enforcer.Verdict{Licenses: []enforcer.Judged{judged("good", "toy", enforcer.Valid),
		judged("late", "toy", enforcer.Overdue), judged("elsewhere", "toy", enforcer.FingerprintMismatch),
		judged("alone", "other", enforcer.Valid), {Document: "garbage", Code: enforcer.Malformed}}}
	if d.See(&enforcer.Facts{}, v, func(name string) []byte { return []byte(name) }) {
		t.Error("the pulse knows something before it has called")
	}
	if s := p.Status(); len(s) != 2 || s[v.Licenses[0].License.Ref()].LicenseID != "good" ||
		s[v.Licenses[1].License.Ref()].LicenseID != "late" {
		t.Errorf("duties: %v", s)
	}
	var f enforcer.Facts
	if fence := d.Fill(&f, now); fence != 0 || f.Upstream == nil {
		t.Errorf("it holds until %v: %v", fence, f.Upstream)
	}
	var out wire.License
	d.Shape(v, &out)
	if out.CheckIn == nil || out.Heartbeat != nil || out.Upstream == nil || out.Upstream.State == "none" {
		t.Errorf("the shape: %+v %+v %+v", out.CheckIn, out.Heartbeat, out.Upstream)
	}
	if c := d.Contacts(v); len(c) != 1 || !c[pulse.CheckIn].Due.Equal(now.AddDate(0, 0, 1)) ||
		c[pulse.CheckIn].Period != 24*time.Hour || !out.CheckIn.Due.Equal(c[pulse.CheckIn].Due) {
		t.Errorf("contacts %+v", c)
	}
	out = wire.License{}
	d.Shape(&enforcer.Verdict{Licenses: v.Licenses[3:]}, &out)
	if out.Upstream == nil || out.Upstream.State != "none" {
		t.Errorf("a licence whose system has no upstream: %+v", out.Upstream)
	}
}

// checker is an upstream that licences are checked in with.
type checker struct{ plugin.Upstream }

func (checker) System() string                    { return "toy" }
func (checker) Capabilities() plugin.Capabilities { return plugin.Capabilities{CheckIn: true} }
