package seals

import (
	"time"
)

// The journals' names. The first is in state.dir and outlives the host; the second dies with it, in state.runtime_dir.
const (
	DurableJournal = "durable.journal"
	RuntimeJournal = "leases.journal"
)

// How long a new record stands without a seal. No acquire waits for a seal: docs/threat-model.md says what an unsealed
// end still allows.
const (
	DurableAfter = time.Second
	RuntimeAfter = 10 * time.Second
)

// RepairedFact says that the durable journal was repaired: the next start makes it whole by what was last known, and
// tells nobody.
const RepairedFact = "repaired"
