package court

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
)

func trial(c *usher.Claims) { c.Trial = 72 * 3600 }

// One change is judged once where no source learns from the verdict, and once more each time that one does. One
// verdict is put in force, whatever the change is.
func TestOneChangeJudgesOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		news   int // how often a source knows more
		claims func(*usher.Claims)
		fake   func(*house)
		judged int
	}{
		{"a document", 0, nil, nil, 1},
		{"a source learns once", 1, nil, nil, 2},
		{"a source learns twice", 2, nil, nil, 3},
		{"a source that always says that it knows more", 1000, nil, nil, maxRounds},
		{"a first use", 0, trial, nil, 2},
		{"a first use, and a source learns", 1, trial, nil, 3},
		{"the clock is reset", 0, func(c *usher.Claims) { c.ResetClock = true }, func(h *house) {
			h.desk.now = day0.AddDate(50, 0, 0)
		}, 2},
	} {
		h := open(t, nil)
		h.source.news = test.news
		if test.fake != nil {
			test.fake(h)
		}
		h.SetFolder([]File{{Name: "a.lic", Data: h.sign("a", test.claims)}}, nil)
		if h.source.filled != test.judged || h.desk.set != 1 || h.source.inForce != 1 {
			t.Errorf("%s: judged %d times, want %d; %d verdicts put in force, told of %d", test.name, h.source.filled,
				test.judged, h.desk.set, h.source.inForce)
		}
		if v := h.desk.Verdict(); v.Code != enforcer.Valid {
			t.Errorf("%s: %s: %s", test.name, v.Code, v.Reason)
		}
	}
}

// soon fails the test where f takes as long as the disk that hangs.
func soon(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for the disk")
	}
}

// Nothing is judged before the folder has been read.
func TestNothingBeforeTheFolder(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.Rejudge()
	h.Reshare()
	h.SetHost(enforcer.Host{}, "f")
	if h.desk.set != 0 {
		t.Errorf("%d verdicts are in force", h.desk.set)
	}
	if _, _, d := h.BeginEmergency("fire"); d == nil || !strings.Contains(d.Detail, "not been read yet") {
		t.Errorf("%v", d)
	}
}

// While the disk hangs over a first use, everybody else is served: the trial does not count yet, and what is over is
// taken back. It counts as soon as it is recorded.
func TestSlowDiskHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	paid := h.sign("paid", nil)
	h.SetFolder([]File{{Name: "paid.lic", Data: paid}}, nil)
	begun, free := h.disk.hang()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.SetFolder([]File{{Name: "paid.lic", Data: paid}, {Name: "t.lic", Data: h.sign("t", func(c *usher.Claims) {
			trial(c)
			c.Issued, c.Supersedes = day0.Add(time.Second).Unix(), []string{"paid"}
		})}}, nil)
	}()
	<-begun
	set := h.desk.set
	h.source.budgets = map[enforcer.Share]enforcer.Limit{{License: "usher/paid", Pool: "streams"}: 3}
	soon(t, h.Reshare)
	if h.desk.set != set+1 || len(h.desk.verdict.Licenses) != 2 {
		t.Errorf("%d verdicts since the disk hangs", h.desk.set-set)
	}
	if slices.ContainsFunc(h.desk.verdict.Licenses, func(j enforcer.Judged) bool {
		return j.InForce && j.Document == "t.lic"
	}) {
		t.Error("a trial counts that is not recorded")
	}
	if h.Document("t.lic") == nil || !h.has("paid.lic") {
		t.Error("nothing is known of the documents")
	}
	if _, d := h.Install(t.Context(), h.sign("x", nil), "", true); d != nil {
		t.Error(d)
	}
	select {
	case <-done:
		t.Error("the change did not wait for the disk")
	default:
	}
	free()
	<-done
	v := h.desk.Verdict()
	if v.Code != enforcer.Valid || !slices.ContainsFunc(v.Licenses, func(j enforcer.Judged) bool {
		return j.InForce && j.Document == "t.lic"
	}) {
		t.Errorf("%s: %s, %+v", v.Code, v.Reason, v.Licenses)
	}
}

// A caller that cannot wait for the disk leaves the first use to Run.
func TestFirstUseIsMadeUpFor(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.disk.fault = errors.New("no space left")
	h.SetFolder([]File{{Name: "t.lic", Data: h.sign("t", trial)}}, nil)
	v := h.desk.Verdict()
	if v.Code == enforcer.Valid || !slices.ContainsFunc(v.Warnings, func(w enforcer.Warning) bool {
		return strings.Contains(w.Detail, "first use could not be recorded, and does not count yet: history")
	}) || !h.judgeAt.Equal(day0.Add(longestTimer)) {
		t.Errorf("%s, %v, judged again at %v", v.Code, v.Warnings, h.judgeAt)
	}
	h.disk.fault = nil
	h.source.budgets = map[enforcer.Share]enforcer.Limit{{License: "usher/t", Pool: "streams"}: 3}
	h.Reshare()
	if v := h.desk.Verdict(); v.Code == enforcer.Valid || !h.unsaid {
		t.Errorf("after Reshare: %s, %t", v.Code, h.unsaid)
	}
	h.judgeDue()
	if v := h.desk.Verdict(); v.Code != enforcer.Valid || h.unsaid {
		t.Errorf("after Run: %s: %s", v.Code, v.Reason)
	}
}

// A recorded first use that lies in the future, of a licence that is issued later still, keeps nobody busy.
func TestFutureFirstUseSettles(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.desk.now = day0.AddDate(0, 0, 2)
	file := []File{{Name: "t.lic", Data: h.sign("t", func(c *usher.Claims) {
		trial(c)
		c.Issued = day0.AddDate(0, 0, 1).Unix()
	})}}
	h.SetFolder(file, nil)
	h.desk.now = day0
	h.Rejudge() // puts the first use right
	before := h.source.filled
	for range 3 {
		h.Rejudge()
	}
	if judged := h.source.filled - before; judged != 3 || h.unsaid {
		t.Errorf("judged %d times for 3 changes", judged)
	}
}

// Many operators begin the last emergency at once: it is spent once.
func TestLastEmergencyIsSpentOnce(t *testing.T) {
	t.Parallel()
	bubble.Test(t, lastEmergency)
}

func lastEmergency(t *testing.T) {
	h := open(t, nil)
	h.SetFolder([]File{{Name: "a.lic", Data: h.sign("a", func(c *usher.Claims) {
		c.Expires = day0.Add(time.Hour).Unix()
		c.Emergency = &usher.Emergency{Length: 3600, PerYear: 1}
	})}}, nil)
	h.desk.now = day0.Add(2 * time.Hour)
	h.Rejudge()
	begun, free := h.disk.hang()
	var all sync.WaitGroup
	var mu sync.Mutex
	granted, refused := 0, []string{}
	for range 8 {
		all.Go(func() {
			_, _, d := h.BeginEmergency("fire")
			mu.Lock()
			defer mu.Unlock()
			if d == nil {
				granted++
			} else {
				refused = append(refused, string(d.Code))
			}
		})
	}
	<-begun
	synctest.Wait()    // until all of them wait for the first
	soon(t, h.Rejudge) // waits for none of them
	free()
	all.Wait()
	if granted != 1 || len(refused) != 7 || slices.Compact(refused)[0] != string(enforcer.EmergencyRefused) {
		t.Errorf("%d emergencies of one were spent; refused: %v", granted, refused)
	}
	if v := h.desk.Verdict(); v.Code != enforcer.ValidInGrace {
		t.Errorf("%s: %s", v.Code, v.Reason)
	}
}

// A licence is returned once, and what the vendor issues later is another matter.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	if _, _, d := h.GiveBack("a"); d == nil || d.Code != enforcer.DocumentUnknown {
		t.Errorf("a licence that is not there: %v", d)
	}
	h.SetFolder([]File{{Name: "a.lic", Data: h.sign("a", nil)}}, nil)
	h.disk.fault = errors.New("no space left")
	if _, _, d := h.GiveBack("a"); d == nil || d.Code != enforcer.Storage || h.desk.Verdict().Code != enforcer.Valid {
		t.Errorf("what cannot be recorded: %v, %s", d, h.desk.Verdict().Code)
	}
	h.disk.fault = nil
	first, fresh, d := h.GiveBack("a")
	if d != nil || !fresh || first.Ref != "usher/a" || first.Product != "acme" || len(first.Document) != 64 ||
		h.desk.Verdict().Code != enforcer.Revoked {
		t.Errorf("%+v, %t, %v, %s", first, fresh, d, h.desk.Verdict().Code)
	}
	h.SetFolder(nil, nil)
	h.desk.now = day0.Add(time.Hour)
	if again, fresh, d := h.GiveBack("a"); d != nil || fresh || again != first {
		t.Errorf("again: %+v, %t, %v", again, fresh, d)
	}
	h.SetFolder([]File{{Name: "a.lic", Data: h.sign("a", func(c *usher.Claims) {
		c.Issued = day0.Add(time.Minute).Unix()
	})}}, nil)
	if later, fresh, d := h.GiveBack("a"); d != nil || !fresh || !later.At.Equal(day0.Add(time.Hour)) {
		t.Errorf("a later issue: %+v, %t, %v", later, fresh, d)
	}
}

// Reshare judges where budgets have changed, and else moves the fence alone.
func TestReshare(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.SetFolder([]File{{Name: "a.lic", Data: h.sign("a", nil)}}, nil)
	h.source.fence = time.Minute
	h.Reshare()
	if h.desk.set != 1 || h.desk.fence != time.Minute {
		t.Errorf("%d verdicts, the fence at %v", h.desk.set, h.desk.fence)
	}
	h.source.budgets = map[enforcer.Share]enforcer.Limit{{License: "usher/a", Pool: "streams"}: 3}
	h.source.fence = time.Hour
	h.Reshare()
	if h.desk.set != 2 || h.desk.fence != time.Hour {
		t.Errorf("%d verdicts, the fence at %v", h.desk.set, h.desk.fence)
	}
}

// A document is installed where it counts here, and one that never can is refused.
func TestInstall(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.SetFolder(nil, nil)
	for name, document := range map[string][]byte{
		"another product": h.sign("b", func(c *usher.Claims) { c.Product = "other" }),
		"another agent":   h.sign("b", func(c *usher.Claims) { c.AgentKeys = []string{otherKey} }),
		"no licence":      []byte("no licence"),
	} {
		if _, d := h.Install(t.Context(), document, "", false); d == nil || d.Code != enforcer.DocumentRefused ||
			len(h.folder.files) != 0 {
			t.Errorf("%s: %v, %d files", name, d, len(h.folder.files))
		}
	}
	document := h.sign("a", nil)
	if got, d := h.Install(t.Context(), document, "", true); d != nil || got.After.Code != enforcer.Valid ||
		!got.Judged.InForce || len(h.folder.files) != 0 || h.desk.Verdict().Code != enforcer.NotFound {
		t.Errorf("dry run: %+v, %v", got, d)
	}
	for _, dryRun := range []bool{true, false} {
		if _, d := h.Install(t.Context(), document, "../a.lic", dryRun); d == nil || d.Code != enforcer.BadRequest ||
			d.Field != "name" {
			t.Errorf("a name that is a path, dry run %t: %v", dryRun, d)
		}
	}
	if got, d := h.Install(t.Context(), document, "", false); d != nil || got.Name != "a.lic" ||
		got.Before.Code != enforcer.NotFound || got.After.Code != enforcer.Valid || !got.Judged.InForce {
		t.Errorf("%+v, %v", got, d)
	}
	if d := h.Remove(t.Context(), "b.lic"); d == nil || d.Code != enforcer.DocumentUnknown {
		t.Errorf("%v", d)
	}
	if d := h.Remove(t.Context(), "a.lic"); d != nil || h.desk.Verdict().Code != enforcer.NotFound {
		t.Errorf("%v, %s", d, h.desk.Verdict().Code)
	}
	if _, d := h.Rollback(t.Context(), ""); d == nil || d.Code != enforcer.DocumentUnknown {
		t.Errorf("%v", d)
	}
}

// The court keeps a renewed document beside a folder that cannot be written. It counts while the folder has an issue of
// its licence.
func TestRenewBesideTheFolder(t *testing.T) {
	t.Parallel()
	kept := map[enforcer.Ref][]byte{}
	h := open(t, func(c *Config) {
		c.KeepRenewed = func(of enforcer.Ref, document []byte) error {
			kept[of] = document
			return nil
		}
	})
	file := []File{{Name: "a.lic", Data: h.sign("a", nil)}}
	h.SetFolder(file, nil)
	h.folder.readOnly = true
	renewed := h.sign("a", func(c *usher.Claims) {
		c.Issued = day0.Add(time.Minute).Unix()
		c.Pools = map[string]usher.Pool{"streams": {Max: new(int64(9))}}
	})
	h.desk.now = day0.Add(time.Hour)
	if err := h.Renew(&enforcer.License{System: "usher", ID: "a"}, renewed); err != nil {
		t.Fatal(err)
	}
	if v := h.desk.Verdict(); v.Pools["streams"].Limit != 9 || len(kept["usher/a"]) == 0 {
		t.Errorf("%v, kept %d", v.Pools["streams"], len(kept))
	}
	h.SetFolder(nil, nil)
	if v := h.desk.Verdict(); v.Code != enforcer.NotFound {
		t.Errorf("%s: %s", v.Code, v.Reason)
	}
}

// A document that an upstream brings replaces licences of its own system alone, and none of a stronger environment,
// though its id be the same.
func TestRenewalKeepsToItsSystem(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		of          *enforcer.License
		environment enforcer.Environment // of the key that signs the document
		want        string
	}{
		{&enforcer.License{System: "toy", ID: "L1"}, "",
			"it is a licence of the system usher (production), and replaces none of the system toy (production)"},
		{&enforcer.License{System: "usher", ID: "L1"}, enforcer.Test,
			"it is a licence of the system usher (test), and replaces none of the system usher (production)"},
	} {
		h := open(t, nil)
		anchor := h.signer.Anchor
		anchor.Environment = test.environment
		h.cfg.Verifier.Trust([]plugin.Anchor{anchor})
		if err := h.Renew(test.of, h.sign("L1", nil)); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}
