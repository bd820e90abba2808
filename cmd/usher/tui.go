package main

// How the command line speaks to people, once for all commands:
//
//   - The answer goes to standard output; everything else to standard error.
//   - Tables have a head in capitals and columns aligned by spaces; nothing is coloured.
//   - An error is "error: " and one sentence; a remedy follows as "hint: " and another.
//   - With --json, standard output has the API's JSON and nothing else.

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

func limitText(n *int64) string {
	if n == nil {
		return "unlimited"
	}
	return fmt.Sprint(*n)
}

func timeText(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// away returns the distance of a time, in two units at most.
func away(t, now time.Time) string {
	d := t.Sub(now)
	if d == math.MaxInt64 { // centuries ahead, which a span has no number for
		return fmt.Sprintf("in %d days", (t.Unix()-now.Unix())/86400)
	}
	if d < 0 {
		return span(-d) + " ago"
	}
	if days := (t.Unix() - now.Unix()) / 86400; days > 200*365 { // more than a span can tell
		return fmt.Sprintf("in %d days", days)
	}
	return "in " + span(d)
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Round(time.Second).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func featureText(f wire.Feature) string {
	switch v := f.Value.(type) {
	case nil:
		return "off"
	case bool:
		if v {
			return "on"
		}
		return "off"
	case float64:
		return strings.TrimSpace(fmt.Sprintf("%v %s", v, f.Unit))
	default:
		return fmt.Sprint(v)
	}
}

// nobody is the uid of holders for whom no kernel vouches.
const nobody = 65534

func holderText(h *wire.Holder) string {
	if h == nil {
		return "-"
	}
	s := fmt.Sprintf("uid %d", h.UID)
	switch {
	case h.Credential != "": // over TCP the credential is who it is, and the uid nobody's
		s = "credential " + h.Credential
	case h.UID == nobody:
		s = "without an identity"
	}
	if h.PID != 0 {
		s += fmt.Sprintf(" pid %d", h.PID)
	}
	if h.Exe != "" {
		s += " " + h.Exe
	}
	var labels []string
	for k, v := range h.Labels {
		labels = append(labels, k+"="+v)
	}
	if slices.Sort(labels); len(labels) > 0 {
		s += " (" + strings.Join(labels, ", ") + ")"
	}
	return s
}
