// Package acceptance runs the official Go SDK of Keygen against the dialect of a real agent. It is a module of its own,
// so that the SDK's dependencies stay away from the agent.
package acceptance
