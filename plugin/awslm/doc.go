// Package awslm is AWS License Manager: licences that a seller has issued there (on AWS Marketplace or by himself) and
// that an AWS account has received. docs/systems/awslm.md is its manual.
//
// [Format] reads two kinds of document. A received licence is what ListReceivedLicenses or GetLicense says; AWS signs
// nothing there, so the agent that fetched it seals it with its own key, and believes no other agent's seal. A borrowed
// licence is the SignedToken of CheckoutBorrowLicense, signed by the seller's KMS key. [Client] is the upstream: it
// finds the licence, checks it, takes slots in blocks (PROVISIONAL) and draws for good (PERPETUAL).
//
// wire.go has the API's messages (AWS JSON 1.1, service model 2018-08-01) and what may stand in them, for whoever
// answers it.
package awslm

// System is the system's name.
const System = "awslm"
