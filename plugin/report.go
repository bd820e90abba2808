package plugin

import (
	"context"

	"github.com/usher-agent/usher/enforcer"
)

// Reporter is an Upstream whose remote side is told how its licence stands on this agent, and which leases hold the
// licence's slots. No decision waits for a report.
//
// The agent makes one report at a time. When something has changed it makes the next, a moment later, with all that is
// so by then: of several changes in between only the last counts. After an error it tries again with back-off.
type Reporter interface {
	Upstream
	// Label names the label of the leases that reports have. It never changes.
	Label() string
	// Report tells the remote side. It returns the State of the next report, at most MaxReportState bytes.
	Report(context.Context, *Report) (state []byte, err error)
}

// MaxReportState is how many bytes the state of reports may have.
const MaxReportState = 256 << 10

// Report is how the licence of a system stands on this agent: the one in force, or else one of those at hand.
type Report struct {
	LicenseID string
	Document  []byte // as it was installed; nil: there is no licence of the system
	// Code is Valid where the licence may be used as far as this agent can tell by itself, or else why it may not. What
	// the upstream has said plays no part in it, so that nobody's own word comes back.
	Code enforcer.Code
	// Leases are those that hold slots of the licence's pools and bear the label, in the order of their acquires,
	// without their other labels.
	Leases []Bearer
	// State is what the last successful report returned, over restarts too; nil: there was none, or it was lost.
	State []byte
}
