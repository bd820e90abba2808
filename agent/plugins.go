package agent

import (
	"context"
	"time"
)

// askAgain is how often a document that no plugin could be asked about is tried again, beside when a plugin comes up.
const askAgain = time.Minute

// pluginChanged has documents tried again when a plugin has come up, and the facts judged again: only now the agent
// knows what the plugin's upstream can do. The answers of a plugin that went away stand.
func (a *Agent) pluginChanged(up bool) {
	if !up {
		return
	}
	if !a.court.RetryUnsure() {
		a.court.Rejudge()
	}
}

// retry tries documents again, now and then, that no plugin could be asked about.
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
