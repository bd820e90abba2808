package court

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// InlineName is what a licence from the configuration is called among the documents.
const InlineName = "USHER_LICENSE"

// File is one document as the folder has it.
type File struct {
	Name    string
	Data    []byte            // the current bytes, or the last good ones; not to be changed
	Problem *enforcer.Problem // why the current bytes are not good
	Stale   bool              // Data is the last good bytes
}

// SetFolder takes what the licence folder holds, with warnings about the folder itself. It is judged when SetFolder
// returns.
func (c *Court) SetFolder(files []File, warnings []enforcer.Warning) {
	keys, documents := map[string][]byte{}, []File(nil)
	for _, f := range files {
		isKeys := c.cfg.Verifier.IsKeyFile(f.Name, f.Data)
		if isKeys {
			keys[f.Name] = f.Data
		}
		if !isKeys || f.Problem != nil {
			documents = append(documents, f)
		}
	}
	c.change(func() {
		c.files, c.warnings, c.ready = documents, warnings, true
		c.facts.FolderFault = ""
		for _, w := range warnings {
			if w.Code == enforcer.WarnDocument {
				c.facts.FolderFault = w.Detail
			}
		}
		c.cfg.Verifier.setFolderKeys(keys)
	})
	if c.cfg.Verifier.reopened() {
		c.cfg.Folder.Recheck()
	}
}

// documents returns what the judge is to look at, with replace in the place of the file of its name. c.mu is held.
func (c *Court) documents(replace *File) []enforcer.Document {
	files := c.files
	if replace != nil {
		files = slices.DeleteFunc(slices.Clone(files), func(f File) bool { return f.Name == replace.Name })
		if replace.Data != nil {
			files = append(files, *replace)
		}
	}
	files = slices.Clip(files)
	if len(c.cfg.Inline) > 0 {
		files = append(files, File{Name: InlineName, Data: c.cfg.Inline})
	}
	files = append(files, c.renewedFor(files)...)
	docs := make([]enforcer.Document, 0, len(files))
	for _, f := range files {
		docs = append(docs, c.opened(f))
	}
	return docs
}

// dated is one issue of a licence.
type dated struct {
	of enforcer.Ref
	at time.Time
}

// arrive says of the documents that are dated ahead when they were first seen, and forgets those that are gone. A clock
// that has never been set tells nothing of that. c.mu is held.
func (c *Court) arrive(docs []enforcer.Document) {
	bare, now := c.cfg.Desk.Would(time.Time{}).Now, map[dated]time.Time{}
	for i, d := range docs {
		if d.License == nil || !enforcer.IsSet(bare) || !d.License.Issued.After(bare) {
			continue
		}
		of := dated{d.License.Ref(), d.License.Issued}
		if now[of] = c.arrived[of]; now[of].IsZero() {
			now[of] = bare
		}
		docs[i].Arrived = now[of]
	}
	c.arrived = now
}

// opened returns a file as the judge takes it. c.mu is held.
func (c *Court) opened(f File) enforcer.Document {
	d := enforcer.Document{Name: f.Name, Problem: f.Problem}
	if f.Data == nil || f.Problem != nil && !f.Stale {
		return d
	}
	l, problem := c.cfg.Verifier.verifyNow(f.Data)
	switch {
	case problem != nil && f.Problem == nil:
		d.Problem = problem.Of(f.Name)
	case problem == nil:
		d.License = l
		if f.Stale {
			p := *f.Problem
			p.Stale = true
			d.Problem = &p
		}
	}
	return d
}

// renewedFor returns the documents that upstreams brought for licences that are among files: one counts for as long as
// an issue of its licence lies in the folder, so that what an operator takes out is gone. c.mu is held.
func (c *Court) renewedFor(files []File) (out []File) {
	if len(c.renewed) == 0 {
		return nil
	}
	there := map[enforcer.Ref]bool{}
	for _, f := range files {
		if f.Data != nil {
			if l, _ := c.cfg.Verifier.verifyNow(f.Data); l != nil {
				there[l.Ref()] = true
			}
		}
	}
	for _, f := range c.renewed {
		if l, _ := c.cfg.Verifier.verifyNow(f.Data); l != nil && there[l.Ref()] {
			out = append(out, f)
		}
	}
	return out
}

// document returns the bytes of a document by its name. c.mu is held.
func (c *Court) document(name string) []byte {
	if name == InlineName {
		return c.cfg.Inline
	}
	for _, files := range [][]File{c.files, c.renewed} {
		for _, f := range files {
			if f.Name == name {
				return f.Data
			}
		}
	}
	return nil
}

// Document returns the bytes of a document by its name, which the caller may keep; nil: there is none.
func (c *Court) Document(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.document(name))
}

// has reports whether a document of that name is among those judged.
func (c *Court) has(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.files, func(f File) bool { return f.Name == name })
}

// would returns the verdict as it would be with one file replaced or, without data, removed.
func (c *Court) would(f File) *enforcer.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	facts := c.facts
	facts.Documents = c.documents(&f)
	known := c.arrived
	c.arrive(facts.Documents)
	c.arrived = known
	signed, _, _ := c.evidence(&facts)
	at := c.cfg.Desk.Would(signed)
	facts.Clock = at.Clock
	c.fill(&facts, at.Now)
	v := enforcer.Judge(facts, at.Now)
	uses := enforcer.FirstUses(facts, v, at.Now, c.history.Began())
	if len(uses) == 0 {
		return v
	}
	for ref, first := range uses {
		facts.Seen[ref] = first
	}
	return enforcer.Judge(facts, at.Now)
}
