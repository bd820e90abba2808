package court

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// installWithin is how long an installed document may take to be seen in the folder.
const installWithin = 5 * time.Second

// Folder is the licence folder, whose changes the court is told of through SetFolder.
type Folder interface {
	// NameFor returns the file name for a licence of an id, which no other id has, and the name that a former version
	// of the agent gave it, which may be another licence's too.
	NameFor(id string) (name, former string)
	// Accepts returns why no file of a name can be installed; nil: one can.
	Accepts(name string) error
	Install(name string, document []byte) error
	// Remove takes the name of a file, or what answers call it, and returns the latter. Its error is [fs.ErrNotExist]
	// where there is no such file.
	Remove(name string) (of string, err error)
	// Rollback undoes the last change of a name, and reports whether that removed the file. Its error is
	// [fs.ErrNotExist] where there is none.
	Rollback(name string) (of string, removed bool, err error)
	// Sync returns once the folder has been read after the call and SetFolder, if anything changed, has returned.
	Sync(ctx context.Context) error
	// Recheck says that the Verifier's answers may have changed. It waits for nobody.
	Recheck()
}

// Change is what a change of the licence folder does, or would do.
type Change struct {
	Name          string // of the file
	Keys          bool   // it holds licence keys and is no document
	Removed       bool   // it is in the folder no more
	Judged        enforcer.Judged
	Before, After *enforcer.Verdict // Before is nil where nothing has been judged yet
}

// Verify verifies a document; see [Verifier.Verify].
func (c *Court) Verify(document []byte) (*enforcer.License, *enforcer.Problem) {
	return c.cfg.Verifier.Verify(document)
}

// Would returns what a document would be judged as, were it installed under a name; an empty one is made as Install
// does. It changes nothing.
func (c *Court) Would(document []byte, name string) enforcer.Judged {
	l, problem := c.cfg.Verifier.Verify(document)
	if problem != nil {
		return enforcer.Judged{Document: name, License: l, Code: problem.Code, Reason: problem.Reason, Problem: problem}
	}
	if name == "" {
		name = c.nameFor(l)
	}
	return judgedAs(c.would(File{Name: name, Data: document}), name)
}

// Install verifies a document and puts it into the licence folder, where it is in force when Install returns. With
// dryRun it says what would change and changes nothing. An empty name means one made from the licence's id. A document
// that does not verify, or that is hopeless here, is refused: what is in force stays. A file of licence keys is
// installed, too.
func (c *Court) Install(ctx context.Context, document []byte, name string, dryRun bool) (Change, *enforcer.Denial) {
	if c.cfg.Verifier.IsKeyFile(name, document) {
		return c.installKeys(ctx, document, name, dryRun)
	}
	l, problem := c.cfg.Verifier.Verify(document)
	if problem != nil {
		return Change{}, &enforcer.Denial{Code: enforcer.DocumentRefused, Field: "document",
			Detail: fmt.Sprintf("the document is not a good licence (%s): %s", problem.Code, problem.Reason),
			Hint:   problem.Hint}
	}
	if name == "" {
		name = c.nameFor(l)
	}
	if d := c.badName(name); d != nil {
		return Change{}, d
	}
	out := Change{Name: name, Before: c.cfg.Desk.Verdict(), After: c.would(File{Name: name, Data: document})}
	out.Judged = judgedAs(out.After, name)
	if out.Judged.Hopeless() {
		return Change{}, &enforcer.Denial{Code: enforcer.DocumentRefused, Field: "document",
			Detail: fmt.Sprintf("the document is a licence, but not one for here (%s): %s", out.Judged.Code,
				out.Judged.Reason)}
	}
	if dryRun {
		return out, nil
	}
	return c.put(ctx, out, document)
}

// installKeys puts licence keys into the licence folder, where only the agent can read them.
func (c *Court) installKeys(ctx context.Context, keys []byte, name string, dryRun bool) (Change, *enforcer.Denial) {
	if _, err := plugin.LicenseKeys(keys); err != nil {
		return Change{}, &enforcer.Denial{Code: enforcer.DocumentRefused, Field: "document",
			Detail: "the file does not hold licence keys: " + err.Error(),
			Hint:   "a name that ends in .key is for licence keys, one a line; give a document another name"}
	}
	if d := c.badName(name); d != nil {
		return Change{}, d
	}
	now := c.cfg.Desk.Verdict()
	out := Change{Name: name, Keys: true, Before: now, After: now}
	if dryRun {
		return out, nil
	}
	return c.put(ctx, out, keys)
}

// badName denies a name under which nothing can be installed, in a dry run too; nil: it is good.
func (c *Court) badName(name string) *enforcer.Denial {
	err := c.cfg.Folder.Accepts(name)
	if err == nil {
		return nil
	}
	return &enforcer.Denial{Code: enforcer.BadRequest, Field: "name", Detail: err.Error(),
		Hint: "leave the name out, and the licence's id makes one"}
}

// put puts a file into the folder and waits until it is judged.
func (c *Court) put(ctx context.Context, out Change, data []byte) (Change, *enforcer.Denial) {
	if err := c.cfg.Folder.Install(out.Name, data); err != nil {
		return Change{}, &enforcer.Denial{Code: enforcer.Storage, Detail: err.Error()}
	}
	return c.changed(ctx, out, nil)
}

// Remove takes a document out of the licence folder. It counts no more when Remove returns.
func (c *Court) Remove(ctx context.Context, name string) *enforcer.Denial {
	of, err := c.cfg.Folder.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &enforcer.Denial{Code: enforcer.DocumentUnknown, Field: "name",
			Detail: fmt.Sprintf("there is no document %q in the licence folder", name),
			Hint:   "`usher license list` shows what is there"}
	case err != nil:
		return &enforcer.Denial{Code: enforcer.Storage, Detail: err.Error()}
	}
	_, denial := c.changed(ctx, Change{Name: of}, func() bool { return !c.has(of) })
	return denial
}

// Rollback undoes the last Install or Remove of a name; empty: the last of all.
func (c *Court) Rollback(ctx context.Context, name string) (Change, *enforcer.Denial) {
	before := c.cfg.Desk.Verdict()
	name, removed, err := c.cfg.Folder.Rollback(name)
	if err != nil {
		code := enforcer.Storage
		if errors.Is(err, fs.ErrNotExist) {
			code = enforcer.DocumentUnknown
		}
		return Change{}, &enforcer.Denial{Code: code, Detail: err.Error(), Field: "name"}
	}
	out := Change{Name: name, Before: before, Removed: removed}
	if removed {
		return c.changed(ctx, out, func() bool { return !c.has(name) })
	}
	return c.changed(ctx, out, nil)
}

// changed waits until the folder has been read again and judged, and then until done says so: a file counts as removed
// only when it has been gone for a while. nil: it need not be waited for.
func (c *Court) changed(ctx context.Context, out Change, done func() bool) (Change, *enforcer.Denial) {
	ctx, cancel := context.WithTimeout(ctx, installWithin)
	defer cancel()
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	for {
		err := c.cfg.Folder.Sync(ctx)
		if err == nil && (done == nil || done()) {
			out.After = c.cfg.Desk.Verdict()
			out.Judged = judgedAs(out.After, out.Name)
			return out, nil
		}
		if err == nil {
			select {
			case <-again.C:
				continue
			case <-ctx.Done():
			}
		}
		return Change{}, &enforcer.Denial{Code: enforcer.Storage,
			Detail: "the licence folder was changed, but has not been read again in time",
			Hint:   "`usher status` shows what is in force"}
	}
}

// nameFor returns the name of a licence's file in the folder: never that of another licence.
func (c *Court) nameFor(l *enforcer.License) string {
	name, former := c.cfg.Folder.NameFor(l.ID)
	if former != name && c.holds(former, l, true) {
		return former // its earlier issue lies there
	}
	if c.holds(name, l, false) {
		name, _ = c.cfg.Folder.NameFor(l.ID + " of " + l.System)
	}
	return name
}

// holds reports whether a file of the folder holds this licence or, if same is false, another one.
func (c *Court) holds(name string, l *enforcer.License, same bool) bool {
	v := c.cfg.Desk.Verdict()
	if v == nil {
		return false
	}
	return slices.ContainsFunc(v.Licenses, func(j enforcer.Judged) bool {
		return j.Document == name && j.License != nil && (j.License.ID == l.ID && j.License.System == l.System) == same
	})
}

// judgedAs returns what a verdict says of a document.
func judgedAs(v *enforcer.Verdict, name string) enforcer.Judged {
	if v != nil {
		for _, j := range v.Licenses {
			if j.Document == name {
				return j
			}
		}
	}
	return enforcer.Judged{Document: name, Code: enforcer.NotFound, Reason: "the document is not in the licence folder"}
}

// Renew takes a document that an upstream brought for a licence, where it renews that (see
// [enforcer.License.CheckRenewal]) and counts here. It is put into the licence folder or, where that cannot be written,
// kept beside it. An error says why it is not taken.
func (c *Court) Renew(of *enforcer.License, document []byte) error {
	return c.RenewFrom(nil, of, document)
}

// RenewFrom is Renew of a document that a call of an upstream has brought. Where that is a [plugin.Replacer], it may
// have a licence of another id in the place of the one it was asked about.
func (c *Court) RenewFrom(u plugin.Upstream, of *enforcer.License, document []byte) error {
	l, problem := c.cfg.Verifier.Verify(document)
	if problem != nil {
		return fmt.Errorf("%s: %s", problem.Code, problem.Reason)
	}
	check := l.CheckRenewal
	if r, ok := u.(plugin.Replacer); ok && l.ID != of.ID && r.Replaces(of, l) {
		check = l.CheckReplacement
	}
	if err := check(of, c.cfg.Desk.Verdict()); err != nil {
		return err
	}
	name := c.nameFor(l)
	if judged := judgedAs(c.would(File{Name: name, Data: document}), name); judged.Hopeless() {
		return fmt.Errorf("%s: %s", judged.Code, judged.Reason)
	}
	err := c.cfg.Folder.Install(name, document)
	if err == nil {
		c.cfg.Log.Info("the upstream renewed the licence", "licence", l.ID, "document", name, "expires", l.Expires)
		return nil
	}
	if l.Ref() != of.Ref() {
		return err // no issue of it is in the folder, which it would count beside
	}
	if err := c.cfg.KeepRenewed(of.Ref(), document); err != nil {
		return err
	}
	c.cfg.Log.Info("the upstream renewed the licence; the licence folder cannot be written, so the state folder has it",
		"licence", of.ID, "expires", l.Expires, "why", err)
	kept := File{Name: "renewed-" + name, Data: document}
	c.change(func() {
		others := slices.DeleteFunc(slices.Clone(c.renewed), func(f File) bool { return f.Name == kept.Name })
		c.renewed = append(others, kept)
	})
	return nil
}

// TakeFirst takes the first document of a system that its upstream was asked for, as Renew does.
func (c *Court) TakeFirst(system string, document []byte) error {
	l, problem := c.cfg.Verifier.Verify(document)
	if problem != nil {
		return fmt.Errorf("%s: %s; %s", problem.Code, problem.Reason, problem.Hint)
	}
	if l.System != system {
		return fmt.Errorf("the document is a licence of the system %s, and was fetched for the system %s", l.System,
			system)
	}
	return c.Renew(l, document)
}
