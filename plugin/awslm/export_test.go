package awslm

import "github.com/usher-agent/usher/enforcer"

// For fuzzing without a server or a signature.
var (
	Seal            = seal
	ReceivedLicense = receivedLicense
	BorrowedLicense = func(payload []byte) (*enforcer.License, error) { return borrowedLicense(payload, "p") }
)
