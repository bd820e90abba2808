package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// A server that starts on an old copy of its folder does not know of the blocks that it has given since. Two things
// keep it from giving their slots again:
//
//   - A stamp outside the folder says how often the store has been changed. A store that does not fit the stamp may be
//     an old one: no new block goes out, and none grows, until all that may have been given before are over. Blocks
//     that agents have go on.
//   - Each answer carries, sealed by the server, what the agent has and how often it was answered. Agents show it with
//     their next request. So the server hears that its store is old, and takes over the blocks that it does not know
//     of.

var meta = []byte("meta")

// Keys of the bucket meta.
var (
	metaStore      = []byte("store")      // the store's id
	metaSecret     = []byte("secret")     // what the server seals its words with; see word
	metaGeneration = []byte("generation") // how often blocks have been changed
	metaSeconds    = []byte("seconds")    // the longest time of a block when the server ran last
)

// markFile lies beside the store and says that it has given blocks. A folder that has the mark without the store has
// lost the store.
const markFile = "pools-served"

// identity reads what tells the store from others, and makes it where it is missing.
func identity(tx *bbolt.Tx) (store string, secret []byte, err error) {
	b, err := tx.CreateBucketIfNotExists(meta)
	if err != nil {
		return "", nil, err
	}
	if b.Get(metaStore) == nil || len(b.Get(metaSecret)) < 32 {
		secret := make([]byte, 32)
		rand.Read(secret) // never fails: see crypto/rand
		if err := errors.Join(b.Put(metaStore, []byte(newChain())), b.Put(metaSecret, secret)); err != nil {
			return "", nil, err
		}
	}
	return string(b.Get(metaStore)), append([]byte(nil), b.Get(metaSecret)...), nil
}

func getNumber(b *bbolt.Bucket, key []byte) int64 {
	v := b.Get(key)
	if len(v) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(v))
}

func putNumber(b *bbolt.Bucket, key []byte, n int64) error {
	return b.Put(key, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// stamp says outside the store how often the store was changed, in a folder that does not outlive a boot of the host.
type stamp struct {
	file *os.File // nil: there is none, and no later start can show that the store is the latest
	boot string
	id   string
}

// stampSize is the size of a stamp in bytes: each is written in one piece, over the one before.
const stampSize = 160

// openStamp opens the stamp of the store in a folder, and reports whether it fits: the same boot, the same store, and
// as many changes. The store has one change more when the server was killed between the two.
func openStamp(dir, name, boot, id string, generation int64) (s *stamp, fits, there bool, err error) {
	s = &stamp{boot: boot, id: id}
	if dir == "" || boot == "" {
		return s, false, false, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, false, false, err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return s, false, false, err
	}
	b := make([]byte, stampSize)
	n, _ := f.ReadAt(b, 0)
	s.file = f
	there = n == stampSize
	fits = there && (string(b) == s.text(generation, false) ||
		generation > 0 && string(b) == s.text(generation-1, false))
	return s, fits, there, nil
}

func (s *stamp) text(generation int64, settling bool) string {
	t := fmt.Sprintf("usher upstream store %s on start %s changed %020d", s.id, s.boot, generation)
	if settling {
		t += " settling"
	}
	return fmt.Sprintf("%-*.*s\n", stampSize-1, stampSize-1, t)
}

// write says how often the store was changed. A stamp that cannot be written is made to fit nothing. One that is
// written while the server settles fits nothing either: a server that starts meanwhile settles again.
func (s *stamp) write(generation int64, settling bool) error {
	if s.file == nil {
		return nil
	}
	if _, err := s.file.WriteAt([]byte(s.text(generation, settling)), 0); err != nil {
		return errors.Join(err, s.file.Truncate(0))
	}
	return nil
}

func (s *stamp) close() {
	if s != nil && s.file != nil {
		s.file.Close()
	}
}

// stampName names the stamp of a folder that a key serves.
func stampName(key, dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	sum := sha256.Sum256([]byte(key + "\x00" + dir))
	return base64.RawURLEncoding.EncodeToString(sum[:15]) + ".stamp"
}

// start finds out whether the store is the latest, and has the server settle where it cannot tell. tx is the
// transaction in which the blocks were read; new says that the store has never given blocks.
func (p *Blocks) start(g *Registry, tx *bbolt.Tx, new bool) error {
	b := tx.Bucket(meta)
	p.generation = getNumber(b, metaGeneration)
	p.longest = max(p.ttl, time.Duration(getNumber(b, metaSeconds))*time.Second)
	for _, x := range p.blocks.by {
		p.longest = max(p.longest, time.Duration(x.Seconds)*time.Second)
	}
	var fits, there bool
	var err error
	p.stamp, fits, there, err = openStamp(g.cfg.RunDir, stampName(g.own, g.cfg.Dir), g.cfg.BootID, g.store,
		p.generation)
	if err != nil {
		g.cfg.Log.Warn("the server cannot show after its next start that its store is the latest", "error", err, "hint",
			"name a folder that it may write to with --runtime-dir")
	}
	mark := filepath.Join(g.cfg.Dir, markFile)
	_, err = os.Lstat(mark)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil:
		if err := os.WriteFile(mark,
			[]byte(
				"This folder's server has given blocks of slots. Keep this file with registry.db: see the "+
					"documentation of the upstream.\n"), 0o600); err != nil {
			return err
		}
	}
	if marked := err == nil; !fits && (!new || there || marked) {
		p.settle("it cannot be shown that the store is the latest")
	}
	seconds := p.ttl
	if p.blocks.settling > 0 {
		seconds = p.longest
	}
	return putNumber(b, metaSeconds, int64(seconds/time.Second))
}

// settle has the server give no new slots until all blocks that it may have given are over. p.mu is held.
func (p *Blocks) settle(why string) {
	p.blocks.settling = max(p.blocks.settling, p.up()+p.longest)
	p.restamp()
	p.log.Warn("no new slots are given for a while: "+why+", and slots that others have must not be given twice", "for",
		p.longest)
}

// restamp says outside the store how often the store was changed. p.mu is held.
func (p *Blocks) restamp() {
	err := p.stamp.write(p.generation, p.up() < p.blocks.settling)
	if err != nil && !p.unstamped {
		p.log.Warn("the server cannot show after its next start that its store is the latest", "error", err)
	}
	p.unstamped = err != nil
}

// Aged has the server settle, because the store does not know of an answer that an agent got at a time. Blocks of that
// time are over a block's time later.
func (p *Blocks) Aged(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.up() < p.blocks.settling || p.now().Sub(at) > p.longest+time.Minute {
		return
	}
	p.settle("an agent was answered later than the store says: it is an old copy")
}

// settlingRefusal says until when there are no new slots, in the same words for each caller.
func settlingRefusal(a *ask, until time.Duration) *online.Refusal {
	return &online.Refusal{System: plugin.SystemSettling, Hint: "the agent tries again by itself",
		Reason: fmt.Sprintf(
			"the server cannot show that its store is the latest, and gives no new slots before %s, so that none is "+
				"given twice", a.wall.Add(until-a.now).Round(time.Second).Format(time.RFC3339))}
}
