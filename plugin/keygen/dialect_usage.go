package keygen

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
)

// maxUses is the greatest number of uses that the server counts.
const maxUses = 1<<31 - 1

// by reads the number of uses in a request.
func (x *request) by(name string) (int64, *response) {
	if _, counted := x.about.verdict.Meters[MeterUses]; !counted {
		return 0, forbidden("", "the license counts no uses: it has no meter "+MeterUses)
	}
	var in struct {
		Increment jsontext.Value `json:"increment"`
		Decrement jsontext.Value `json:"decrement"`
	}
	if a := x.meta(&in); a != nil {
		return 0, a
	}
	said := in.Increment
	if name == "decrement" {
		said = in.Decrement
	}
	if len(said) == 0 {
		return 1, nil
	}
	var n *int64
	if err := json.Unmarshal(said, &n); err != nil || n == nil || *n < 1 || *n > maxUses {
		return 0, problem(http.StatusBadRequest, "", "must be an integer between 1 and 2147483647", "pointer",
			"/meta/"+name)
	}
	return *n, nil
}

var usesLimit = map[string]string{"": "USES_LIMIT_EXCEEDED"}

// growsWithin is how long an increment waits for the agent to take more of the site's uses.
const growsWithin = 2 * time.Second

// increment draws from the meter uses.
func (x *request) increment() *response {
	n, a := x.by("increment")
	if a != nil {
		return a
	}
	if x.uses()+n > maxUses {
		return invalid("USES_LIMIT_EXCEEDED", "usage exceeds 2147483647", "/data/attributes/uses")
	}
	_, _, d := x.Acquire(x.r.Context(), &enforcer.Acquire{Caller: x.caller, Lifetime: enforcer.LifetimeDraw,
		Pool: MeterUses, N: n, Wait: growsWithin}, nil)
	return x.counted(d)
}

func (x *request) counted(d *enforcer.Denial) *response {
	switch {
	case d == nil:
		return show(x.licenseObject())
	case d.Code == enforcer.MeterEmpty:
		return invalid("USES_LIMIT_EXCEEDED", exceeded("USES_LIMIT_EXCEEDED", d)+d.Detail, "/data/attributes/uses")
	case d.Code == enforcer.BadRequest:
		return invalid("USES_INVALID", "must be greater than or equal to 0: "+d.Detail, "/data/attributes/uses")
	}
	return denied(d, usesLimit)
}

// decrement takes uses back, for admins and if the licence makes the meter adjustable.
func (x *request) decrement() *response {
	n, a := x.by("decrement")
	if a != nil {
		return a
	}
	_, d := x.Adjust(MeterUses, -n, x.caller)
	return x.counted(d)
}

// resetUsage takes all draws back. It is refused where uses would remain that the account has counted.
func (x *request) resetUsage() *response {
	if n := x.about.terms.Attributes.Uses; n > 0 {
		return forbidden("", fmt.Sprintf(
			"the account has counted %d uses before the license's file was made, and only "+
				"the vendor resets those; decrement-usage takes uses back that were counted here", n))
	}
	if _, counted := x.about.verdict.Meters[MeterUses]; !counted {
		return forbidden("", "the license counts no uses: it has no meter "+MeterUses)
	}
	var drawn int64
	for _, p := range x.Pools() {
		if p.Meter && p.Name == MeterUses {
			drawn = p.InUse
		}
	}
	if drawn == 0 && (x.caller.Admin || x.about.verdict.Meters[MeterUses].Adjustable) {
		return show(x.licenseObject()) // there is nothing to take back
	}
	_, d := x.Adjust(MeterUses, -drawn, x.caller)
	return x.counted(d)
}
