package dialect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/journal/record"
	"github.com/usher-agent/usher/agent/journal/sealed"
	"github.com/usher-agent/usher/plugin"
)

// store is a dialect's [plugin.Store]: all of it in memory, and in a journal of its own. A value can be read once it is
// on the disk.
type store struct {
	journal *journal.Journal
	name    string       // of the journal
	vault   *files.Vault // nil: nothing is sealed
	log     *slog.Logger

	sealing   sync.Mutex     // one seal or compaction at a time; taken before the vault's lock
	trouble   sealed.Trouble // guarded by sealing
	sealLater atomic.Bool    // a seal is on its way

	// writing guards all below it, so that changes are judged and written in one order. It is not held while they are
	// on their way to the disk: many are safe by one fsync. Taken before mu.
	writing sync.Mutex
	buf     []byte
	ahead   map[string][]byte // the content once all that is written is safe
	bytes   int               // of all keys and values of ahead
	waiting []*batch          // that are written and cannot be read yet, in their order

	mu     sync.RWMutex // guards all below
	values map[string][]byte
	keys   []string // sorted
	size   int      // bytes of all keys and values
}

// batch is the changes of one Apply.
type batch struct {
	changes []plugin.Change
	commit  journal.Commit
}

// Journals matches the names of the dialects' journals in the state folder (see [filepath.Match]).
const Journals = "dialect-*.journal"

// journalOf returns the name of a dialect's journal.
func journalOf(system string) string { return strings.Replace(Journals, "*", system, 1) }

// sealAfter is for how long the newest records of a journal stand without a seal.
const sealAfter = time.Second

// storeVersion is the first byte of every record of a store's journal.
const storeVersion = 1

// openStore opens a dialect's store in a state folder, or makes it. file opens the journal's files; nil: as usual.
// vault seals the journal; nil: nothing does.
func openStore(dir, system string, log *slog.Logger, file func(string, int) (journal.File, error),
	vault *files.Vault) (*store, error) {
	s := &store{log: log, name: journalOf(system), vault: vault, values: map[string][]byte{}}
	c := journal.Config{Dir: dir, Name: s.name, Sync: true, File: file}
	j, r, fault, err := sealed.Open(c, vault, func(b []byte) error {
		changes, err := decodeChanges(b)
		if err == nil {
			for _, c := range changes {
				s.set(c.Key, c.Value)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store of the %s dialect: %w", system, err)
	}
	if r.TornBytes > 0 {
		log.Warn("a crash has cut the journal's last record off; it was never acknowledged", "journal",
			filepath.Join(c.Dir, c.Name), "bytes", r.TornBytes)
	}
	s.journal, s.ahead, s.bytes = j, maps.Clone(s.values), s.size
	if fault != "" {
		if err := vault.Note(s.name, fault); err != nil {
			log.Warn("a fault of a journal could not be recorded; the next start finds it again", "error", err)
		}
	}
	s.seal()
	return s, nil
}

// seal has the vault vouch for the present content.
func (s *store) seal() {
	if s.vault == nil {
		return
	}
	s.sealing.Lock()
	defer s.sealing.Unlock()
	s.sealLater.Store(false)
	err := sealed.Seal(s.journal, s.vault, s.name, nil)
	if errors.Is(err, journal.ErrClosed) {
		return // Close has sealed it
	}
	s.trouble.Tell(s.log, s.name, "the agent will believe the records since the last seal as it finds them", err)
}

// Close closes the store, which must not be used any more.
func (s *store) Close() error {
	s.seal()
	return s.journal.Close()
}

// set carries one change out; a nil value removes the key. The caller holds s.mu, or is the only one to have the store.
func (s *store) set(key string, value []byte) {
	was, had := s.values[key]
	i, _ := slices.BinarySearch(s.keys, key)
	switch {
	case value == nil && !had:
		return
	case value == nil:
		delete(s.values, key)
		s.keys = slices.Delete(s.keys, i, i+1)
		s.size -= len(key) + len(was)
		return
	case !had:
		s.keys = slices.Insert(s.keys, i, key)
		s.size += len(key)
	}
	s.values[key] = value
	s.size += len(value) - len(was)
}

// Get returns a key's value.
func (s *store) Get(key string) ([]byte, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.values[key]
	return slices.Clone(v), ok
}

// Range calls f with each key that begins with prefix, in order, until f returns false.
func (s *store) Range(prefix string, f func(string, []byte) bool) {
	s.mu.RLock()
	var keys []string
	var values [][]byte
	for i, _ := slices.BinarySearch(s.keys, prefix); i < len(s.keys) && strings.HasPrefix(s.keys[i], prefix); i++ {
		keys, values = append(keys, s.keys[i]), append(values, s.values[s.keys[i]])
	}
	s.mu.RUnlock() // a value is never changed, only replaced
	for i, key := range keys {
		if !f(key, slices.Clone(values[i])) {
			return
		}
	}
}

// Apply makes changes, all or none, if their expectations hold. They are durable when it returns.
func (s *store) Apply(changes ...plugin.Change) error {
	if len(changes) == 0 {
		return nil
	}
	total := 0
	for _, c := range changes {
		switch {
		case c.Key == "" || len(c.Key) > plugin.MaxStoreKey:
			return fmt.Errorf("the key has %d bytes, and must have from 1 to %d", len(c.Key), plugin.MaxStoreKey)
		case len(c.Value) > plugin.MaxStoreValue:
			return fmt.Errorf("key %q: the value has %d bytes, and may have %d at most", c.Key, len(c.Value),
				plugin.MaxStoreValue)
		}
		total += len(c.Key) + len(c.Value)
	}
	if total > plugin.MaxStoreApply {
		return fmt.Errorf("the changes have %d bytes, and may have %d at most; apply them one after the other", total,
			plugin.MaxStoreApply)
	}
	b, refused := s.write(changes)
	var err error
	switch {
	case refused == nil:
		err = b.commit.Wait(context.Background())
	case errors.Is(refused, plugin.ErrConflict), errors.Is(refused, plugin.ErrStoreFull):
		// The caller looks again, and then sees the changes that were in the way.
		if err = s.settle(); err == nil {
			return refused
		}
	default:
		err = refused
	}
	if err != nil {
		return fmt.Errorf("the changes could not be stored: %w; see to the disk that state.dir is on", err)
	}
	s.publish(b)
	if s.vault != nil && !s.sealLater.Swap(true) {
		time.AfterFunc(sealAfter, s.seal)
	}
	if s.journal.Due() {
		if err := s.compact(); err != nil {
			s.log.Error("a dialect's journal was not compacted; it goes on as it is", "error", err)
		}
	}
	return nil
}

// write judges changes and writes them to the journal.
func (s *store) write(changes []plugin.Change) (*batch, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	bytes, err := s.admits(changes)
	if err != nil {
		return nil, err
	}
	s.buf = encodeChanges(s.buf[:0], changes)
	commit, err := s.journal.Append(s.buf)
	if err != nil {
		return nil, err
	}
	b := &batch{commit: commit}
	for _, c := range changes {
		c.Key, c.Value = strings.Clone(c.Key), slices.Clone(c.Value)
		if c.Value == nil {
			delete(s.ahead, c.Key)
		} else {
			s.ahead[c.Key] = c.Value
		}
		b.changes = append(b.changes, c)
	}
	s.bytes = bytes
	s.waiting = append(s.waiting, b)
	return b, nil
}

// publish has the changes of a batch read that is safe, and those of all before it: they are safe, too.
func (s *store) publish(b *batch) {
	s.writing.Lock()
	defer s.writing.Unlock()
	n := slices.Index(s.waiting, b) + 1 // 0: a later one has published it
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.waiting[:n] {
		for _, c := range b.changes {
			s.set(c.Key, c.Value)
		}
	}
	s.waiting = slices.Delete(s.waiting, 0, n)
}

// settle waits until everything that is written can be read. The error says that it cannot become safe.
func (s *store) settle() error {
	s.writing.Lock()
	var last *batch
	if n := len(s.waiting); n > 0 {
		last = s.waiting[n-1]
	}
	s.writing.Unlock()
	if last == nil {
		return nil
	}
	if err := last.commit.Wait(context.Background()); err != nil {
		return err
	}
	s.publish(last)
	return nil
}

// admits returns how many bytes the store would have after the changes, or an error: an expectation of theirs does not
// hold, or they would pass a bound. The caller holds s.writing.
func (s *store) admits(changes []plugin.Change) (bytes int, err error) {
	after := map[string][]byte{}
	for _, c := range changes {
		if v, ok := s.ahead[c.Key]; c.If && (ok != (c.Expect != nil) || string(v) != string(c.Expect)) {
			return 0, plugin.ErrConflict
		}
		after[c.Key] = c.Value
	}
	keys, bytes := len(s.ahead), s.bytes
	for key, v := range after {
		was, had := s.ahead[key]
		if had {
			keys--
			bytes -= len(key) + len(was)
		}
		if v != nil {
			keys++
			bytes += len(key) + len(v)
		}
	}
	// A change that only removes is admitted however full the store is.
	if (keys > plugin.MaxStoreKeys && keys > len(s.ahead)) || (bytes > plugin.MaxStore && bytes > s.bytes) {
		return 0, plugin.ErrStoreFull
	}
	return bytes, nil
}

// compact has the journal begin with the present content. Changes go on meanwhile.
func (s *store) compact() error {
	s.sealing.Lock()
	defer s.sealing.Unlock()
	s.writing.Lock()
	from, content := s.journal.Mark(), maps.Clone(s.ahead)
	s.writing.Unlock()
	const most = 64 << 10 // bytes of one record
	return s.journal.CompactFrom(from, func(write func([]byte) error) error {
		var part []plugin.Change
		size := 0
		for _, key := range slices.Sorted(maps.Keys(content)) {
			part = append(part, plugin.Change{Key: key, Value: content[key]})
			if size += len(key) + len(content[key]); size < most {
				continue
			}
			if err := write(encodeChanges(nil, part)); err != nil {
				return err
			}
			part, size = part[:0], 0
		}
		if len(part) == 0 {
			return nil
		}
		return write(encodeChanges(nil, part))
	})
}

// encodeChanges appends the record of changes to b, without their expectations.
func encodeChanges(b []byte, changes []plugin.Change) []byte {
	w := record.Writer{Bytes: append(b, storeVersion)}
	w.Uint(uint64(len(changes)))
	for _, c := range changes {
		w.Text(c.Key)
		w.Flag(c.Value != nil)
		if c.Value != nil {
			w.Text(string(c.Value))
		}
	}
	return w.Bytes
}

func decodeChanges(b []byte) (out []plugin.Change, err error) {
	r := record.Reader{Bytes: b}
	switch v := r.Byte(); {
	case v > storeVersion:
		return nil, record.ErrNewer
	case v != storeVersion:
		return nil, record.ErrUnreadable
	}
	for range r.Count() {
		c := plugin.Change{Key: r.Text()}
		if r.Flag() {
			c.Value = []byte(r.Text())
		}
		if c.Key == "" {
			r.Fail()
		}
		if r.Bad {
			return nil, record.ErrUnreadable
		}
		out = append(out, c)
	}
	if !r.Ended() {
		return nil, record.ErrUnreadable
	}
	return out, nil
}

// Readable says why a record of a dialect's journal cannot be read; nil: it can be.
func Readable(record []byte) error {
	_, err := decodeChanges(record)
	return err
}

// Sound returns those records of a dialect's journal that can be read. The error is one of [record.ErrNewer]: a later
// version has written the journal.
func Sound(records [][]byte) (keep [][]byte, err error) {
	for _, b := range records {
		_, err := decodeChanges(b)
		if errors.Is(err, record.ErrNewer) {
			return nil, err
		}
		if err == nil {
			keep = append(keep, b)
		}
	}
	return keep, nil
}
