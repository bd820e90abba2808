// Package sealed opens journals under the seal of the folder that they lie in. It finds a journal that is not as the
// agent last sealed it, and announces a replacement of the file before it is made. Start reading at [Open].
package sealed

import (
	"log/slog"

	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/journal"
)

// Open opens a journal as [journal.Open] does. With a vault, it fills in what c says of the seal, and returns how the
// journal differs from what was sealed; an empty fault says that it does not. A nil vault seals nothing.
func Open(c journal.Config, vault *files.Vault, apply func([]byte) error) (*journal.Journal, journal.Report,
	files.Fault, error) {
	listed := true
	if vault != nil {
		c.Sealed, listed = Extents(vault, c.Name)
		c.Replacing = func(x journal.Extent) error { return vault.Announce(c.Name, files.Extent(x)) }
	}
	if c.File == nil {
		c.File = File
	}
	j, r, err := journal.Open(c, apply)
	if err != nil {
		return j, r, "", err
	}
	if r.Fault == "" && !listed && !r.New && r.Records > 0 {
		return j, r, files.FaultUnlisted, nil
	}
	return j, r, files.Fault(r.Fault), nil
}

// Seal makes a vault's seal cover all that a journal holds now. The seal keeps gist, for when the journal is lost; nil:
// it keeps the gist that it had.
func Seal(j *journal.Journal, vault *files.Vault, name string, gist []byte) error {
	x, err := j.Extent()
	if err != nil {
		return err
	}
	return vault.SealJournal(name, files.Extent(x), gist)
}

// Trouble tells of journals that cannot be sealed: once when that begins, and once when it ends. A full disk would
// otherwise fill the log as well. Its zero value is ready for use, by one caller at a time.
type Trouble struct{ told map[string]bool }

// Tell takes note of what came of an attempt to seal a journal. follows says what follows while it fails.
func (t *Trouble) Tell(log *slog.Logger, name, follows string, err error) {
	switch {
	case err != nil && !t.told[name]:
		log.Warn("a journal was not sealed; "+follows, "journal", name, "error", err)
	case err == nil && t.told[name]:
		log.Info("a journal is sealed again", "journal", name)
	}
	if t.told == nil {
		t.told = map[string]bool{}
	}
	t.told[name] = err != nil
}

// Extents returns the extents that a journal may have by its seal, and whether the seal lists the journal at all.
func Extents(vault *files.Vault, name string) (want []journal.Extent, listed bool) {
	all, listed := vault.Extents(name)
	for _, x := range all {
		want = append(want, journal.Extent(x))
	}
	return want, listed
}

// File opens a journal's file as one of the agent's own: no link, and no file that others can write.
func File(name string, flag int) (journal.File, error) {
	f, err := files.Open(name, flag)
	if err != nil {
		return nil, err // no File, rather than a File that holds nil
	}
	return f, nil
}
