package repair

import (
	"path/filepath"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/dialect"
	"github.com/usher-agent/usher/agent/journal"
)

// Look reads the journals of a configuration's folders, which no agent may be using, and changes nothing. It calls
// found with the path of each, and with what a start would say of it; nil: nothing.
func Look(c *config.Config, found func(path string, err error)) {
	desk.Verify(c.State.Dir, c.State.RuntimeDir, found)
	stores, _ := filepath.Glob(filepath.Join(c.State.Dir, dialect.Journals)) // the pattern is good
	for _, path := range stores {
		found(path, journal.Verify(path, dialect.Readable))
	}
}
