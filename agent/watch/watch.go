package watch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// MaxDocument is the size, in bytes, above which a file is not read: 1 MiB.
const MaxDocument = 1 << 20

// MaxFiles is how many files of a folder are looked at. [Snapshot.Omitted] counts the others.
const MaxFiles = 256

// Patience is how long bytes that do not verify count as a write under way, and how long a file must be gone to count
// as removed.
const Patience = 250 * time.Millisecond

// DefaultPoll is how often the watcher looks at the folder although it has heard of no change.
const DefaultPoll = 2 * time.Second

// retryNotify is how long a watcher polls before it asks the kernel for watches again.
const retryNotify = 30 * time.Second

// maxRest bounds the pause between two scans that events ask for.
const maxRest = 25 * time.Millisecond

// Mode says how the watcher learns of changes.
type Mode string

// The modes.
const (
	ModeNotify  Mode = "fsnotify" // the kernel reports them; the poll is a safety net
	ModePolling Mode = "polling"  // the watcher looks at the folder every [Config.Poll], nothing else
)

// Config is what a [Watcher] needs. The zero value of an optional field means its default.
type Config struct {
	// Path is the licence folder, or one file. It need not exist yet.
	Path string
	// KeepDir holds the last good bytes of each file, and the version before the last install (0700, files 0600). Empty
	// keeps the former in memory only and makes Rollback impossible.
	KeepDir string
	// Check says whether a file's bytes are a good document: nil when they verify, else why not. It is called on Run's
	// goroutine and must not keep data. Required.
	Check func(name string, data []byte) *enforcer.Problem
	// OnChange gets a snapshot: once at the start, even when there is nothing, and after each change. It is called on
	// Run's goroutine. Required.
	OnChange func(Snapshot)
	// Log gets the mode, and a keep folder that cannot be used. Optional.
	Log *slog.Logger
	// Poll is how often the watcher looks although it has heard of no change. Zero means DefaultPoll.
	Poll time.Duration
	// Beat says how long it is until the next such look, of those that come every Poll; nil: that long.
	Beat func(every time.Duration) time.Duration
	// ForcePolling asks for ModePolling.
	ForcePolling bool
}

// File is one file of the folder, good or not. It never changes once made.
type File struct {
	Name    string            // within the folder
	Data    []byte            // the good bytes, else the latest; nil when they could not be read. Do not change them
	Stale   bool              // Data is the last good version; the replacement is broken, see Problem
	Problem *enforcer.Problem // what is wrong with the file as it lies there; nil when it verifies
	ModTime time.Time         // of Data, or of the file where there is none
}

// Snapshot is the state of the folder at one instant. It never changes once made.
type Snapshot struct {
	Files      []File // sorted by name
	Omitted    int    // files beyond MaxFiles
	Mode       Mode
	ModeReason string            // why ModePolling; empty otherwise
	Problem    *enforcer.Problem // the path is missing or unreadable, or holds too many files; nil when all is well
}

// Watcher follows a licence folder. Make one with [New].
type Watcher struct {
	cfg     Config
	started atomic.Bool
	rescan  chan struct{}
	recheck chan struct{}
	sync    chan chan struct{}
	install sync.Mutex // one Install, Remove or Rollback at a time

	// A test can pretend these: the file system of a path, and a kernel without watches to give.
	fsKind      func(path string) (kind string, remote bool)
	newNotifier func() (*notifier, error)
	retry       time.Duration
	steps       steps // of a change of the folder
}

// New checks the configuration and returns a Watcher. It starts nothing and touches no file.
func New(cfg Config) (*Watcher, error) {
	switch {
	case cfg.Path == "":
		return nil, errors.New("watch licence folder: no path given")
	case cfg.Check == nil || cfg.OnChange == nil:
		return nil, errors.New("watch licence folder: Check and OnChange are required")
	case cfg.Poll < 0:
		return nil, errors.New("watch licence folder: poll interval is negative")
	}
	abs, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	cfg.Path = abs
	if cfg.Poll == 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.Beat == nil {
		cfg.Beat = func(every time.Duration) time.Duration { return every }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{
		cfg:     cfg,
		rescan:  make(chan struct{}, 1),
		recheck: make(chan struct{}, 1),
		sync:    make(chan chan struct{}),

		fsKind:      fsKind,
		newNotifier: newNotifier,
		retry:       retryNotify,
	}, nil
}

// Rescan makes Run read every file again soon, changed or not. It does not wait.
func (w *Watcher) Rescan() { nudge(w.rescan) }

// Recheck says that Check's answers may have changed, because the anchors have. It does not wait.
func (w *Watcher) Recheck() { nudge(w.recheck) }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is under way already
	}
}

// Sync returns once a scan that began after the call, with a Recheck from before the call done, is over and OnChange,
// if anything changed, has returned. The watcher may still be waiting for a file that does not verify. The error is the
// context's. Do not call Sync from OnChange.
func (w *Watcher) Sync(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case w.sync <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run follows the folder until the context ends, and then returns nil. It may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if w.started.Swap(true) {
		return errors.New("watch licence folder: already run")
	}
	w.clean()
	r := &run{
		Watcher: w,
		reader:  newReader(w.cfg.Check),
		settler: newSettler(),
		saver:   newSaver(w.cfg.KeepDir, w.cfg.Log),
	}
	var keeping sync.WaitGroup
	keeping.Go(r.saver.run)
	defer keeping.Wait()
	defer r.saver.close()
	defer func() { r.notify.close() }()
	return r.loop(ctx)
}

// run is the state of one Run, owned by its goroutine.
type run struct {
	*Watcher
	reader  *reader
	settler *settler
	saver   *saver

	notify     *notifier // nil while polling
	retryAt    time.Time // when to try watches again
	modeReason string
	modeLogged string

	dir      string // the folder that the files' names are in; empty until it is known
	restored bool
	last     *Snapshot // OnChange's last argument
	waiting  []chan struct{}
}

func (r *run) loop(ctx context.Context) error {
	force := false
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		next, cost := r.scan(began, force)
		// A folder that is written to without end must not take a whole core. After a look that brought nothing new,
		// the next look for an event comes after a rest of four times as long as that look.
		rest := began.Add(min(5*cost, cost+maxRest))
		for _, done := range r.waiting {
			close(done)
		}
		r.waiting = nil
		wake := began.Add(r.cfg.Beat(r.cfg.Poll))
		if !next.IsZero() && next.Before(wake) {
			wake = next
		}
		force = r.wait(ctx, timer, wake, rest)
	}
	return nil
}

// wait returns when to scan the folder again, and whether to read all files whatever the stamps say.
func (r *run) wait(ctx context.Context, timer *time.Timer, wake, rest time.Time) (force bool) {
	heard := false
	timer.Reset(time.Until(wake))
	for {
		events, faults := r.notify.channels()
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case ev := <-events:
			if heard || !r.notify.concerns(ev) {
				continue
			}
		case err := <-faults:
			// An overflow loses events; other faults may lose some. A look mends both.
			r.cfg.Log.Debug("events of the licence folder were lost; the agent looks at the whole folder", "err", err)
			if heard {
				continue
			}
		case <-r.rescan:
			return true
		case done := <-r.sync:
			r.waiting = append(r.waiting, done)
			select {
			case <-r.recheck: // asked for before
				r.checkAgain()
			default:
			}
			return true
		case <-r.recheck:
			r.checkAgain()
			return false
		}
		heard = true
		pause := time.Until(rest)
		if pause <= 0 {
			return false
		}
		if rest.Before(wake) {
			timer.Reset(pause)
		}
	}
}

// checkAgain forgets what Check has answered.
func (r *run) checkAgain() {
	r.reader.recheck()
	r.settler.recheck(r.cfg.Check)
}

// scan looks at the folder once and passes changes to OnChange. It returns when a file's patience ends, zero if none
// waits, and how long the look took if it brought nothing new.
func (r *run) scan(now time.Time, force bool) (next time.Time, cost time.Duration) {
	first := r.last == nil
	p := r.survey(force)
	p.began, p.ended = now, time.Now()
	cost = p.ended.Sub(now)
	if p.dir != "" {
		r.dir = p.dir
	}
	if !r.restored && (p.dir != "" || p.unreadable) {
		// A folder that does not exist yet may be a late mount: its kept files wait.
		r.restore(p)
		r.restored = true
	}
	if p.unreadable {
		for _, name := range r.settler.names() {
			p.seen[name] = sighting{problem: p.problem}
		}
	}
	if !first {
		// The file system's clock says how long ago a file was written only when nobody watched.
		for name, s := range p.seen {
			s.written = time.Time{}
			p.seen[name] = s
		}
	}
	next, changes := r.settler.step(p)
	s := Snapshot{Files: r.settler.files(), Omitted: p.omitted, Problem: p.problem, Mode: ModeNotify}
	if r.notify == nil {
		s.Mode, s.ModeReason = ModePolling, r.modeReason
	}
	if first || !r.last.equal(s) {
		cost = 0
		r.last = &s
		r.cfg.OnChange(s)
	}
	// After OnChange: a document is in force before its copy is on disk.
	for _, c := range changes {
		r.saver.put(filepath.Join(r.dir, c.name), c)
	}
	return next, cost
}

// survey arms the watches and reads the folder, again when another folder takes its place in between.
func (r *run) survey(force bool) survey {
	var p survey
	for range 3 {
		at := locate(r.cfg.Path)
		r.arm(at)
		// Nobody reports folders that are made one within the other while the watches are armed.
		for range maxWay {
			now := locate(r.cfg.Path)
			if now.dir == at.dir && now.exists == at.exists && now.id == at.id {
				break
			}
			at = now
			r.arm(at)
		}
		p = r.reader.survey(at, force, r.settler.known)
		if !p.moved {
			break
		}
	}
	return p
}

// arm watches the directories that matter, or notes why it cannot.
func (r *run) arm(at place) {
	kind, remote := r.fsKind(at.exists)
	var reason string
	switch {
	case r.cfg.ForcePolling:
		reason = "polling is asked for by configuration"
	case remote:
		reason = at.exists + " is on " + kind + ", whose changes made elsewhere the kernel does not report"
	case r.notify == nil && time.Now().Before(r.retryAt):
		return
	default:
		var err error
		if r.notify == nil {
			r.notify, err = r.newNotifier()
		}
		if err == nil {
			r.notify.only = at.only
			err = r.notify.watch(at.targets())
		}
		if err == nil {
			break
		}
		reason = notifyReason(err)
		r.retryAt = time.Now().Add(r.retry)
	}
	if reason != "" && r.notify != nil {
		r.notify.close()
		r.notify = nil
	}
	r.modeReason = reason
	if now := "mode: " + reason; now != r.modeLogged {
		r.modeLogged = now
		if reason != "" {
			r.cfg.Log.Warn("the licence folder is polled", "path", r.cfg.Path, "every", r.cfg.Poll, "reason", reason)
		} else {
			r.cfg.Log.Info("the licence folder is watched", "path", r.cfg.Path)
		}
	}
}

// restore gives the settler what the agent's last run kept: the good bytes of each file that is not good now, if they
// still verify. It names a file that is gone too, so that its bytes go a quarter of a second later.
func (r *run) restore(p survey) {
	for _, kept := range listRecords(r.cfg.KeepDir, r.cfg.Path) {
		dir, name := filepath.Split(kept.path)
		if dir = filepath.Clean(dir); r.dir == "" {
			r.dir = dir // unreadable from the start: the kept files tell a folder from a file
		}
		if dir != r.dir || p.only != "" && name != p.only {
			continue
		}
		s, there := p.seen[name]
		if there && s.problem == nil {
			continue
		}
		var good []byte
		if there || p.unreadable {
			if rec, err := readRecord(kept.file); err == nil && r.cfg.Check(name, rec.data) == nil {
				good = rec.data
			}
		}
		r.settler.restore(name, good, kept.modTime)
	}
}

func (s *Snapshot) equal(t Snapshot) bool {
	return s.Omitted == t.Omitted && s.Mode == t.Mode && s.ModeReason == t.ModeReason &&
		sameProblem(s.Problem, t.Problem) && slices.EqualFunc(s.Files, t.Files, sameFile)
}

// sortedKeys returns a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
