package brainframe

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// What a licence's terms are called in the licence of Usher.
const (
	// PoolStreams is the pool of max_streams: streams that are analysed at one time.
	PoolStreams = "streams"
	// FeatureJournal is the feature of journal_max_allowed_age: a number, in seconds where it has no unit.
	FeatureJournal = "journal_max_allowed_age"
)

// The names of the terms in the API.
const (
	termCheckIn = "online_checkin"
	termStreams = "max_streams"
	termJournal = FeatureJournal
	termExpires = "expiration_date"
)

var termNames = []string{termCheckIn, termStreams, termJournal, termExpires}

// LicenseInfo is a licence as the API shows it.
type LicenseInfo struct {
	State enforcer.State `json:"state"`
	Terms *Terms         `json:"terms"` // nil: no licence is valid
}

// Terms are the four terms. All of them always stand in the JSON.
type Terms struct {
	OnlineCheckIn bool     `json:"online_checkin"`
	MaxStreams    *int64   `json:"max_streams"`             // nil: unlimited
	JournalMaxAge *Seconds `json:"journal_max_allowed_age"` // nil: unlimited
	Expires       *Date    `json:"expiration_date"`         // nil: perpetual
}

// Seconds is a span in seconds, which JSON shows as a float even where it is whole: clients tell the two apart.
type Seconds float64

// MarshalJSON writes a number with a fraction or an exponent.
func (s Seconds) MarshalJSON() ([]byte, error) {
	x := float64(s)
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return []byte("null"), nil
	}
	if x == math.Trunc(x) && math.Abs(x) < 1e15 {
		return strconv.AppendFloat(nil, x, 'f', 1, 64), nil
	}
	return strconv.AppendFloat(nil, x, 'g', -1, 64), nil
}

// Date is a day of the calendar without a zone, YYYY-MM-DD in JSON. Its time is 00:00 UTC of the day.
type Date time.Time

const dateForm = time.DateOnly

// MarshalJSON writes YYYY-MM-DD.
func (d Date) MarshalJSON() ([]byte, error) { return []byte(`"` + d.String() + `"`), nil }

// UnmarshalJSON reads YYYY-MM-DD.
func (d *Date) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	t, err := time.Parse(dateForm, s)
	if err != nil {
		return errors.New("it is no date of the form YYYY-MM-DD")
	}
	*d = Date(t)
	return nil
}

// String returns YYYY-MM-DD.
func (d Date) String() string { return time.Time(d).UTC().Format(dateForm) }

// The readings of expiration_date. The client of BrainFrame's vendor shows 00:00 UTC of the date as the end.
const (
	Exclusive = "exclusive" // a licence is over when its date begins, in UTC
	Inclusive = "inclusive" // a licence is over when its date ends, in UTC
)

// lastDate is the last day that clients can read.
var lastDate = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// dateOf returns the expiration_date of a licence that ends at an instant. An end within a day gives the date of an
// earlier end: the date never promises more than the licence. nil: the licence is perpetual.
func dateOf(end time.Time, inclusive bool) *Date {
	if end.IsZero() {
		return nil
	}
	day := end.UTC().Truncate(24 * time.Hour)
	if inclusive {
		day = day.AddDate(0, 0, -1)
	}
	if day.After(lastDate) {
		day = lastDate
	}
	return new(Date(day))
}

// infoOf returns what the API shows of a verdict; a nil verdict is a missing licence.
func infoOf(v *enforcer.Verdict, inclusive bool) LicenseInfo {
	if v == nil {
		return LicenseInfo{State: enforcer.StateMissing}
	}
	out := LicenseInfo{State: v.State}
	if v.State != enforcer.StateValid {
		return out
	}
	t := &Terms{MaxStreams: new(int64(0)), JournalMaxAge: journal(v.Features)}
	if p, ok := v.Pools[PoolStreams]; ok {
		t.MaxStreams = count(p.Limit)
	}
	var end time.Time // the earliest
	for _, j := range v.Licenses {
		if !j.InForce || j.License == nil {
			continue
		}
		l := j.License
		t.OnlineCheckIn = t.OnlineCheckIn || l.CheckIn.Stated()
		if !l.Expires.IsZero() && (end.IsZero() || l.Expires.Before(end)) {
			end = l.Expires
		}
	}
	t.Expires = dateOf(end, inclusive)
	out.Terms = t
	return out
}

// count returns a limit in JSON's form.
func count(l enforcer.Limit) *int64 {
	if l == enforcer.Unlimited {
		return nil
	}
	return new(int64(l))
}

// units are the seconds of a journal's unit.
var units = map[string]float64{"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400,
	"hour": 3600, "hours": 3600, "week": 7 * 86400, "weeks": 7 * 86400}

// journal returns the term of a licence's features; nil: the licence states none. A value that is no number, or has an
// unknown unit, permits nothing.
func journal(features map[string]enforcer.Value) *Seconds {
	v, ok := features[FeatureJournal]
	if !ok {
		return nil
	}
	unit, known := units[strings.ToLower(v.Unit)]
	if v.Kind != enforcer.KindNumber || !known {
		return new(Seconds(0))
	}
	return new(Seconds(v.Number * unit))
}

// ParseLicenseInfo reads a LicenseInfo as strictly as the vendor's own client does: one of the four states, terms that
// are null or all there. Other members may stand beside them. The licence's own text is never quoted in an error.
func ParseLicenseInfo(b []byte) (*LicenseInfo, error) {
	var all map[string]jsontext.Value
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, plugin.JSONFault(err, "member")
	}
	var state string
	if err := json.Unmarshal(all["state"], &state); err != nil {
		return nil, errors.New("it has no state")
	}
	out := &LicenseInfo{State: enforcer.State(state)}
	switch out.State {
	case enforcer.StateValid, enforcer.StateExpired, enforcer.StateInvalid, enforcer.StateMissing:
	default:
		return nil, fmt.Errorf("its state is %q, which is none of BrainFrame's", plugin.Short(state))
	}
	terms, ok := all["terms"]
	if !ok {
		return nil, errors.New("it has no terms")
	}
	if terms.Kind() == 'n' {
		return out, nil
	}
	var each map[string]jsontext.Value
	if err := json.Unmarshal(terms, &each); err != nil {
		return nil, plugin.JSONFault(err, "term")
	}
	for _, name := range termNames {
		if _, ok := each[name]; !ok {
			return nil, fmt.Errorf("its terms lack %s", name)
		}
	}
	if err := json.Unmarshal(terms, &out.Terms); err != nil {
		return nil, plugin.JSONFault(err, "term")
	}
	return out, nil
}
