package watch

import (
	"bytes"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// sighting is the outcome of one look at a file.
type sighting struct {
	gen     uint64 // changes whenever the file's content does; from 1
	data    []byte // nil when not read
	modTime time.Time
	written time.Time         // when the file was last written, by the file system's clock; zero: at the first look
	problem *enforcer.Problem // nil: the bytes verify
	vacant  bool              // the name leads nowhere: as good as removed, but worth a word

	// Stamps of the name and of the file that it leads to, taken before the reading; the same for what is no link. A
	// write may change these alone.
	link, target stamp
}

// change is what to keep of a file: its new good bytes or, when data is nil, nothing any more.
type change struct {
	name    string
	data    []byte
	modTime time.Time
}

// longestGone is how long a file may be missing at each look, in a folder that goes on changing, until it counts as
// removed.
const longestGone = 8 * Patience

// settler decides which sightings count. Bytes that verify count at once. Bytes that do not verify count as a write
// under way until they have stood for [Patience]. A file that is missing counts as one about to be replaced until it
// has been gone as long. Meanwhile the former state stands. Two looks that see the same do not prove that nothing
// happened in between: stamps that have not changed do. What is seen is surely so when the look ends, and is still so
// when the next one begins. The settler reads no clock.
type settler struct {
	records map[string]*record
}

// record is the state of one name.
type record struct {
	seen        sighting  // at the last look at which it was there
	since       time.Time // last write seen
	missed      time.Time // missing at each look since; zero: it is there
	gone        time.Time // missing all the time since
	folder      stamp     // when gone was set
	good        []byte    // the last bytes that verified
	goodTime    time.Time
	goodProblem *enforcer.Problem // why good no longer verifies, after a recheck
	shown       *File             // nil: nothing to say yet
}

func newSettler() *settler { return &settler{records: map[string]*record{}} }

// restore makes a name known before its first sighting, with the good bytes that were kept of it; nil: there are none.
func (s *settler) restore(name string, good []byte, modTime time.Time) {
	r := &record{good: good, goodTime: modTime}
	if good != nil {
		r.shown = &File{Name: shown(name), Data: good, ModTime: modTime}
	}
	s.records[name] = r
}

// step takes a look at the whole folder. It returns the changes to keep, and when the next patience ends; zero: nothing
// waits.
func (s *settler) step(p survey) (next time.Time, changes []change) {
	wait := func(since time.Time) bool {
		due := since.Add(Patience)
		if !p.began.Before(due) {
			return false
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
		return true
	}
	for _, name := range sortedKeys(p.seen) {
		sg, r := p.seen[name], s.records[name]
		if r == nil {
			r = &record{}
			s.records[name] = r
		}
		if sg.gen != r.seen.gen || sg.link != r.seen.link || sg.target != r.seen.target {
			r.since = p.ended
			if !sg.written.IsZero() && sg.written.Before(p.ended) {
				r.since = sg.written
			}
		}
		r.seen = sg
		patience := r.since
		if !sg.vacant {
			r.missed = time.Time{}
		} else {
			patience = r.absent(p)
		}
		if sg.problem == nil {
			if !bytes.Equal(r.good, sg.data) {
				changes = append(changes, change{name: name, data: sg.data, modTime: sg.modTime})
			}
			r.good, r.goodTime, r.goodProblem = sg.data, sg.modTime, nil
			r.shown = &File{Name: shown(name), Data: sg.data, ModTime: sg.modTime}
			continue
		}
		if wait(patience) {
			continue
		}
		if sg.vacant && r.good != nil {
			r.good = nil
			changes = append(changes, change{name: name})
		}
		f := &File{Name: shown(name), Data: sg.data, Problem: sg.problem, ModTime: sg.modTime}
		if r.good != nil && r.goodProblem == nil && !bytes.Equal(r.good, sg.data) {
			problem := *sg.problem
			problem.Stale = true
			f = &File{Name: shown(name), Data: r.good, Stale: true, Problem: &problem, ModTime: r.goodTime}
		}
		r.shown = f
	}
	for _, name := range sortedKeys(s.records) {
		if _, there := p.seen[name]; there {
			continue
		}
		r := s.records[name]
		if !wait(r.absent(p)) {
			delete(s.records, name)
			changes = append(changes, change{name: name})
		}
	}
	return next, changes
}

// absent notes that the file is missing, and returns since when. If the folder has changed since the last look, the
// file may have been there meanwhile.
func (r *record) absent(p survey) (since time.Time) {
	switch {
	case r.missed.IsZero():
		r.missed, r.gone, r.folder = p.ended, p.ended, p.folder
	case p.folder != r.folder && p.began.Sub(r.missed) < longestGone:
		r.gone, r.folder = p.ended, p.folder
	}
	return r.gone
}

// recheck verifies the good bytes again. Its outcome counts with the next step, without patience: no write made the
// difference.
func (s *settler) recheck(check func(string, []byte) *enforcer.Problem) {
	for _, name := range sortedKeys(s.records) {
		r := s.records[name]
		if r.good != nil {
			r.goodProblem = check(name, r.good)
		}
		if r.shown != nil && r.shown.Problem == nil {
			r.since = time.Time{}
		}
	}
}

// known reports whether a name counts already.
func (s *settler) known(name string) bool { return s.records[name] != nil }

// names returns every known name.
func (s *settler) names() []string { return sortedKeys(s.records) }

// files returns the files that count, sorted by name.
func (s *settler) files() []File {
	var files []File
	for _, name := range sortedKeys(s.records) {
		if f := s.records[name].shown; f != nil {
			files = append(files, *f)
		}
	}
	return files
}

// sameFile reports whether two files say the same, as a touched file does.
func sameFile(a, b File) bool {
	return a.Name == b.Name && a.Stale == b.Stale && sameProblem(a.Problem, b.Problem) &&
		(a.Data == nil) == (b.Data == nil) && bytes.Equal(a.Data, b.Data)
}

func sameProblem(a, b *enforcer.Problem) bool {
	return a == b || a != nil && b != nil && *a == *b
}
