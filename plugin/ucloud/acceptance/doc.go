// Package acceptance runs the commands of UCloud's manual page, with curl and openssl, against a real agent. It is a
// module of its own, as those of the other systems are.
package acceptance
