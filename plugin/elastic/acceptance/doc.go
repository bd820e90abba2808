// Package acceptance runs clients of Elastic's against the dialect of a real agent: cloud-sdk-go, the esapi of
// go-elasticsearch, the client for JavaScript, and the commands of the manual. It is a module of its own, so that what
// the clients bring along is nowhere near the agent.
package acceptance
