package main

import (
	"slices"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

func (c *cli) printInstalled(r *wire.Installed) error {
	if c.json {
		c.warnNotInForce(r)
		return c.printJSON(r)
	}
	what := "installed"
	if r.DryRun {
		what = "would be installed"
	}
	fprintf(c.out, "%s %s: %s\n", r.Document.Document, what, r.Document.Reason)
	c.printChanges(r)
	c.warnNotInForce(r)
	return nil
}

// warnNotInForce warns of an installed document that does not count as it is.
func (c *cli) warnNotInForce(r *wire.Installed) {
	if d := r.Document; !d.InForce && slices.Contains(notInForce, d.Code) {
		fprintf(c.errs, "warning: the licence in %s is not in force (%s); the verdict is %s: %s\n", d.Document, d.Code,
			r.License.Code, r.License.Reason)
	}
}

// notInForce are the codes of documents that are accepted into the folder, and do not count as they are.
var notInForce = []string{string(enforcer.Expired), string(enforcer.NotYetValid), string(enforcer.Superseded),
	string(enforcer.Suspended), string(enforcer.Overdue), string(enforcer.HeartbeatDead),
	string(enforcer.FingerprintMismatch),
	string(enforcer.VersionNotCovered), string(enforcer.TooManyCores), string(enforcer.TestLicense)}

// printRolledBack says what a rollback has done.
func (c *cli) printRolledBack(r *wire.Installed) error {
	if c.json {
		return c.printJSON(r)
	}
	name := r.Document.Document
	if r.Removed {
		fprintf(c.out, "%s removed, for it was not there before; `usher license rollback %s` brings it back\n", name,
			shellWord(name))
	} else {
		fprintf(c.out, "%s is as it was before the last change: %s\n", name, r.Document.Reason)
	}
	c.printChanges(r)
	fprintf(c.out, "licence %s (%s): %s\n", r.License.State, r.License.Code, r.License.Reason)
	return nil
}

// printChanges prints what a change of the folder changes.
func (c *cli) printChanges(r *wire.Installed) {
	if len(r.Changes) == 0 {
		fprintln(c.out, "nothing changes")
	}
	for _, s := range r.Changes {
		fprintf(c.out, "  %s\n", s)
	}
}
