package main

// aDialect is one that a listener of the tests speaks, whichever it is.
const aDialect = "keygen"
