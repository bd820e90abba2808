// Package dialect answers licence systems' own APIs: on listeners of their own, from the same slots as the local API.
//
// A [plugin.Dialect] translates and decides nothing. This package gives each dialect its [plugin.Desk]: slots through
// [Slots], documents through [Documents], a key of its own, and a journalled store of its own that is sealed like all
// of the agent's state. A dialect sees only its own leases, and of those only the caller's. Start reading at [Open].
package dialect

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Slots is the part of the agent's desk that dialects use. Its methods are safe for concurrent use.
type Slots interface {
	Now() time.Time             // the licence time
	Verdict() *enforcer.Verdict // nil before the first
	Pools() []enforcer.PoolStatus
	// Acquire fills in the lease's id. It waits where the request says so, at most until ctx ends.
	Acquire(ctx context.Context, r *enforcer.Acquire) (api.Grant, *enforcer.Denial)
	Renew(*enforcer.Renew) (api.Grant, *enforcer.Denial)
	// Do decides a Release or a SetData.
	Do(enforcer.Request) enforcer.Decision
	Lease(enforcer.LeaseID) (*enforcer.Lease, bool)
	// OwnedBy returns a caller's leases on which an owner keeps data.
	OwnedBy(owner string, c enforcer.Caller) []*enforcer.Lease
	// Follow has the leases that bear a label kept at hand for Labelled.
	Follow(label string, changed func())
	// Labelled returns the leases that bear a label which is followed, in the order of their acquires.
	Labelled(label string) []*enforcer.Lease
	// Shift changes how much is drawn from a meter, and returns the new number.
	Shift(*enforcer.Shift) (drawn int64, d *enforcer.Denial)
}

// Documents is the part of the licence folder that dialects use. Its methods are safe for concurrent use.
type Documents interface {
	// Document returns a document's bytes, which the caller may keep; nil: there is none of that name.
	Document(name string) []byte
	// Would returns what a document would be judged as under a name; an empty one is made as Install does.
	Would(document []byte, name string) enforcer.Judged
	// Confirm asks the upstream of a document's licence whether it is good, where it demands that.
	Confirm(ctx context.Context, document []byte) error
	// Install verifies a document and puts it into the folder; with dryRun it only says what would change.
	Install(ctx context.Context, document []byte, name string, dryRun bool) (wire.Installed, *enforcer.Denial)
	Remove(ctx context.Context, name string) *enforcer.Denial
}

// Server answers the calls that come by a listener; an [*api.Server] does.
type Server interface {
	RunDialect(ctx context.Context, d api.Dialect) error
}

// Adjustment is a change of how much is drawn from a meter.
type Adjustment struct {
	Dialect, Meter string
	By, Drawn      int64 // by how many draws, and how many are drawn now
}

// Config says how to open dialects. All fields but Vault and Log are required; the functions are safe for concurrent
// use.
type Config struct {
	Settings func() *config.Config // as they are: a reload replaces them
	Dialects []plugin.Dialect      // those that can be spoken
	Key      ed25519.PrivateKey    // the agent's
	Vault    *files.Vault          // seals the dialects' stores; nil: nothing does
	Log      *slog.Logger          // nil: nothing is logged

	Slots     Slots
	Documents Documents
	Server    Server
	// Fingerprint returns this host as licences for a product see it; empty means the agent's own product.
	Fingerprint func(ctx context.Context, product string) wire.Fingerprint
	// Adjusted is called after each adjustment of a meter, Forced after each lease that an admin took from its holder.
	Adjusted func(by enforcer.Caller, a Adjustment)
	Forced   func(by enforcer.Caller, l *enforcer.Lease)
}

// Dialects are those that the configuration has listeners for. Make them with Open.
type Dialects struct {
	c         Config
	listeners []*Listener
	spoken    map[string]*spoken // by system
}

// spoken is one dialect, on however many listeners.
type spoken struct {
	store   *store
	key     ed25519.PublicKey
	handler http.Handler
}

// Open checks the configured listeners, takes their addresses and opens the stores of their dialects. The caller calls
// Close. The error names the listener and the mend.
func Open(c Config) (*Dialects, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	settings := c.Settings()
	found, err := Check(settings, c.Dialects)
	if err != nil {
		return nil, err
	}
	a := &Dialects{c: c, spoken: map[string]*spoken{}}
	for i, l := range found {
		l.all = a
		if err := a.speak(l.dialect, settings.State.Dir); err != nil {
			return nil, errors.Join(err, a.Close())
		}
		if err := l.listen(i, settings); err != nil {
			return nil, errors.Join(fmt.Errorf("listeners[%d]: %w", i, err), a.Close())
		}
		a.listeners = append(a.listeners, l)
	}
	return a, nil
}

// speak makes a dialect's key, store and handler, unless an earlier listener speaks the same dialect.
func (a *Dialects) speak(d plugin.Dialect, dir string) error {
	system := d.System()
	if a.spoken[system] != nil {
		return nil
	}
	key, err := keyFor(a.c.Key, system)
	if err != nil {
		return err
	}
	log := a.c.Log.With("dialect", system)
	store, err := openStore(dir, system, log, nil, a.c.Vault)
	if err != nil {
		return err
	}
	view := &desk{c: &a.c, system: system, store: store, key: key, log: log}
	if l, ok := d.(plugin.Labeller); ok {
		view.label = l.Label()
		a.c.Slots.Follow(view.label, nil)
	}
	a.spoken[system] = &spoken{store, key.Public().(ed25519.PublicKey), d.Handler(view)}
	return nil
}

// Listeners returns the listeners, in the order of the configuration.
func (a *Dialects) Listeners() []*Listener { return a.listeners }

// Key is the key that a dialect signs its answers with.
type Key struct {
	Dialect string
	Public  ed25519.PublicKey
}

// Keys returns the keys of all dialects that are spoken, by their names.
func (a *Dialects) Keys() (out []Key) {
	for _, system := range slices.Sorted(maps.Keys(a.spoken)) {
		out = append(out, Key{system, a.spoken[system].key})
	}
	return out
}

// Close gives the addresses back, the last one first, and closes the stores. No handler may be running.
func (a *Dialects) Close() error {
	var errs []error
	for _, l := range slices.Backward(a.listeners) {
		errs = append(errs, l.close())
	}
	for _, system := range slices.Backward(slices.Sorted(maps.Keys(a.spoken))) {
		errs = append(errs, a.spoken[system].store.Close())
	}
	return errors.Join(errs...)
}

// IsJournal reports whether a file of the state folder is a dialect's journal.
func IsJournal(name string) bool {
	ok, _ := filepath.Match(Journals, name) // the pattern is good
	return ok
}
