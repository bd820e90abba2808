package seals

import (
	"time"
)

// The journals' names in their folders: what outlives the host is in state.dir, what dies with it in state.runtime_dir.
const (
	DurableJournal = "durable.journal"
	RuntimeJournal = "leases.journal"
)

// How long what is written to a journal stands without a seal. An acquire waits for none: see docs/threat-model.md for
// what an unsealed end still allows.
const (
	DurableAfter = time.Second
	RuntimeAfter = 10 * time.Second
)

// RepairedFact says that the durable journal was repaired: the next start makes it whole by what was last known, and
// tells nobody.
const RepairedFact = "repaired"
