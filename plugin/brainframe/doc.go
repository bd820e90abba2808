// Package brainframe is BrainFrame's licence: licence keys in base64, the API that installs and shows them and that
// starts the analysis of streams, and the client of a BrainFrame server. docs/systems/brainframe.md is its page.
//
// BrainFrame's vendor has not published what a licence key contains, so no genuine key can be verified. A key here is a
// signed document of another licence system in base64, believed by the keys that are in trust for this system. Start
// reading at [Format.Verify] and [Dialect.Handler].
package brainframe

// System is the system's name.
const System = "brainframe"
