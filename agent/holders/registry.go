package holders

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// Handover keeps the pidfds of holders for the next agent.
type Handover interface {
	// Idle reports that nothing is kept.
	Idle() bool
	// KeepHolder keeps the pidfd of a process until Drop, and returns the name that it is kept by; empty: it is not
	// kept. start is in clock ticks after boot, inode of the pidfd on pidfs; 0: not known.
	KeepHolder(handle *liveness.Handle, pid int32, start, inode uint64) (name string)
	Drop(name string)
}

// Config says what a registry reports to.
type Config struct {
	Handover Handover
	// Leave ends the hold of a dead process on leases. The registry holds no lock while it calls it.
	Leave func(ids []enforcer.LeaseID, holder enforcer.Caller)
}

// Registry knows by which process each process lease lives, and ends the leases of one that dies. One watch serves all
// the leases of a process. It is safe for concurrent use.
type Registry struct {
	leave    func([]enforcer.LeaseID, enforcer.Caller)
	watcher  *liveness.Watcher
	handover Handover

	strays atomic.Uint64 // see Strays

	mu    sync.Mutex // guards all below; taken under the lock that Ended is called with, never the other way round
	alive map[process]*holding
	ties  ties

	revoked int // entries of alive that are revoked
}

// process tells a process from another that bears its number later.
type process struct {
	pid    int32
	start  uint64
	inode  uint64
	handle *liveness.Handle // only where nothing else tells it from others: one that is not visible, before Linux 6.9
}

type holding struct {
	key    process
	caller enforcer.Caller
	watch  *liveness.Watch
	leases leaseSet
	pins   int    // sessions that are open: their process is watched between leases, too
	kept   string // the name that its pidfd is kept by; empty: it is not kept
	gone   bool
	// revoked says that the licence took a lease from the process, which has got none since, and that it runs on.
	revoked bool
}

// New returns a registry that knows of no holder yet. The error says that the kernel gives nothing to watch processes
// with.
func New(c Config) (*Registry, error) {
	w, err := liveness.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &Registry{
		leave:    c.Leave,
		watcher:  w,
		handover: c.Handover,
		alive:    map[process]*holding{},
		ties:     newTies(),
	}, nil
}

// Run tells of deaths until ctx ends.
func (r *Registry) Run(ctx context.Context) error { return r.watcher.Run(ctx) }

// Close ends all watches.
func (r *Registry) Close() { r.watcher.Close() }

// keyOf returns the registry's key of a process.
func keyOf(handle *liveness.Handle) process {
	p := handle.Process()
	if p.Inode == 0 && (p.PID == 0 || p.Start == 0) {
		return process{handle: handle}
	}
	return process{pid: p.PID, start: p.Start, inode: p.Inode}
}

// Hold says that a lease lives by a process. When the process is dead already the lease ends at once. The error says
// that it cannot be watched; the lease does not live by it then.
func (r *Registry) Hold(id enforcer.LeaseID, caller enforcer.Caller, handle *liveness.Handle) error {
	key := keyOf(handle)
	r.mu.Lock()
	x := r.process(key, caller)
	r.tie(x, id, handle.Path())
	watched := x.watch != nil
	r.mu.Unlock()
	if !watched {
		if err := r.watch(key, x, handle); err != nil {
			r.letGo(id, x)
			return err
		}
	}
	r.keepHolder(key, x, handle)
	return nil
}

// holdAll is Hold of a group. Nobody waits for the registry yet.
func (r *Registry) holdAll(g *group, handle *liveness.Handle) error {
	key := keyOf(handle)
	ids := enforcer.InOrder(g.ids)
	r.mu.Lock()
	x := r.process(key, g.by.Caller)
	r.mark(x, false)
	beside(len(ids), func() { x.leases.addAll(ids) }, func() { r.ties.addAll(ids, x, handle.Path()) })
	r.mu.Unlock()
	if err := r.watch(key, x, handle); err != nil {
		for _, id := range ids {
			r.letGo(id, x)
		}
		return err
	}
	r.keepHolder(key, x, handle)
	return nil
}

// tie has a lease live by a process. r.mu is held.
func (r *Registry) tie(x *holding, id enforcer.LeaseID, path liveness.Path) {
	x.leases.add(id)
	r.mark(x, false)
	r.ties.add(id, x, path)
}

// keepHolder has the pidfd of a process kept, where anybody keeps it.
func (r *Registry) keepHolder(key process, x *holding, handle *liveness.Handle) {
	if r.handover.Idle() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(key, x, handle)
}

// onDeath calls die when a process has died, until stop is called.
func (r *Registry) onDeath(handle *liveness.Handle, die func()) (stop func(), err error) {
	w, err := r.watcher.Watch(handle, die)
	if err != nil {
		return nil, err
	}
	return w.Stop, nil
}

// holds reports whether a lease lives by a process, or has lived by it and ends just now.
func (r *Registry) holds(id enforcer.LeaseID, handle *liveness.Handle) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := keyOf(handle)
	return slices.ContainsFunc(r.ties.of(id), func(x *holding) bool { return x.key == key })
}

// letGo forgets that a lease was to live by a process.
func (r *Registry) letGo(id enforcer.LeaseID, x *holding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ties.remove(id, x)
}

// keep has the pidfd of a process that holds something kept, until the process is forgotten here. r.mu is held.
func (r *Registry) keep(key process, x *holding, handle *liveness.Handle) {
	if x.kept != "" || r.alive[key] != x {
		return
	}
	// By the journal's word of it: the next agent looks for that.
	x.kept = r.handover.KeepHolder(handle, x.caller.PID, x.caller.Start, x.caller.Inode)
}

// forget ends the keeping of a process's pidfd. r.mu is held.
func (r *Registry) forget(x *holding) {
	if x.kept != "" {
		r.handover.Drop(x.kept)
		x.kept = ""
	}
}

// process returns the entry of a process, and makes it if there is none. r.mu is held.
func (r *Registry) process(key process, caller enforcer.Caller) *holding {
	x := r.alive[key]
	if x == nil {
		x = &holding{key: key, caller: caller}
		r.alive[key] = x
	}
	return x
}

// Pin has a process watched for as long as a session of its is open, so that a lease that comes and goes costs no
// watch. The error says that it cannot be watched.
func (r *Registry) Pin(caller enforcer.Caller, handle *liveness.Handle) error {
	key := keyOf(handle)
	r.mu.Lock()
	x := r.process(key, caller)
	x.pins++
	r.mu.Unlock()
	return r.watch(key, x, handle)
}

// Unpin undoes one Pin.
func (r *Registry) Unpin(handle *liveness.Handle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.alive[keyOf(handle)]; x != nil {
		x.pins--
		r.dropIdle(x)
	}
}

// dropIdle forgets a process that holds nothing, has no session, and is not one that should have ended. r.mu is held.
func (r *Registry) dropIdle(x *holding) {
	if x.leases.len() > 0 || x.pins > 0 || x.revoked {
		return
	}
	delete(r.alive, x.key)
	r.forget(x)
	if x.watch != nil {
		x.watch.Stop()
	}
}

// watch has a process watched, if it is not yet.
func (r *Registry) watch(key process, x *holding, handle *liveness.Handle) error {
	r.mu.Lock()
	watched := x.watch != nil
	r.mu.Unlock()
	if watched {
		return nil
	}
	watch, err := r.watcher.Watch(handle, func() { r.died(key) })
	r.mu.Lock()
	defer r.mu.Unlock()
	x.watch = watch
	if err != nil {
		r.mark(x, false)
		delete(r.alive, key)
	} else if x.gone || r.alive[key] != x {
		watch.Stop()
	}
	return err
}

// died ends the leases of a process.
func (r *Registry) died(key process) {
	r.mu.Lock()
	x := r.alive[key]
	if x == nil {
		r.mu.Unlock()
		return
	}
	r.mark(x, false)
	delete(r.alive, key)
	r.forget(x)
	x.gone = true
	leases := x.leases.all() // no more come, for the entry is forgotten
	x.leases = leaseSet{}
	r.mu.Unlock()
	if len(leases) > 0 {
		r.leave(leases, x.caller)
	}
}

// Ended forgets a lease that is over. Of a process whose lease was revoked it remembers that, for as long as it runs.
func (r *Registry) Ended(l *enforcer.Lease, why enforcer.Cause) {
	if l.Lifetime != enforcer.LifetimeProcess {
		return // it lives by no process
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first, known := r.ties.leases.Get(l.ID)
	if !known {
		r.strays.Add(1)
		return
	}
	further := r.ties.joint[l.ID]
	r.ties.end(l.ID)
	r.freed(first.by, l.ID, why)
	for _, x := range further {
		r.freed(x, l.ID, why)
	}
}

// freed takes a lease that is over off a process. r.mu is held.
func (r *Registry) freed(x *holding, id enforcer.LeaseID, why enforcer.Cause) {
	if r.alive[x.key] != x {
		return
	}
	x.leases.remove(id)
	r.mark(x, x.revoked || why == enforcer.CauseRevoked && x.watch != nil)
	r.dropIdle(x)
}

// Strays counts the process leases that ended while the registry did not know them. A lease that is granted and held
// here while the number stays the same has not ended in between.
func (r *Registry) Strays() uint64 { return r.strays.Load() }

// RevokedAlive counts the processes that still run after the licence took a lease from them, and that have got none
// since.
func (r *Registry) RevokedAlive() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revoked
}

// mark says whether the licence took a lease from a process that is alive. r.mu is held.
func (r *Registry) mark(x *holding, revoked bool) {
	switch {
	case revoked && !x.revoked:
		r.revoked++
	case !revoked && x.revoked:
		r.revoked--
	}
	x.revoked = revoked
}

// ByPath counts the process leases by the way in which their holder's death becomes known.
func (r *Registry) ByPath() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ties.byPath()
}

// Path returns how the end of a lease's holder becomes known: the way its process is watched, connection, ttl, or none.
func (r *Registry) Path(l *enforcer.Lease) string {
	switch l.Lifetime {
	case enforcer.LifetimeTTL:
		return "ttl"
	case enforcer.LifetimeConnection:
		return "connection"
	case enforcer.LifetimeProcess:
		r.mu.Lock()
		defer r.mu.Unlock()
		if p := r.ties.path(l.ID); p != "" {
			return p
		}
		return "connection"
	default:
		return "none"
	}
}
