// Package soak proves that slots are neither lost nor doubled, even if agents and clients are killed. Its test hammers
// a real agent with real client processes, kills both, and checks the recorded history. docs/proof.md says what each
// detector catches.
package soak
