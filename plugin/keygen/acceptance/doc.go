// Package acceptance runs the official Go SDK of Keygen against the dialect of a real agent. It is a module of its own,
// so that what the SDK brings along is nowhere near the agent.
package acceptance
