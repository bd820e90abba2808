// Package oldkernel runs a program as if the kernel were an older one, for tests: a seccomp filter (seccomp(2)) answers
// what the older one does not know as it would. There is nothing to pretend but on Linux.
package oldkernel

// Env names the release to pretend, in the environment of a program that calls Main.
const Env = "USHER_TEST_OLD_KERNEL"
