package plugintest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Step names a moment at which a [Desk] can let its agent die: after something is durable, before the dialect hears of
// it.
type Step string

// The steps of a Desk.
const (
	StepAcquired Step = "acquired" // a lease or draw is granted
	StepData     Step = "data"     // the data of a lease is replaced
	StepStored   Step = "stored"   // the dialect's store has taken a change
)

// Died is the panic of a dialect whose agent died at [Desk.DieAt].
type Died struct{ At Step }

// Nobody is the user id of a caller whom the kernel does not vouch for.
const Nobody = 65534

// Desk is a [plugin.Desk] for tests of dialects. The real enforcer decides. Time stands still until Pass moves it. What
// is acknowledged outlives [Desk.Restart]. Set the exported fields between requests.
type Desk struct {
	// Sender is the caller that the kernel vouches for; nil: it vouches for none, as over TCP.
	Sender *enforcer.Caller
	// CredentialsFile is the listener's credentials_file; nil: none is configured.
	CredentialsFile []byte
	// Documents are the documents in the licence folder, by name.
	Documents map[string][]byte
	// Check verifies documents. With it, Install refuses what does not verify, and each Install and Remove has
	// Documents judged; nil: whatever is installed is kept, and changes no verdict.
	Check func(document []byte) (*enforcer.License, *enforcer.Problem)
	// OnConfirm is the answer of Confirm; nil: every upstream is content.
	OnConfirm func(document []byte) error
	// Installers are the credentials by which callers may install documents, beside admins.
	Installers []string
	// Full says that nothing can be stored. Releases still work, as in an agent.
	Full bool
	// DieAt has the agent die, once, at a step: the dialect's call panics with Died.
	DieAt Step
	// Facts completes the facts before they are judged; nil: only documents count.
	Facts func(*enforcer.Facts)
	// OnLate is the answer of Late; nil: nothing is over.
	OnLate func() *enforcer.Denial
	// Label is the dialect's, where it is a [plugin.Labeller].
	Label string
	// Signer is the key that signs the dialect's answers.
	Signer ed25519.PrivateKey

	system string

	mu     sync.Mutex // guards all below
	core   *enforcer.Enforcer
	now    time.Time
	store  map[string][]byte
	events []enforcer.Event // all that was applied, for Restart
}

// NewDesk returns a desk for the dialect of a system, with licences in force. Its clock stands at now.
func NewDesk(system string, now time.Time, licenses ...*enforcer.License) *Desk {
	d := &Desk{Sender: &enforcer.Caller{UID: 1000}, Documents: map[string][]byte{}, system: system,
		Signer: ed25519.NewKeyFromSeed(bytes.Repeat([]byte("d"), ed25519.SeedSize)), core: newCore(),
		now: now, store: map[string][]byte{}}
	d.Judge(licenses...)
	return d
}

func newCore() *enforcer.Enforcer { return enforcer.New(enforcer.Options{Durable: true}) }

// Judge puts licences in force, as documents named after their ids.
func (d *Desk) Judge(licenses ...*enforcer.License) {
	var f enforcer.Facts
	for _, l := range licenses {
		f.Documents = append(f.Documents, enforcer.Document{Name: l.ID + ".lic", License: l})
	}
	if d.Facts != nil {
		d.Facts(&f)
	}
	d.Do(&enforcer.SetVerdict{Verdict: enforcer.Judge(f, d.Now())})
}

// Pass lets time pass, and ends what is due.
func (d *Desk) Pass(by time.Duration) {
	d.mu.Lock()
	d.now = d.now.Add(by)
	d.mu.Unlock()
	d.Do(&enforcer.Tick{})
}

// Restart has the agent die and start again: a new enforcer replays the events.
func (d *Desk) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.core = newCore()
	for _, ev := range d.events {
		d.core.Apply(ev)
	}
}

// Do ends what is due, decides a request and applies the events.
func (d *Desk) Do(r enforcer.Request) enforcer.Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	for due := d.core.NextTick(); !due.IsZero() && !due.After(d.now); due = d.core.NextTick() {
		if len(d.decide(&enforcer.Tick{}).Events) == 0 {
			break
		}
	}
	return d.decide(r)
}

// decide decides and applies. d.mu is held.
func (d *Desk) decide(r enforcer.Request) enforcer.Decision {
	out := d.core.Decide(r, d.now)
	for _, ev := range out.Events {
		d.core.Apply(ev)
	}
	d.events = append(d.events, out.Events...)
	return out
}

// die panics when the agent is to die at this step.
func (d *Desk) die(at Step) {
	if d.DieAt == at {
		d.DieAt = ""
		panic(Died{at})
	}
}

// InUse returns what is in use of a pool, or drawn from a meter; -1: there is no such pool.
func (d *Desk) InUse(pool string) int64 {
	for _, p := range d.Pools() {
		if p.Name == pool {
			return p.InUse
		}
	}
	return -1
}

// Stored returns how many keys the dialect's store holds.
func (d *Desk) Stored() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.store)
}

func (d *Desk) Caller(*http.Request) (enforcer.Caller, bool) {
	if d.Sender == nil {
		return enforcer.Caller{}, false
	}
	return *d.Sender, true
}

func (d *Desk) CallerBy(_ *http.Request, credential string) enforcer.Caller {
	if d.Sender != nil {
		return *d.Sender
	}
	return enforcer.Caller{UID: Nobody, GID: Nobody, Credential: credential}
}

func (d *Desk) Credentials(*http.Request) ([]byte, error) { return d.CredentialsFile, nil }

func (d *Desk) Now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *Desk) Verdict() *enforcer.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.core.Verdict()
}

func (d *Desk) Document(name string) []byte { return slices.Clone(d.Documents[name]) }

// judge has the documents judged, with one more, and returns the verdict. put says that it is in force then.
func (d *Desk) judge(name string, document []byte, put bool) *enforcer.Verdict {
	all := maps.Clone(d.Documents)
	if document != nil {
		all[name] = document
	}
	var f enforcer.Facts
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l, p := d.Check(all[name])
		f.Documents = append(f.Documents, enforcer.Document{Name: name, License: l, Problem: p})
	}
	if d.Facts != nil {
		d.Facts(&f)
	}
	v := enforcer.Judge(f, d.Now())
	if put {
		d.Do(&enforcer.SetVerdict{Verdict: v})
	}
	return v
}

// installed is what a document without a name is called.
const installed = "installed.lic"

// Would judges the documents with one more, as Check verifies them.
func (d *Desk) Would(document []byte, name string) enforcer.Judged {
	name = cmp.Or(name, installed)
	if d.Check == nil {
		return enforcer.Judged{Document: name, Code: enforcer.NotFound}
	}
	v := d.judge(name, document, false)
	return v.Licenses[slices.IndexFunc(v.Licenses, func(j enforcer.Judged) bool { return j.Document == name })]
}

// Install keeps a document. Without Check it verifies nothing, and tests of what a dialect makes of a verification set
// Judge.
func (d *Desk) Install(_ context.Context, c enforcer.Caller, document []byte, name string) *enforcer.Denial {
	if denial := d.installerOnly(c); denial != nil {
		return denial
	}
	if denial := d.full(); denial != nil {
		return denial
	}
	if d.Check == nil {
		d.Documents[cmp.Or(name, installed)] = slices.Clone(document)
		return nil
	}
	if _, p := d.Check(document); p != nil {
		return &enforcer.Denial{Code: "document_refused", Field: "document", Detail: p.Reason, Hint: p.Hint}
	}
	d.Documents[cmp.Or(name, installed)] = slices.Clone(document)
	d.judge("", nil, true)
	return nil
}

func (d *Desk) Remove(_ context.Context, c enforcer.Caller, name string) *enforcer.Denial {
	if denial := d.installerOnly(c); denial != nil {
		return denial
	}
	delete(d.Documents, name)
	if d.Check != nil {
		d.judge("", nil, true)
	}
	return nil
}

func (d *Desk) Confirm(_ context.Context, document []byte) error {
	if d.OnConfirm == nil {
		return nil
	}
	return d.OnConfirm(document)
}

func (d *Desk) MayInstall(_ *http.Request, c enforcer.Caller) bool {
	return c.Admin || c.Credential != "" && slices.Contains(d.Installers, c.Credential)
}

func (d *Desk) installerOnly(c enforcer.Caller) *enforcer.Denial {
	if d.MayInstall(nil, c) {
		return nil
	}
	return &enforcer.Denial{Code: enforcer.Forbidden, Detail: "this is for admins"}
}

func (d *Desk) Pools() []enforcer.PoolStatus {
	d.Do(&enforcer.Tick{})
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.core.AppendPools(nil, slices.Sorted(slices.Values(d.core.PoolNames())), d.now)
}

func (d *Desk) Host(_ context.Context, product string) plugin.Host {
	return plugin.Host{Name: "host.example", Product: product, Components: map[string][]string{}}
}

func (d *Desk) Key() ed25519.PrivateKey { return slices.Clone(d.Signer) }
func (d *Desk) Log() *slog.Logger       { return slog.New(slog.DiscardHandler) }

func (d *Desk) full() *enforcer.Denial {
	if !d.Full {
		return nil
	}
	return &enforcer.Denial{Code: enforcer.Storage, Detail: "the disk is full"}
}

func (d *Desk) data(b []byte) *enforcer.Data {
	return &enforcer.Data{Owner: d.system, Bytes: append([]byte{}, b...)}
}

func (d *Desk) Acquire(_ context.Context, r *enforcer.Acquire, data []byte) (*enforcer.Lease, bool, *enforcer.Denial) {
	if r.Lifetime == enforcer.LifetimeProcess || r.Lifetime == enforcer.LifetimeConnection {
		return nil, false, &enforcer.Denial{Code: enforcer.BadRequest, Field: "lifetime",
			Detail: fmt.Sprintf("lifetime %s is for sessions", r.Lifetime)}
	}
	if denial := d.full(); denial != nil {
		return nil, false, denial
	}
	q := *r
	rand.Read(q.ID[:]) // never fails: see crypto/rand
	q.Data = d.data(data)
	out := d.Do(&q)
	if out.Waiter != nil { // time stands still: nothing comes free for a waiter
		q.Wait = 0
		d.Do(&enforcer.Cancel{ID: q.ID})
		out = d.Do(&q)
	}
	if out.Lease != nil {
		d.die(StepAcquired)
	}
	return out.Lease, out.Replayed, out.Denial
}

// Late is what OnLate says.
func (d *Desk) Late(*http.Request) *enforcer.Denial {
	if d.OnLate == nil {
		return nil
	}
	return d.OnLate()
}

func (d *Desk) Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial) {
	if denial := d.full(); denial != nil {
		return nil, denial
	}
	q := *r
	q.Owner = d.system
	out := d.Do(&q)
	return out.Lease, out.Denial
}

func (d *Desk) Release(r *enforcer.Release) *enforcer.Denial {
	q := *r
	q.Owner, q.Cause = d.system, ""
	return d.Do(&q).Denial
}

func (d *Desk) owns(l *enforcer.Lease, c enforcer.Caller) bool {
	return l.Data != nil && l.Data.Owner == d.system && l.Holder.SameUser(c)
}

func (d *Desk) Lease(id enforcer.LeaseID, c enforcer.Caller) (*enforcer.Lease, bool) {
	d.Do(&enforcer.Tick{})
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.core.Lease(id); ok && d.owns(l, c) {
		return l, true
	}
	return nil, false
}

func (d *Desk) Leases(c enforcer.Caller) []*enforcer.Lease {
	d.Do(&enforcer.Tick{})
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.core.Leases(func(l *enforcer.Lease) bool { return d.owns(l, c) })
	slices.SortFunc(out, func(a, b *enforcer.Lease) int {
		return cmp.Or(a.AcquiredAt.Compare(b.AcquiredAt), slices.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

func (d *Desk) Bearers() (out []plugin.Bearer) {
	d.Do(&enforcer.Tick{})
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.core.Leases(func(l *enforcer.Lease) bool {
		_, ok := l.Holder.Labels[d.Label]
		return ok && d.Label != ""
	})
	slices.SortFunc(all, func(a, b *enforcer.Lease) int {
		return cmp.Or(a.AcquiredAt.Compare(b.AcquiredAt), slices.Compare(a.ID[:], b.ID[:]))
	})
	for _, l := range all {
		out = append(out, plugin.Bearer{Labels: l.Holder.Labels, Items: l.Items, AcquiredAt: l.AcquiredAt})
	}
	return out
}

func (d *Desk) SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial {
	if denial := d.full(); denial != nil {
		return denial
	}
	out := d.Do(&enforcer.SetData{ID: id, Caller: c, Data: d.data(data)})
	d.die(StepData)
	return out.Denial
}

func (d *Desk) Adjust(meter string, by int64, c enforcer.Caller) (int64, *enforcer.Denial) {
	if denial := d.full(); denial != nil {
		return 0, denial
	}
	out := d.Do(&enforcer.Shift{Pool: meter, By: by, Caller: c})
	if out.Denial != nil {
		return 0, out.Denial
	}
	return out.Events[0].Draws[0].Drawn, nil
}

func (d *Desk) Store() plugin.Store { return deskStore{d} }

// deskStore is the store of a Desk's dialect.
type deskStore struct{ d *Desk }

func (s deskStore) Get(key string) ([]byte, bool) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	v, ok := s.d.store[key]
	return slices.Clone(v), ok
}

func (s deskStore) Range(prefix string, f func(string, []byte) bool) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(s.d.store)) {
		if strings.HasPrefix(k, prefix) && !f(k, s.d.store[k]) {
			return
		}
	}
}

func (s deskStore) Apply(changes ...plugin.Change) error {
	if s.d.Full {
		return io.ErrShortWrite
	}
	if err := s.apply(changes); err != nil {
		return err
	}
	s.d.die(StepStored)
	return nil
}

func (s deskStore) apply(changes []plugin.Change) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for _, c := range changes {
		was, had := s.d.store[c.Key]
		if c.If && (had != (c.Expect != nil) || !bytes.Equal(was, c.Expect)) {
			return plugin.ErrConflict
		}
	}
	for _, c := range changes {
		if c.Value == nil {
			delete(s.d.store, c.Key)
		} else {
			s.d.store[c.Key] = bytes.Clone(c.Value)
		}
	}
	return nil
}
