package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

var noLicence = &enforcer.Problem{Code: enforcer.Malformed, Reason: "no licence"}

// good and bad are sightings of one file. The generation differs for each text.
func good(gen uint64) sighting { return sighting{gen: gen, data: doc(fmt.Sprint(gen))} }
func bad(gen uint64) sighting {
	return sighting{gen: gen, data: fmt.Appendf(nil, "bad %d", gen), problem: noLicence}
}

const ms = time.Millisecond

// look is a settler's sighting at one time, and its outcome.
type look struct {
	at   time.Duration
	saw  *sighting // nil: the file is not there
	want string    // the outcome: "-" nothing counts, "1" good text 1, "1!" stale, "!" a problem alone
	next time.Duration
	keep string // "1": text 1 is kept, "x": dropped
}

func lookAt(at time.Time, seen map[string]sighting) survey {
	return survey{began: at, ended: at, seen: seen}
}

func see(s sighting) *sighting { return &s }

func written(s sighting, at time.Duration) *sighting {
	s.written = time.Unix(1000, 0).Add(at)
	return &s
}

var vacant = &sighting{gen: 9, problem: noLicence, vacant: true}

var settling = []struct {
	name  string
	looks []look
}{
	{"good bytes count at once", []look{{0, see(good(1)), "1", 0, "1"}, {1 * ms, see(good(2)), "2", 0, "2"}}},
	{"the same good bytes are kept once",
		[]look{{0, see(good(1)), "1", 0, "1"}, {1 * ms, see(good(1)), "1", 0, ""}}},
	{"broken bytes wait for their last write", []look{
		{0, see(bad(1)), "-", 250, ""}, {200 * ms, see(bad(2)), "-", 450, ""},
		{449 * ms, see(bad(2)), "-", 450, ""},
		{450 * ms, see(bad(2)), "!", 0, ""}}},
	{"a write in pieces is never broken", []look{
		{0, see(bad(1)), "-", 250, ""}, {249 * ms, see(bad(2)), "-", 499, ""},
		{400 * ms, see(good(3)), "3", 0, "3"}}},
	{"a broken replacement leaves the last good bytes", []look{
		{0, see(good(1)), "1", 0, "1"}, {10 * ms, see(bad(2)), "1", 260, ""}, {260 * ms, see(bad(2)), "1!", 0, ""},
		{400 * ms, see(bad(3)), "1!", 650, ""}, {700 * ms, see(good(4)), "4", 0, "4"}}},
	{"a replacement by way of removal does not flap", []look{
		{0, see(good(1)), "1", 0, "1"}, {10 * ms, nil, "1", 260, ""}, {259 * ms, nil, "1", 260, ""},
		{260 * ms, see(good(2)), "2", 0, "2"}}},
	{"removed and come back in pieces", []look{
		{0, see(good(1)), "1", 0, "1"}, {10 * ms, nil, "1", 260, ""}, {200 * ms, see(bad(2)), "1", 450, ""},
		{300 * ms, see(good(3)), "3", 0, "3"}}},
	{"gone is gone after a quarter of a second", []look{
		{0, see(good(1)), "1", 0, "1"}, {10 * ms, nil, "1", 260, ""}, {260 * ms, nil, "-", 0, "x"},
		{261 * ms, see(bad(2)), "-", 511, ""}, {511 * ms, see(bad(2)), "!", 0, ""}}},
	{"each absence counts for itself", []look{
		{0, see(good(1)), "1", 0, "1"}, {10 * ms, nil, "1", 260, ""}, {250 * ms, see(good(1)), "1", 0, ""},
		{300 * ms, nil, "1", 550, ""}}},
	{"a broken file that goes unnoticed leaves no trace", []look{
		{0, see(bad(1)), "-", 250, ""}, {10 * ms, nil, "-", 260, ""}, {260 * ms, nil, "-", 0, "x"}}},
	{"broken long before the first look", []look{{0, written(bad(1), -time.Second), "!", 0, ""}}},
	{"broken just before the first look", []look{{0, written(bad(1), -100*ms), "-", 150, ""}}},
	{"a file system's clock ahead of ours", []look{{0, written(bad(1), time.Hour), "-", 250, ""}}},
	{"a link whose target is gone is a removal with a word", []look{
		{0, see(good(1)), "1", 0, "1"}, {10 * ms, vacant, "1", 260, ""}, {260 * ms, vacant, "!", 0, "x"}}},
}

func TestSettle(t *testing.T) {
	for _, tc := range settling {
		t.Run(tc.name, func(t *testing.T) { settle(t, tc.looks, nil, 0) })
	}
}

// again is a sighting of a file that was written again since.
func again(s sighting) *sighting {
	s.target.changed++
	return &s
}

// Two looks that see the same do not prove that all was so in between.
func TestSettleBetweenLooks(t *testing.T) {
	for _, tc := range []struct {
		name    string
		looks   []look
		folders []int64       // how often the folder had changed before each look
		took    time.Duration // each look
	}{
		{"a file that was there meanwhile is not gone", []look{
			{0, see(good(1)), "1", 0, "1"}, {10 * ms, nil, "1", 260, ""}, {260 * ms, nil, "1", 510, ""},
			{500 * ms, nil, "1", 510, ""}, {510 * ms, nil, "-", 0, "x"}}, []int64{0, 1, 2, 2, 2}, 0},
		{"a link that led to a file meanwhile does not lead nowhere", []look{
			{0, see(good(1)), "1", 0, "1"}, {10 * ms, vacant, "1", 260, ""}, {260 * ms, vacant, "1", 510, ""},
			{510 * ms, vacant, "!", 0, "x"}}, []int64{0, 1, 2, 2}, 0},
		{"gone is gone after two seconds, though the folder goes on changing", []look{
			{0, see(good(1)), "1", 0, "1"}, {10 * ms, nil, "1", 260, ""}, {260 * ms, nil, "1", 510, ""},
			{1960 * ms, nil, "1", 2210, ""}, {2010 * ms, nil, "1", 2210, ""}, {2210 * ms, nil, "-", 0, "x"}},
			[]int64{0, 1, 2, 3, 4, 5}, 0},
		{"gone from the end of a look to the begin of another", []look{
			{0, see(good(1)), "1", 0, "1"}, {10 * ms, nil, "1", 360, ""}, {260 * ms, nil, "1", 360, ""},
			{360 * ms, nil, "-", 0, "x"}}, []int64{0, 1, 1, 1}, 100 * ms},
		{"broken from the end of a look to the begin of another", []look{
			{0, see(good(1)), "1", 0, "1"}, {10 * ms, see(bad(2)), "1", 360, ""}, {260 * ms, see(bad(2)), "1", 360, ""},
			{360 * ms, see(bad(2)), "1!", 0, ""}}, []int64{0, 0, 0, 0}, 100 * ms},
		{"broken bytes that were written again are a write under way", []look{
			{0, see(good(1)), "1", 0, "1"}, {10 * ms, see(bad(2)), "1", 260, ""},
			{260 * ms, again(bad(2)), "1", 510, ""}, {510 * ms, again(bad(2)), "1!", 0, ""}}, []int64{0, 0, 0, 0}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) { settle(t, tc.looks, tc.folders, tc.took) })
	}
}

func settle(t *testing.T, looks []look, folders []int64, took time.Duration) {
	start := time.Unix(1000, 0)
	s := newSettler()
	for i, l := range looks {
		seen := map[string]sighting{}
		if l.saw != nil {
			seen["f"] = *l.saw
		}
		p := survey{began: start.Add(l.at), ended: start.Add(l.at + took), seen: seen}
		if folders != nil {
			p.folder.changed = folders[i]
		}
		next, changes := s.step(p)
		var got string
		switch files := s.files(); {
		case len(files) == 0:
			got = "-"
		default:
			f := files[0]
			if f.Problem == nil || f.Stale {
				got = strings.TrimSuffix(strings.TrimPrefix(string(f.Data), "licence<"), ">")
			}
			if f.Problem != nil {
				got += "!"
			}
		}
		if got != l.want {
			t.Errorf("look %d: counts %q, want %q", i, got, l.want)
		}
		var wantNext time.Time
		if l.next != 0 {
			wantNext = start.Add(l.next * ms)
		}
		if !next.Equal(wantNext) {
			t.Errorf("look %d: next %v, want %v", i, next.Sub(start), wantNext.Sub(start))
		}
		keep := ""
		for _, c := range changes {
			if keep += "x"; c.data != nil {
				keep = strings.TrimSuffix(strings.TrimPrefix(string(c.data), "licence<"), ">")
			}
		}
		if keep != l.keep {
			t.Errorf("look %d: keeps %q, want %q", i, keep, l.keep)
		}
	}
}

// The instants that step returns are enough to wake up at: nothing changes between them.
func TestSettleByItsOwnDeadlines(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newSettler()
		begin := time.Now()
		next, _ := s.step(lookAt(begin, map[string]sighting{"a": bad(1), "b": good(2)}))
		<-time.After(100 * time.Millisecond)
		next2, _ := s.step(lookAt(time.Now(), map[string]sighting{"a": bad(1)}))
		if next != next2 {
			t.Fatalf("deadline moved from %v to %v", next.Sub(begin), next2.Sub(begin))
		}
		var told []string
		for !next.IsZero() {
			<-time.After(time.Until(next))
			next, _ = s.step(lookAt(time.Now(), map[string]sighting{"a": bad(1)}))
			told = append(told, fmt.Sprintf("%v:%d", time.Since(begin), len(s.files())))
		}
		if got, want := strings.Join(told, " "), "250ms:2 350ms:1"; got != want {
			t.Errorf("woke %s, want %s", got, want)
		}
	})
}

func TestSettleRecheck(t *testing.T) {
	s := newSettler()
	now := time.Unix(1000, 0)
	s.step(lookAt(now, map[string]sighting{"f": good(1)}))
	distrust := func(string, []byte) *enforcer.Problem { return noLicence }
	trust := func(string, []byte) *enforcer.Problem { return nil }

	s.recheck(distrust)
	now = now.Add(time.Millisecond)
	sg := good(1)
	sg.problem = noLicence
	s.step(lookAt(now, map[string]sighting{"f": sg}))
	if f := s.files()[0]; f.Problem == nil || f.Stale {
		t.Errorf("distrusted bytes still count: %+v", f)
	}
	s.recheck(trust)
	s.step(lookAt(now, map[string]sighting{"f": bad(2)}))
	now = now.Add(Patience)
	s.step(lookAt(now, map[string]sighting{"f": bad(2)}))
	if f := s.files()[0]; !f.Stale || string(f.Data) != string(doc("1")) {
		t.Errorf("trusted again, the last good bytes do not stand: %+v", f)
	}
	s.recheck(distrust)
	s.step(lookAt(now, map[string]sighting{"f": bad(2)}))
	if f := s.files()[0]; f.Stale {
		t.Errorf("distrusted, the last good bytes still stand: %+v", f)
	}
}
