package awslm

import "github.com/usher-agent/usher/enforcer"

// For fuzzing without a signature in the way.
var (
	ReceivedLicense = receivedLicense
	BorrowedLicense = func(payload []byte) (*enforcer.License, error) { return borrowedLicense(payload, "p") }
)
