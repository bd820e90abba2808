package keygen

import (
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

// times are the last times of calls about a licence here; zero: there was none.
type times struct {
	Validated  time.Time `json:"validated,omitzero"`
	CheckedIn  time.Time `json:"checked_in,omitzero"`
	CheckedOut time.Time `json:"checked_out,omitzero"`
}

// validatedEvery is how often the time of a validation goes to the disk; a crash loses no more of it.
const validatedEvery = time.Minute

// timesKey is the store's key for the times of a licence's calls. Earlier agents kept the time of a validation alone.
func (s *subject) timesKey() string { return "validated/" + namedID("license", s.license.ID) }

// timesHere returns the times of calls about the licence here: those in memory, or else those on the disk.
func (x *request) timesHere() (t times) {
	key := x.about.timesKey()
	x.timesMu.Lock()
	defer x.timesMu.Unlock()
	if t, ok := x.lastTimes[key]; ok {
		return t
	}
	return x.timesStored(key)
}

func (x *request) timesStored(key string) (t times) {
	b, _ := x.Store().Get(key)
	if json.Unmarshal(b, &t) != nil {
		t = times{}
		t.Validated, _ = time.Parse(time.RFC3339, string(b))
	}
	return t
}

// noteTime changes the times of calls about the licence. They go to the disk unless those there are younger than every.
func (x *request) noteTime(change func(*times), every time.Duration) {
	t := x.timesHere()
	change(&t)
	key := x.about.timesKey()
	x.timesMu.Lock()
	x.lastTimes[key] = t
	x.timesMu.Unlock()
	stored := x.timesStored(key)
	if every > 0 && t.Validated.Sub(stored.Validated).Abs() < every {
		return
	}
	value, err := json.Marshal(&t)
	if err == nil {
		err = x.Store().Apply(plugin.Change{Key: key, Value: value})
	}
	if err != nil {
		x.Log().Warn("the time of a call cannot be stored", "error", err)
	}
}

// times returns the licence's attributes that are times of calls: the later of Keygen's and the agent's. The next
// check-in follows the last by the policy's interval.
func (x *request) times(said object) map[string]time.Time {
	here, a := x.timesHere(), &x.about.terms.Attributes
	out := map[string]time.Time{}
	for name, t := range map[string]time.Time{"lastValidated": here.Validated, "lastCheckIn": here.CheckedIn,
		"lastCheckOut": here.CheckedOut} {
		if out[name] = instantOf(said[name]); t.After(out[name]) {
			out[name] = t
		}
	}
	out["nextCheckIn"] = instantOf(said["nextCheckIn"])
	if !a.RequireCheckIn {
		delete(out, "lastCheckIn")
		delete(out, "nextCheckIn")
		return out
	}
	if every, last := checkIn(a, &x.about.terms.Policy, x.about.license.Issued); every.Stated() {
		if out["lastCheckIn"].After(last) {
			last = out["lastCheckIn"]
		}
		out["nextCheckIn"] = every.After(last)
	}
	return out
}
