// Package acceptance tries the fleet's store with a current etcd, which runs in the test. It is a module of its own, so
// that the server's dependencies stay away from the agent.
package acceptance
