package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// sim is a store as etcd is one, in memory and on the time of a bubble: revisions, leases, watches that lag, and the
// faults that a cluster has. Its clock is the leader's.
type sim struct {
	mu        sync.Mutex // guards all below
	cluster   uint64
	rev       int64
	kvs       map[string]KV
	leases    map[Lease]*simLease
	next      Lease
	log       []Change // of all revisions after compacted
	changed   chan struct{}
	compacted int64 // what was before this revision is not known any more
	copy      int   // how often it was restored
	down      bool  // no quorum
	writes    int
	passed    *passings // who was passed in turn; nil: nobody looks
}

type simLease struct {
	ttl     time.Duration
	expires time.Time
}

func newSim() *sim {
	return &sim{cluster: 1, rev: 1, kvs: map[string]KV{}, leases: map[Lease]*simLease{}, next: 100,
		changed: make(chan struct{})}
}

// expire ends the leases whose time is over. mu is held.
func (s *sim) expire() {
	now := time.Now()
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		if !s.leases[id].expires.After(now) {
			s.end(id)
		}
	}
}

// end ends a lease. mu is held.
func (s *sim) end(id Lease) {
	delete(s.leases, id)
	var keys []string
	for k, kv := range s.kvs {
		if kv.Lease == id {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	s.rev++
	for _, k := range keys {
		s.delete(k)
	}
	s.tell()
}

func (s *sim) delete(key string) {
	if kv, ok := s.kvs[key]; ok {
		delete(s.kvs, key)
		s.log = append(s.log, Change{KV{Key: key, Create: kv.Create, Mod: s.rev}, true})
	}
}

func (s *sim) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

var errNoQuorum = errors.New("etcdserver: no leader")

// is compares. mu is held.
func (s *sim) is(is Is) bool {
	kv, ok := s.kvs[is.Key]
	switch {
	case is.Prefix != "":
		for k, kv := range s.kvs {
			if strings.HasPrefix(k, is.Prefix) && kv.Mod > is.Unchanged {
				return false
			}
		}
		return true
	case is.Absent:
		return !ok
	case is.Value != nil:
		return ok && kv.Value == *is.Value
	}
	return ok && kv.Mod == is.Mod
}

func (s *sim) txn(t *Txn) (*Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errNoQuorum
	}
	s.expire()
	done := !slices.ContainsFunc(t.If, func(is Is) bool { return !s.is(is) })
	ops := t.Else
	if done {
		ops = t.Then
	}
	for _, o := range ops {
		if o.Put != "" && o.Lease != 0 && s.leases[o.Lease] == nil {
			return nil, errors.New("etcdserver: requested lease not found")
		}
	}
	for _, o := range ops {
		if o.Rev > s.rev {
			return nil, errors.New("etcdserver: mvcc: required revision is a future revision")
		} else if o.Rev > 0 && o.Rev < s.compacted {
			return nil, errors.New("etcdserver: mvcc: required revision has been compacted")
		}
	}
	s.judge(ops)
	out := &Result{Done: done, Cluster: s.cluster}
	wrote := false
	write := func() {
		if !wrote {
			s.rev++
			s.writes++
			wrote = true
		}
	}
	for _, o := range ops {
		switch {
		case o.Get != "":
			var got []KV
			if kv, ok := s.at(o.Get, o.Rev); ok {
				got = append(got, kv)
			}
			out.Got = append(out.Got, got)
		case o.List != "":
			var got []KV
			for k, kv := range s.kvs {
				if strings.HasPrefix(k, o.List) {
					got = append(got, kv)
				}
			}
			slices.SortFunc(got, func(a, b KV) int {
				if a.Create != b.Create {
					return int(a.Create - b.Create)
				}
				return strings.Compare(a.Key, b.Key)
			})
			if o.Most > 0 && int64(len(got)) > o.Most {
				got = got[:o.Most]
			}
			out.Got = append(out.Got, got)
		case o.Put != "":
			write()
			kv := KV{o.Put, o.Value, s.rev, s.rev, o.Lease}
			if was, ok := s.kvs[o.Put]; ok {
				kv.Create = was.Create
			}
			s.kvs[o.Put] = kv
			s.log = append(s.log, Change{kv, false})
		default:
			if _, ok := s.kvs[o.Delete]; ok {
				write()
				s.delete(o.Delete)
			}
		}
	}
	if wrote {
		s.tell()
	}
	out.Rev = s.rev
	return out, nil
}

// at returns a key as of a revision; 0: as it is. mu is held.
func (s *sim) at(key string, rev int64) (kv KV, ok bool) {
	if rev == 0 {
		kv, ok = s.kvs[key]
		return kv, ok
	}
	for _, c := range s.log {
		if c.Key == key && c.Mod <= rev {
			kv, ok = c.KV, !c.Deleted
		}
	}
	return kv, ok
}

// compact forgets what was before the revision that holds, but for the keys that there are.
func (s *sim) compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compacted, s.log = s.rev, nil
	for _, k := range slices.Sorted(maps.Keys(s.kvs)) {
		s.log = append(s.log, Change{s.kvs[k], false})
	}
}

// snapshot and restore are a backup. A restored one has another cluster id.
func (s *sim) snapshot() *sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &sim{cluster: s.cluster, rev: s.rev, kvs: maps.Clone(s.kvs), leases: map[Lease]*simLease{}, next: s.next}
	for id, l := range s.leases {
		c.leases[id] = &simLease{l.ttl, l.expires}
	}
	return c
}

func (s *sim) restore(c *sim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster++
	s.rev, s.kvs, s.next = c.rev, maps.Clone(c.kvs), c.next+1000
	s.leases = map[Lease]*simLease{}
	for id, l := range c.leases { // a new leader gives each lease its whole time
		s.leases[id] = &simLease{l.ttl, time.Now().Add(l.ttl)}
	}
	s.copy++
	s.compacted, s.log = s.rev, nil
	for _, k := range slices.Sorted(maps.Keys(s.kvs)) {
		s.log = append(s.log, Change{s.kvs[k], false})
	}
	s.tell()
}

// elect has another member lead, which gives each lease its whole time again.
func (s *sim) elect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.leases {
		l.expires = time.Now().Add(l.ttl)
	}
}

func (s *sim) quorum(there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down = !there; there {
		for _, l := range s.leases {
			l.expires = time.Now().Add(l.ttl)
		}
	}
}

// way is one agent's way to a sim, with what a network does to calls.
type way struct {
	sim *sim

	mu    sync.Mutex // guards all below
	cut   bool       // nothing comes through
	lose  func() bool
	delay func() time.Duration
	twice func() bool   // a call is made twice
	lag   time.Duration // of watches
}

// set makes the faults of the way.
func (w *way) set(cut bool, lose func() bool, delay func() time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.lose, w.delay = cut, lose, delay
}

// through has a call come through, or not; both ways may take time, and an answer may be lost after the call was made.
func through[T any](ctx context.Context, w *way, call func() (T, error)) (T, error) {
	var none T
	step := func() error {
		w.mu.Lock()
		cut, lose, delay := w.cut, w.lose, w.delay
		w.mu.Unlock()
		var wait time.Duration
		if delay != nil {
			wait = delay()
		}
		if cut || lose != nil && lose() {
			<-ctx.Done()
			return ctx.Err()
		}
		if wait > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := step(); err != nil {
		return none, err
	}
	out, err := call()
	w.mu.Lock()
	twice := w.twice
	w.mu.Unlock()
	if twice != nil && twice() {
		out, err = call()
	}
	if err := step(); err != nil {
		return none, err
	}
	return out, err
}

func (w *way) Txn(ctx context.Context, t *Txn) (*Result, error) {
	return through(ctx, w, func() (*Result, error) { return w.sim.txn(t) })
}

func (w *way) Grant(ctx context.Context, ttl time.Duration) (Lease, time.Duration, error) {
	l, err := through(ctx, w, func() (Lease, error) {
		s := w.sim
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down {
			return 0, errNoQuorum
		}
		s.next++
		s.leases[s.next] = &simLease{ttl, time.Now().Add(ttl)}
		return s.next, nil
	})
	return l, ttl, err
}

func (w *way) Renew(ctx context.Context, l Lease) (time.Duration, error) {
	return through(ctx, w, func() (time.Duration, error) {
		s := w.sim
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down {
			return 0, errNoQuorum
		}
		s.expire()
		is := s.leases[l]
		if is == nil {
			return 0, ErrLeaseGone
		}
		is.expires = time.Now().Add(is.ttl)
		return is.ttl, nil
	})
}

func (w *way) Watch(ctx context.Context, prefix string, after int64) <-chan Change {
	out := make(chan Change)
	go func() {
		defer close(out)
		w.sim.mu.Lock()
		copy := w.sim.copy
		w.sim.mu.Unlock()
		for seen := after; ; {
			w.sim.mu.Lock()
			if seen+1 < w.sim.compacted || copy != w.sim.copy {
				w.sim.mu.Unlock()
				return
			}
			var news []Change
			for _, c := range w.sim.log {
				if c.Mod > seen && strings.HasPrefix(c.Key, prefix) {
					news = append(news, c)
				}
			}
			seen = w.sim.rev
			changed := w.sim.changed
			w.sim.mu.Unlock()
			for _, c := range news {
				w.mu.Lock()
				cut, lag := w.cut, w.lag
				w.mu.Unlock()
				if cut {
					return
				}
				<-time.After(lag)
				select {
				case out <- c:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
