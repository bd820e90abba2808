// Package ucloud is the licence system of UCloud, the cloud platform whose licences are resources.
//
// UCloud states no slots, no expiry and no signature. A companion document, which the vendor signs, states them, and
// UCloud's own licence resource says whether they may be used now: see [Format] and [Client]. [Dialect] answers
// UCloud's licence API locally. The older generation of the API (Kotlin Core) is the model of the answers. Requests of
// the newer one (Go Core) are understood too.
package ucloud

// System is the system's name.
const System = "ucloud"
