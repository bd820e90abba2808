// Package awslm is AWS License Manager: licences that a seller has issued there, on AWS Marketplace or directly, and
// that an AWS account has received. docs/systems/awslm.md is its manual.
//
// [Format] reads two kinds of document. A received licence is an answer of ListReceivedLicenses or GetLicense. AWS does
// not sign these answers. So the agent that fetched one seals it with its own key, and believes no other agent's seal.
// A borrowed licence is the SignedToken of CheckoutBorrowLicense, signed by the seller's KMS key. [Client] is the
// upstream: it finds the licence, checks it, takes slots in blocks (PROVISIONAL) and draws permanently (PERPETUAL).
// wire.go has the API's messages (AWS JSON 1.1, service model 2018-08-01) and validates them. The dialect and the test
// server share it.
package awslm

// System is the system's name.
const System = "awslm"
