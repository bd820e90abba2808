package agent

import (
	"context"
	"time"
)

// askAgain is how often a document that no plugin could be asked about is tried again, beside when a plugin comes up.
const askAgain = time.Minute

// pluginChanged has documents tried again when a plugin has come up, and the licences' duties seen again: what its
// upstream can do is known only now. What a plugin that went away has said before stands.
func (a *Agent) pluginChanged(up bool) {
	if !up {
		return
	}
	if !a.court.RetryUnsure() {
		a.court.Rejudge()
	}
}

// retry tries again, now and then, what no plugin could be asked about.
func (a *Agent) retry(ctx context.Context) error {
	t := time.NewTicker(askAgain)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			a.court.RetryUnsure()
		}
	}
}
