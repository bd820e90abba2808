package plugin

import (
	"strings"
	"testing"
)

// A full upstream's word of where the slots are, and of the rule that leaves this host no more, comes through the check
// of its error, within bounds.
func TestCheckedErrorSaysWhere(t *testing.T) {
	t.Parallel()
	full := &Error{Class: Transient, SystemCode: SystemFull, Elsewhere: &Elsewhere{Out: 4, Idle: 9, Rule: "berlin\n"}}
	if got := full.Checked().Elsewhere; got == nil || *got != (Elsewhere{Out: 4, Idle: 4, Rule: "berlin"}) {
		t.Errorf("%+v", got)
	}
	full.Elsewhere = &Elsewhere{Out: -1, Idle: -1, Rule: strings.Repeat("x", 1<<16)}
	if got := full.Checked().Elsewhere; got.Out != 0 || got.Idle != 0 || len(got.Rule) > maxWord {
		t.Errorf("%d, %d, %d bytes", got.Out, got.Idle, len(got.Rule))
	}
	full.SystemCode = "busy"
	if got := full.Checked().Elsewhere; got != nil {
		t.Errorf("of an upstream that is not full: %+v", got)
	}
}
