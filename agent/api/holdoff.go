package api

import (
	"math"
	"strconv"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// holdOff reads for how long a release holds the holder off.
func holdOff(v float64) (*time.Duration, *enforcer.Denial) {
	span, d := seconds("hold_off_seconds", v)
	if d != nil {
		return nil, d
	}
	return &span, nil
}

// holdOffOf reads the query parameter hold_off_seconds; nil: there is none.
func holdOffOf(c *call) (*time.Duration, *enforcer.Denial) {
	if c.req.URL.RawQuery == "" || !c.req.URL.Query().Has("hold_off_seconds") {
		return nil, nil
	}
	text := c.req.URL.Query().Get("hold_off_seconds")
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) {
		return nil, badRequest("hold_off_seconds", "give a number of seconds", "hold_off_seconds is %q",
			plugin.Short(text))
	}
	return holdOff(v)
}

func holdOffShape(h *enforcer.HoldOff) wire.HoldOff {
	who := h.Who()
	out := wire.HoldOff{Lease: h.Lease.String(), UID: who.UID, Credential: who.Credential, Since: h.Since.UTC(),
		Until: h.Until.UTC()}
	for _, c := range h.Of {
		if c.PID != 0 {
			out.PIDs = append(out.PIDs, c.PID)
		}
	}
	return out
}
