// Package oldkernel runs a program as if the kernel were an older one, for tests: a seccomp filter (seccomp(2)) answers
// as the older kernel would where it lacks a call. It pretends nothing on other systems than Linux.
package oldkernel

// Env names the release to pretend, in the environment of a program that calls Main.
const Env = "USHER_TEST_OLD_KERNEL"
