// Package configs has the reference configuration in it, so that the program can write its manual page.
package configs

import _ "embed"

// Reference is usher.yaml: every key, each with what it means above it or behind it.
//
//go:embed usher.yaml
var Reference string
