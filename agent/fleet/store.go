package fleet

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Store is a store of keys with transactions, leases and watches, as etcd has them. All calls but Watch are one
// linearizable step each, so that an answer shows that a quorum of the store's members is behind it.
type Store interface {
	// Txn does Then where all of If is so, and Else where it is not. After an error it may have been done or not.
	Txn(context.Context, *Txn) (*Result, error)
	// Grant makes a lease, and returns its time to live as the store has it.
	Grant(ctx context.Context, ttl time.Duration) (Lease, time.Duration, error)
	// Renew has a lease live for its whole time again, counted from an instant that is later than the beginning of the
	// call by late at least, and returns that time: what was answered may have been sent later than at first. Its error
	// is ErrLeaseGone where there is none. A member that leads no more may say so for a moment: only a Txn after it
	// proves the lease.
	Renew(context.Context, Lease) (ttl, late time.Duration, err error)
	// Watch tells of each change of the keys with a prefix after a revision. The channel is closed when ctx ends, and
	// when changes are lost: then the caller reads the keys again.
	Watch(ctx context.Context, prefix string, after int64) <-chan Change
}

// Lease names a lease of the store; zero: none.
type Lease int64

// Txn is a transaction.
type Txn struct {
	Kind       Kind // for who counts transactions
	If         []Is
	Then, Else []Op
}

// writes reports whether it may change a key.
func (t *Txn) writes() bool {
	changes := func(o Op) bool { return o.Put+o.Delete != "" }
	return slices.ContainsFunc(t.Then, changes) || slices.ContainsFunc(t.Else, changes)
}

// Is compares one key, or the keys with a prefix. Exactly one of the fields beside Key or Prefix is set.
type Is struct {
	Key string
	// Absent: there is no such key. Value: it has this value. Mod: its last change was at this revision.
	Absent bool
	Value  *string
	Mod    int64
	// Prefix: no key with this prefix was changed after the revision Unchanged. A key that was deleted is no change.
	Prefix    string
	Unchanged int64
}

// Op is one step of a transaction. Exactly one of Get, List, Count, Put and Delete is set.
type Op struct {
	Get    string
	Rev    int64  // of Get: as of this revision; 0: as it is. One that was compacted away, or is to come, is an error
	List   string // a prefix: its keys, those that were made first first
	Most   int64  // of List; 0: all
	Count  string // a prefix: how many keys begin with it
	Put    string
	Value  string // of Put
	Lease  Lease  // of Put: the key ends with it
	Delete string
}

// Result is the answer to a transaction.
type Result struct {
	Done    bool    // all of If was so
	Rev     int64   // the store's revision
	Cluster uint64  // the store's identity
	Got     [][]KV  // of each Get and List, in order
	Counted []int64 // of each Count, in order
}

// KV is a key with its value.
type KV struct {
	Key, Value  string
	Create, Mod int64 // the revisions at which it was made and last changed
	Lease       Lease
}

// Change is a change of a key, in a watch.
type Change struct {
	KV
	Deleted bool
}

// ErrLeaseGone is Renew's error for a lease that is over.
var ErrLeaseGone = errors.New("the lease is over")

// one returns the key of a Get, and whether there is one.
func (r *Result) one(i int) (KV, bool) {
	if i < len(r.Got) && len(r.Got[i]) > 0 {
		return r.Got[i][0], true
	}
	return KV{}, false
}

// has says that a key has a value.
func has(key, value string) Is { return Is{Key: key, Value: &value} }

// absent says that there is no key.
func absent(key string) Is { return Is{Key: key, Absent: true} }

// still says that a key is as it was read; kv.Mod 0: it is not there.
func still(key string, mod int64) Is {
	if mod == 0 {
		return absent(key)
	}
	return Is{Key: key, Mod: mod}
}
