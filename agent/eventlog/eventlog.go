// Package eventlog keeps the log for auditors: every change of the verdict, of a document, of the upstream, and
// everything that an admin forced. It is JSON, one line an event. Each line has the hash of the line before it and the
// signature of the agent's key, so that [Verify] sees any line that was changed, taken out or put in. The files are
// rotated and bounded. Start reading at [Log].
package eventlog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/plugin/textual"
)

// Bounds of the log where the configuration says nothing.
const (
	DefaultFileBytes = 4 << 20
	DefaultFiles     = 8
	queue            = 1024    // events that wait to be written
	maxLine          = 1 << 20 // bytes
)

// Types of the log's own events.
const (
	Gap = "log.gap" // says how many events could not be written
	Cut = "log.cut" // says how many lines that were the last ones are gone
)

// sealAfter is how long the last line of a log may stand without a seal.
const sealAfter = 10 * time.Second

// Event is one line.
type Event struct {
	Sequence uint64            `json:"seq"`
	At       time.Time         `json:"at"` // licence time, UTC
	Type     string            `json:"type"`
	Code     string            `json:"code,omitempty"`
	Detail   string            `json:"detail,omitempty"` // one sentence
	Subject  string            `json:"subject,omitempty"`
	Actor    string            `json:"actor,omitempty"` // the user who caused it, as privacy.users says
	Fields   map[string]string `json:"fields,omitempty"`
	Body     json.RawMessage   `json:"body,omitempty"` // of logs that hold more than words
	// SHA-256 of the line before, in hex; of the first line ever: empty
	Previous string `json:"prev"`
	// Signature is over the line without it, by the agent's key (Ed25519), in base64url.
	Signature string `json:"sig,omitempty"`
}

// Config is what a Log needs.
type Config struct {
	Dir       string // made if it is missing (0700)
	Key       ed25519.PrivateKey
	FileBytes int64 // of one file; zero: DefaultFileBytes
	Files     int   // that are kept; zero: DefaultFiles
	Log       *slog.Logger
	// Seal has somebody else know the last line, so that it is missed when it is gone; nil: nobody does. It is called
	// by Run, ten seconds after a line at the latest, and at the end.
	Seal func(Head)
}

// Log takes events from Note; Run writes them.
type Log struct {
	cfg     Config
	queue   chan Event
	dropped atomic.Uint64
	head    atomic.Pointer[Head]

	// Run's alone.
	file *os.File
	size int64
	last Event
	prev string
	bad  error // why the last write failed
}

// Head is the last line of a log: its number, and its SHA-256 in hex.
type Head struct {
	Sequence uint64 `json:"seq"`
	Digest   string `json:"digest"`
}

// Lacking returns how many lines are gone at least from the end of a log whose last line was h, and now is another; 0:
// none.
func (h Head) Lacking(is Head) uint64 {
	if is.Sequence > h.Sequence || is == h {
		return 0
	}
	return max(1, h.Sequence-is.Sequence)
}

// Head returns the last line that is written; the zero value where there is none. It is safe to call at any time.
func (l *Log) Head() Head {
	if h := l.head.Load(); h != nil {
		return *h
	}
	return Head{}
}

// Open finds where the log goes on. It takes a last line away that a crash has cut off.
func Open(cfg Config) (*Log, error) {
	if cfg.FileBytes == 0 {
		cfg.FileBytes = DefaultFileBytes
	}
	if cfg.Files == 0 {
		cfg.Files = DefaultFiles
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	l := &Log{cfg: cfg, queue: make(chan Event, queue)}
	names, err := logFiles(cfg.Dir)
	if err != nil || len(names) == 0 {
		return l, err
	}
	// The newest file with a whole line says where the chain is.
	for _, name := range slices.Backward(names) {
		whole, last, err := tail(filepath.Join(cfg.Dir, name))
		if err != nil {
			return nil, fmt.Errorf("event log %s: %w", name, err)
		}
		if err := os.Truncate(filepath.Join(cfg.Dir, name), whole); err != nil {
			return nil, fmt.Errorf("event log: %w", err)
		}
		if last != nil {
			if err := json.Unmarshal(last, &l.last); err != nil {
				return nil, fmt.Errorf(
					"event log %s: its last line cannot be read; move the file away to begin a new chain", name)
			}
			l.prev = digest(last)
			l.head.Store(&Head{l.last.Sequence, l.prev})
			break
		}
	}
	return l, nil
}

// Note passes an event on to be written soon. It never waits: it counts events that find no room, and the log says how
// many are missing.
func (l *Log) Note(e Event) {
	select {
	case l.queue <- e:
	default:
		l.dropped.Add(1)
	}
}

// Run writes noted events until ctx ends, and then those that are left.
func (l *Log) Run(ctx context.Context) error {
	defer func() {
		if l.file != nil {
			l.file.Close() // every line was synced
		}
	}()
	seal := NewSealer(l.cfg.Seal)
	for {
		select {
		case e := <-l.queue:
			l.write(e)
			seal.Soon(l.Head())
		case <-seal.Due():
			seal.Now()
		case <-ctx.Done():
			for {
				select {
				case e := <-l.queue:
					l.write(e)
				default:
					seal.Soon(l.Head())
					seal.Now()
					return nil
				}
			}
		}
	}
}

// write appends an event, or counts it as missing.
func (l *Log) write(e Event) {
	if n := l.dropped.Swap(0); n > 0 {
		if err := l.append(Event{At: e.At, Type: Gap,
			Detail: fmt.Sprintf("%d events could not be written", n)}); err != nil {
			l.dropped.Add(n)
		}
	}
	err := l.append(e)
	if err != nil {
		l.dropped.Add(1)
		if l.bad == nil {
			l.cfg.Log.Error("the event log cannot be written; missing events are counted", "error", err)
		}
	}
	l.bad = err
}

func (l *Log) append(e Event) error {
	e.Sequence, e.Previous, e.Signature = l.last.Sequence+1, l.prev, ""
	e.At = e.At.UTC().Truncate(time.Millisecond)
	line, err := sign(e, l.cfg.Key)
	if err != nil {
		return err
	}
	l.leave()
	if l.file != nil && l.size+int64(len(line)) > l.cfg.FileBytes {
		if err := l.file.Close(); err != nil {
			return err
		}
		l.file = nil
	}
	if l.file == nil {
		if err := l.rotate(e.Sequence); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		// Half a line is taken away; where even that fails, the next Open does so.
		return errors.Join(err, l.file.Truncate(l.size), closeAnd(&l.file))
	}
	l.size += int64(n)
	l.last, l.prev = e, digest(bytes.TrimSuffix(line, []byte("\n")))
	l.head.Store(&Head{e.Sequence, l.prev})
	return nil
}

// leave leaves a file that was removed, or that another has taken the place of: the log goes on in one that is found.
func (l *Log) leave() {
	if l.file == nil {
		return
	}
	open, err := l.file.Stat()
	if err != nil {
		return
	}
	if is, err := os.Lstat(l.file.Name()); err == nil && os.SameFile(open, is) {
		return
	}
	_ = closeAnd(&l.file) // each line of it was synced
	l.size = 0
	if err := os.MkdirAll(l.cfg.Dir, 0o700); err == nil && l.cfg.Log != nil {
		l.cfg.Log.Error("the event log's file was removed, with the events in it; a new one is begun", "folder",
			l.cfg.Dir)
	}
}

func closeAnd(f **os.File) error {
	err := (*f).Close()
	*f = nil
	return err
}

// rotate opens the file for the event of a sequence number, and deletes the oldest.
func (l *Log) rotate(sequence uint64) error {
	names, err := logFiles(l.cfg.Dir)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("events-%012d.jsonl", sequence)
	if n := len(names); n > 0 {
		if fi, err := os.Stat(filepath.Join(l.cfg.Dir, names[n-1])); err == nil && fi.Size() < l.cfg.FileBytes*3/4 &&
			l.size == 0 {
			name = names[n-1] // the last run's
		}
	}
	f, err := files.Open(filepath.Join(l.cfg.Dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, fi.Size()
	for len(names) >= l.cfg.Files && names[0] != name {
		if err := os.Remove(filepath.Join(l.cfg.Dir, names[0])); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}

// valid returns an event whose texts are UTF-8, so that reading and writing its line again gives the same bytes.
func valid(e Event) Event {
	for _, s := range []*string{&e.Type, &e.Actor, &e.Subject, &e.Detail} {
		*s = textual.Valid(*s)
	}
	if len(e.Fields) > 0 {
		fields := make(map[string]string, len(e.Fields))
		for k, v := range e.Fields {
			fields[textual.Valid(k)] = textual.Valid(v)
		}
		e.Fields = fields
	}
	return e
}

// sign returns an event's line, line feed included.
func sign(e Event, key ed25519.PrivateKey) ([]byte, error) {
	e = valid(e)
	unsigned, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	e.Signature = base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, unsigned))
	line, err := json.Marshal(e)
	return append(line, '\n'), err
}

func digest(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// logFiles returns the names of the log's files, the oldest first.
func logFiles(dir string) (out []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "events-") && strings.HasSuffix(e.Name(), ".jsonl") {
			out = append(out, e.Name())
		}
	}
	return out, err // os.ReadDir sorts
}

// tail returns how many bytes of a file are whole lines, and the last of these.
func tail(path string) (whole int64, last []byte, err error) {
	f, err := files.Open(path, os.O_RDONLY)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return whole, last, nil
		}
		if err != nil {
			return 0, nil, err
		}
		whole += int64(len(line))
		last = bytes.TrimSuffix(line, []byte("\n"))
	}
}

// Report is what Verify found.
type Report struct {
	Events  uint64    `json:"events"`
	First   uint64    `json:"first"` // the sequence number of the oldest one that is kept
	Last    uint64    `json:"last"`
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"`
	Missing uint64    `json:"missing"` // events that could not be written, by the log's own words
	Gone    uint64    `json:"gone"`    // lines that were taken away from the log's end, by its own words
	Torn    bool      `json:"torn"`    // a crash has cut the last line off
	// Sealed is the number of the last line that the state's seal knows; 0: none, or it was not looked at. It is for
	// callers who can read the seal.
	Sealed uint64 `json:"sealed"`
}

// Broken says where a log is not as its agent wrote it.
type Broken struct {
	File string
	Line int
	Why  string
}

// Error returns the sentence.
func (b *Broken) Error() string { return fmt.Sprintf("%s, line %d: %s", b.File, b.Line, b.Why) }

// Verify reads a log and checks that it is one chain, signed by key throughout; a nil key checks the chain alone. Its
// error is a [*Broken] where the log was changed. That the newest lines were cut off shows only beside what was sealed
// of them ([Log.Head]).
func Verify(dir string, key ed25519.PublicKey, see func(Event)) (r Report, err error) {
	names, err := logFiles(dir)
	if err != nil {
		return r, err
	}
	prev := ""
	for i, name := range names {
		if err := verifyFile(filepath.Join(dir, name), name, i == len(names)-1, key, &prev, &r, see); err != nil {
			return r, err
		}
	}
	return r, nil
}

func verifyFile(path, name string, newest bool, key ed25519.PublicKey, prev *string, r *Report, see func(Event)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	for n := 1; ; n++ {
		bad := func(why string, args ...any) error { return &Broken{name, n, fmt.Sprintf(why, args...)} }
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(line) > 0 && !newest {
				return bad("the line is cut off")
			}
			r.Torn = len(line) > 0
			return nil
		}
		if err != nil {
			return err
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		var e Event
		if len(line) > maxLine || json.Unmarshal(line, &e) != nil {
			return bad("it is not an event")
		}
		switch {
		case r.Events > 0 && e.Previous != *prev:
			return bad("it does not follow from the line before: something was changed, taken out or put in")
		case r.Events > 0 && e.Sequence != r.Last+1:
			return bad("its number is %d, after %d", e.Sequence, r.Last)
		case key != nil && !signed(e, line, key):
			return bad("it is not signed by this agent's key")
		}
		if r.Events++; r.Events == 1 {
			r.First, r.From = e.Sequence, e.At
		}
		switch e.Type {
		case Gap:
			r.Missing += counted(e.Detail)
		case Cut:
			r.Gone += counted(e.Detail)
		default:
		}
		r.Last, r.To = e.Sequence, e.At
		*prev = digest(line)
		if see != nil {
			see(e)
		}
	}
}

// counted returns the number that a sentence begins with; 0: it begins with none.
func counted(detail string) (n uint64) {
	_, _ = fmt.Sscanf(detail, "%d", &n)
	return n
}

// signed reports whether a line is an event's, byte for byte, and signed.
func signed(e Event, line []byte, key ed25519.PublicKey) bool {
	sig, err := base64.RawURLEncoding.DecodeString(e.Signature)
	if again, err2 := json.Marshal(e); err != nil || err2 != nil || !bytes.Equal(again, line) {
		return false
	}
	e.Signature = ""
	unsigned, err := json.Marshal(e)
	return err == nil && ed25519.Verify(key, unsigned, sig)
}

// Tail returns the last n events of a log, the oldest first, as far as they can be read.
func Tail(dir string, n int) ([]Event, error) {
	out := []Event{}
	_, err := Verify(dir, nil, func(e Event) {
		if len(out) == n {
			out = out[1:]
		}
		out = append(out, e)
	})
	return out, err
}
