//go:build race

package enforcer

import "flag"

// With the race detector a fifth of rapid's histories is played, unless the command line says otherwise. The core has
// no goroutine, and a history costs eight times as much with it. make test plays all of them without it, too.
func init() { _ = flag.Set("rapid.checks", "20") }
