package plugin

import (
	"context"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Drawer is an Upstream that hands out draws of a meter for good, in blocks from which an agent then draws one by one.
type Drawer interface {
	Upstream
	// Draw takes draws. The caller has made the request durable before. After a crash, and after an error that leaves
	// open whether draws were taken (Transient), it asks for the same again with the same Token, and gets the same
	// answer and no second draws. An error with the SystemCode NO_SLOTS says that there are no more until the meter
	// resets. Any Refused or Misconfigured says that this Token took none.
	Draw(context.Context, *Draw) (*Drawn, error)
}

// Draw asks for draws of a meter.
type Draw struct {
	Request
	Meter string
	N     int64
	Token string // the same token and request take the same draws once
	// Again says that the same request was made before, and may have taken draws: for a remote side that knows no
	// tokens.
	Again bool
	// Period is when the period began in which the caller counts the draws. Zero: the meter never resets, or the caller
	// does not say.
	Period time.Time
}

// Drawn is what was taken: draws that nobody else has, until the meter's period is over.
type Drawn struct {
	Meter string
	N     int64  // from 1 to the number asked for
	State []byte // as Reply.State
}

// Fetcher is an Upstream that can bring a host its first document, where none lies in the licence folder.
type Fetcher interface {
	Upstream
	// Fetch returns the licence's document. The request has neither LicenseID nor Document, or those of a licence that
	// is over.
	Fetch(context.Context, *Request) (*Reply, error)
}

// Refetcher is a Fetcher that brings another document before one ends.
type Refetcher interface {
	Fetcher
	// Refetches reports whether a fetched licence is to replace this one when it is ending: see
	// [enforcer.License.Ending].
	Refetches(*enforcer.License) bool
}
