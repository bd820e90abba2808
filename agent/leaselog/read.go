package leaselog

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/enforcer"
)

// Read calls see with each entry of the log in a folder, the oldest first, and with a line of another type, such as a
// gap, as an entry of that type with the line's words as its Cause. Its error says where the log is broken; what comes
// before was seen.
func Read(dir string, see func(Entry)) error {
	_, err := eventlog.Verify(dir, nil, func(e eventlog.Event) {
		var entries []Entry
		if e.Type != Type || json.Unmarshal(e.Body, &entries) != nil {
			see(Entry{At: e.At, Type: e.Type, Cause: e.Detail})
			return
		}
		for _, entry := range entries {
			see(entry)
		}
	})
	return err
}

// Text returns an entry as one line, without its time.
func (e Entry) Text() string {
	s := e.Type
	if e.Lease != "" {
		s += " " + e.Lease
	}
	for i, it := range e.Items {
		if s += ", "; i == 0 {
			s = strings.TrimSuffix(s, ", ") + " "
		}
		s += fmt.Sprintf("%s=%d", it.Pool, it.N)
		if it.Of > 1 {
			s += fmt.Sprintf("/%d", it.Of)
		}
	}
	if e.Cause != "" {
		s += ": " + e.Cause
	}
	if e.Rule != "" {
		s += " by rule " + e.Rule
	}
	if e.Type == Ended {
		s += " after " + enforcer.Span(time.Duration(e.Held*float64(time.Second)).Round(time.Millisecond))
	}
	if !e.Until.IsZero() {
		s += " until " + e.Until.UTC().Format(time.RFC3339)
	}
	if e.Renewals > 0 {
		s += fmt.Sprintf(" %d more of other leases", e.Renewals)
	}
	var more []string
	if e.Holder != "" {
		more = append(more, "holder="+e.Holder)
	}
	if e.Lifetime != "" {
		more = append(more, "lifetime="+e.Lifetime)
	}
	if e.Holders > 0 {
		more = append(more, fmt.Sprintf("holders=%d", e.Holders))
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}
