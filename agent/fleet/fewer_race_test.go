//go:build race

package fleet

import "flag"

// With the race detector, which makes a history eight times as dear, four of each kind are played, unless the command
// line says otherwise. make test plays 200 without it, these among them.
func init() { _ = flag.Set("fleet.seeds", "4") }
