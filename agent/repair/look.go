package repair

import (
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/seals"
)

// Look reads the journals of a configuration's folders, which no agent may be using, and changes nothing. It calls
// found with the path of each, and with what a start would say of it; nil: nothing. What a start mends by itself is a
// [*desk.PastError].
func Look(c *config.Config, found func(path string, err error)) {
	desk.Verify(c.State.Dir, c.State.RuntimeDir, past(c), found)
	stores, _ := filepath.Glob(filepath.Join(c.State.Dir, dialect.Journals)) // the pattern is good
	for _, path := range stores {
		found(path, journal.Verify(path, dialect.Readable))
	}
}

// past reports whether the runtime folder's journal is of an earlier start of the host, as far as the agent's key can
// be read, which proves that.
func past(c *config.Config) bool {
	keyFile := identity.FileAt(c.Agent.KeyFile, c.State.Dir, c.ReadFile)
	if keyFile.Public() == nil {
		return false // no agent has sealed anything
	}
	key, err := keyFile.Existing()
	if err != nil {
		return false
	}
	return seals.Past(seals.Config{Dir: c.State.Dir, Key: key, Now: time.Now}, c.State.RuntimeDir)
}
