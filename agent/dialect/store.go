package dialect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

	sealing   sync.Mutex  // one seal or compaction at a time; taken before the vault's lock
	sealLater atomic.Bool // a seal is on its way

	writing sync.Mutex // one Apply at a time, to its end on the disk; taken before mu
	buf     []byte

	mu     sync.RWMutex // guards all below, which only an Apply changes
	values map[string][]byte
	keys   []string // sorted
	size   int      // bytes of all keys and values
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
	s.journal = j
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
	if err != nil {
		s.log.Warn("a journal was not sealed; the agent will believe the records since the last seal as it finds them",
			"journal", s.name, "error", err)
	}
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
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.admits(changes); err != nil {
		return err
	}
	s.buf = encodeChanges(s.buf[:0], changes)
	commit, err := s.journal.Append(s.buf)
	if err == nil {
		err = commit.Wait(context.Background())
	}
	if err != nil {
		return fmt.Errorf("the changes could not be stored: %w; see to the disk that state.dir is on", err)
	}
	s.mu.Lock()
	for _, c := range changes {
		s.set(strings.Clone(c.Key), slices.Clone(c.Value))
	}
	s.mu.Unlock()
	if s.vault != nil && !s.sealLater.Swap(true) {
		time.AfterFunc(sealAfter, s.seal)
	}
	if s.journal.Due() {
		s.sealing.Lock()
		err := s.compact()
		s.sealing.Unlock()
		if err != nil {
			s.log.Error("a dialect's journal was not compacted; it goes on as it is", "error", err)
		}
	}
	return nil
}

// admits returns an error if an expectation of the changes does not hold, or if they would pass a bound. The caller
// holds s.writing, so nothing changes meanwhile.
func (s *store) admits(changes []plugin.Change) error {
	after := map[string][]byte{}
	for _, c := range changes {
		if v, ok := s.values[c.Key]; c.If && (ok != (c.Expect != nil) || string(v) != string(c.Expect)) {
			return plugin.ErrConflict
		}
		after[c.Key] = c.Value
	}
	keys, size := len(s.keys), s.size
	for key, v := range after {
		was, had := s.values[key]
		if had {
			keys--
			size -= len(key) + len(was)
		}
		if v != nil {
			keys++
			size += len(key) + len(v)
		}
	}
	// A change that only removes is admitted however full the store is.
	if (keys > plugin.MaxStoreKeys && keys > len(s.keys)) || (size > plugin.MaxStore && size > s.size) {
		return plugin.ErrStoreFull
	}
	return nil
}

// compact replaces the journal by the present content. The caller holds s.writing.
func (s *store) compact() error {
	const batch = 64 << 10
	return s.journal.Compact(func(write func([]byte) error) error {
		var part []plugin.Change
		size := 0
		for _, key := range s.keys {
			part = append(part, plugin.Change{Key: key, Value: s.values[key]})
			if size += len(key) + len(s.values[key]); size < batch {
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
