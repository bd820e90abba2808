package fleet

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// sim is a store as etcd is one, in memory and on the time of a bubble: revisions, leases, watches that lag, and the
// faults that a cluster has. Its clock is the leader's.
//
// No call looks at keys, leases or watches that it does not concern, so that a crowd may be large.
type sim struct {
	mu        sync.Mutex // guards all below
	cluster   uint64
	rev       int64
	kvs       map[string]KV
	order     []string // the keys of kvs in order
	leases    map[Lease]*simLease
	soonest   time.Time // no lease ends sooner
	next      Lease
	log       []Change            // of all revisions after compacted
	past      map[string][]Change // the log by key
	watches   map[string][]*simWatch
	compacted int64 // what was before this revision is not known any more
	copy      int   // how often it was restored
	down      bool  // no quorum
	full      bool  // out of quota: nothing is written, and no lease made; leases are renewed, and keys deleted
	writes    int
	calls     int       // transactions, grants and renewals
	passed    *passings // who was passed in turn; nil: nobody looks
}

type simLease struct {
	ttl     time.Duration
	expires time.Time
	keys    map[string]bool
}

// simWatch is a watch. The sim's mu guards all but changed.
type simWatch struct {
	prefix  string
	queue   []Change
	seen    int64 // the revision up to which it was told
	tells   bool  // it is telling what it took from the queue
	over    bool
	changed chan struct{} // capacity 1
}

func newSim() *sim {
	return &sim{cluster: 1, rev: 1, kvs: map[string]KV{}, leases: map[Lease]*simLease{}, next: 100,
		past: map[string][]Change{}, watches: map[string][]*simWatch{}}
}

// with returns the keys that begin with prefix, in order. mu is held.
func (s *sim) with(prefix string) []string {
	from, _ := slices.BinarySearch(s.order, prefix)
	to := from
	for to < len(s.order) && strings.HasPrefix(s.order[to], prefix) {
		to++
	}
	return s.order[from:to]
}

// expire ends the leases whose time is over. mu is held.
func (s *sim) expire() {
	now := time.Now()
	if len(s.leases) == 0 || s.soonest.After(now) {
		return
	}
	var over []Lease
	s.soonest = time.Time{}
	for id, l := range s.leases {
		if !l.expires.After(now) {
			over = append(over, id)
		} else {
			s.ends(l.expires)
		}
	}
	slices.Sort(over)
	for _, id := range over {
		s.end(id)
	}
}

// ends takes note of when a lease ends. mu is held.
func (s *sim) ends(at time.Time) {
	if s.soonest.IsZero() || at.Before(s.soonest) {
		s.soonest = at
	}
}

// grant makes a lease. mu is held.
func (s *sim) grant(id Lease, ttl time.Duration, keys map[string]bool) {
	l := &simLease{ttl, time.Now().Add(ttl), keys}
	if len(s.leases) == 0 {
		s.soonest = time.Time{}
	}
	s.leases[id] = l
	s.ends(l.expires)
}

// end ends a lease. mu is held.
func (s *sim) end(id Lease) {
	l := s.leases[id]
	delete(s.leases, id)
	if l == nil || len(l.keys) == 0 {
		return
	}
	s.rev++
	for _, k := range slices.Sorted(maps.Keys(l.keys)) {
		s.delete(k)
	}
}

// put writes a key. mu is held.
func (s *sim) put(kv KV) {
	was, ok := s.kvs[kv.Key]
	if !ok {
		i, _ := slices.BinarySearch(s.order, kv.Key)
		s.order = slices.Insert(s.order, i, kv.Key)
	} else if kv.Create = was.Create; was.Lease != kv.Lease {
		s.unbind(was)
	}
	if l := s.leases[kv.Lease]; l != nil {
		if l.keys == nil {
			l.keys = map[string]bool{}
		}
		l.keys[kv.Key] = true
	}
	s.kvs[kv.Key] = kv
	s.note(Change{kv, false})
}

// unbind takes a key from its lease. mu is held.
func (s *sim) unbind(kv KV) {
	if l := s.leases[kv.Lease]; l != nil {
		delete(l.keys, kv.Key)
	}
}

// delete takes a key away. mu is held.
func (s *sim) delete(key string) {
	if kv, ok := s.kvs[key]; ok {
		s.unbind(kv)
		delete(s.kvs, key)
		i, _ := slices.BinarySearch(s.order, key)
		s.order = slices.Delete(s.order, i, i+1)
		s.note(Change{KV{Key: key, Create: kv.Create, Mod: s.rev}, true})
	}
}

// note has a change in the log, and tells who watches. mu is held.
func (s *sim) note(c Change) {
	s.log, s.past[c.Key] = append(s.log, c), append(s.past[c.Key], c)
	for i := range len(c.Key) + 1 {
		for _, w := range s.watches[c.Key[:i]] {
			w.queue = append(w.queue, c)
			w.wake()
		}
	}
}

func (w *simWatch) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// watch begins a watch.
func (s *sim) watch(prefix string, after int64) *simWatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &simWatch{prefix: prefix, seen: s.rev, over: after+1 < s.compacted, changed: make(chan struct{}, 1)}
	from, _ := slices.BinarySearchFunc(s.log, after+1, func(c Change, rev int64) int { return int(c.Mod - rev) })
	for _, c := range s.log[from:] {
		if strings.HasPrefix(c.Key, prefix) {
			w.queue = append(w.queue, c)
		}
	}
	s.watches[prefix] = append(s.watches[prefix], w)
	return w
}

func (s *sim) unwatch(w *simWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.DeleteFunc(s.watches[w.prefix], func(x *simWatch) bool { return x == w })
	if s.watches[w.prefix] = left; len(left) == 0 {
		delete(s.watches, w.prefix)
	}
}

// news takes what a watch is to tell; false: it is over.
func (s *sim) news(w *simWatch) ([]Change, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.over {
		return nil, false
	}
	out := w.queue
	w.queue, w.seen, w.tells = nil, s.rev, len(out) > 0
	return out, true
}

var errNoQuorum = errors.New("etcdserver: no leader")

// is compares. mu is held.
func (s *sim) is(is Is) bool {
	kv, ok := s.kvs[is.Key]
	switch {
	case is.Prefix != "":
		return !slices.ContainsFunc(s.with(is.Prefix), func(k string) bool { return s.kvs[k].Mod > is.Unchanged })
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
	s.calls++
	if s.down {
		return nil, errNoQuorum
	}
	s.expire()
	if s.full && slices.ContainsFunc(slices.Concat(t.Then, t.Else), func(o Op) bool { return o.Put != "" }) {
		return nil, rpctypes.ErrNoSpace // whichever of the two would be done
	}
	done := !slices.ContainsFunc(t.If, func(is Is) bool { return !s.is(is) })
	ops := t.Else
	if done {
		ops = t.Then
	}
	for _, o := range ops {
		switch {
		case o.Put != "" && o.Lease != 0 && s.leases[o.Lease] == nil:
			return nil, errors.New("etcdserver: requested lease not found")
		case o.Rev > s.rev:
			return nil, errors.New("etcdserver: mvcc: required revision is a future revision")
		case o.Rev > 0 && o.Rev < s.compacted:
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
			out.Got = append(out.Got, s.list(o))
		case o.Count != "":
			out.Counted = append(out.Counted, int64(len(s.with(o.Count))))
		case o.Put != "":
			write()
			s.put(KV{o.Put, o.Value, s.rev, s.rev, o.Lease})
		default:
			if _, ok := s.kvs[o.Delete]; ok {
				write()
				s.delete(o.Delete)
			}
		}
	}
	out.Rev = s.rev
	return out, nil
}

// key returns a key as it is.
func (s *sim) key(name string) (KV, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(name, 0)
}

// list is Op.List. mu is held.
func (s *sim) list(o Op) (got []KV) {
	for _, k := range s.with(o.List) {
		got = append(got, s.kvs[k])
	}
	if made := func(a, b KV) int { return int(a.Create - b.Create) }; !slices.IsSortedFunc(got, made) {
		slices.SortStableFunc(got, made)
	}
	if o.Most > 0 && int64(len(got)) > o.Most {
		got = got[:o.Most]
	}
	return got
}

// at returns a key as of a revision; 0: as it is. mu is held.
func (s *sim) at(key string, rev int64) (kv KV, ok bool) {
	if rev == 0 {
		kv, ok = s.kvs[key]
		return kv, ok
	}
	for _, c := range s.past[key] {
		if c.Mod <= rev {
			kv, ok = c.KV, !c.Deleted
		}
	}
	return kv, ok
}

// compact forgets what was before the revision that holds, but for the keys that there are.
func (s *sim) compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	for _, all := range s.watches {
		for _, w := range all {
			w.over = w.over || w.tells && w.seen+1 < s.compacted
		}
	}
}

// forget has the log know nothing but the keys that there are. mu is held.
func (s *sim) forget() {
	s.compacted, s.log, s.past = s.rev, nil, map[string][]Change{}
	for _, k := range s.order {
		c := Change{s.kvs[k], false}
		s.log, s.past[k] = append(s.log, c), []Change{c}
	}
	slices.SortStableFunc(s.log, func(a, b Change) int { return int(a.Mod - b.Mod) })
}

// snapshot and restore are a backup. A restored one has another cluster id.
func (s *sim) snapshot() *sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &sim{cluster: s.cluster, rev: s.rev, kvs: maps.Clone(s.kvs), leases: map[Lease]*simLease{}, next: s.next}
	for id, l := range s.leases {
		c.leases[id] = &simLease{l.ttl, l.expires, maps.Clone(l.keys)}
	}
	return c
}

func (s *sim) restore(c *sim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster++
	s.rev, s.kvs, s.next = c.rev, maps.Clone(c.kvs), c.next+1000
	s.order = slices.Sorted(maps.Keys(s.kvs))
	s.leases = map[Lease]*simLease{}
	for id, l := range c.leases { // a new leader gives each lease its whole time
		s.grant(id, l.ttl, maps.Clone(l.keys))
	}
	s.copy++
	s.forget()
	for _, all := range s.watches {
		for _, w := range all {
			w.over = true
			w.wake()
		}
	}
}

// elect has another member lead, which gives each lease its whole time again.
func (s *sim) elect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extend()
}

// extend gives each lease its whole time. mu is held.
func (s *sim) extend() {
	for _, l := range s.leases {
		l.expires = time.Now().Add(l.ttl)
	}
}

func (s *sim) quorum(there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down = !there; there {
		s.extend()
	}
}
