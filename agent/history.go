package agent

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// What the history keeps at most.
const (
	historyLicenses    = 1024
	historyEmergencies = 64 // of one licence
)

// historyPrefix is signed before the record, so that nothing else that the key signs can be taken for one.
const historyPrefix = "usher-history\n"

// history is what must not be forgotten of licences: when each was first used here, the emergencies that operators
// began, and what was returned. It is one file in state.dir, replaced whole and signed by the agent's key. Nothing
// counts before it is on the disk. It is safe for concurrent use.
type history struct {
	path string
	file seals.Keeping
	key  ed25519.PrivateKey

	mu     sync.Mutex // guards all below; taken last
	record record
}

// record is what the file says.
type record struct {
	// Began is when the record was begun: what lies before is not known.
	Began    time.Time             `json:"began"`
	Licenses map[enforcer.Ref]past `json:"licences"`
	// Named says that licences are under their Refs; former versions put them under their ids.
	Named bool `json:"named,omitempty"`
}

// past is what is known of one licence.
type past struct {
	Seen        time.Time   `json:"seen,omitzero"` // from when its first use counts
	Trial       bool        `json:"trial,omitzero"`
	Emergencies []emergency `json:"emergencies,omitempty"`
	Returned    time.Time   `json:"returned,omitzero"`
	Document    string      `json:"document,omitempty"` // SHA-256 of what was returned, in hex
	Product     string      `json:"product,omitempty"`  // of what was returned
}

type emergency struct {
	Began  time.Time `json:"began"`
	Ends   time.Time `json:"ends"`
	Reason string    `json:"reason"`
}

// signedRecord is the file.
type signedRecord struct {
	Record    json.RawMessage `json:"record"`
	Key       string          `json:"key"` // the thumbprint of whose it is
	Public    []byte          `json:"public"`
	Signature []byte          `json:"signature"`
}

// openHistory reads the record, or begins one where there is none or another key's. fresh says that it has begun one,
// and why.
func openHistory(path string, file seals.Keeping, key ed25519.PrivateKey,
	now time.Time) (h *history, fresh string, err error) {
	h = &history{path: path, file: file, key: key,
		record: record{Began: now, Licenses: map[enforcer.Ref]past{}, Named: true}}
	b, err := file.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fresh = "there is none"
	case err != nil:
		return nil, "", fmt.Errorf("history: %w", err)
	default:
		if fresh, err = h.read(b); err != nil {
			return nil, "", fmt.Errorf(
				"history %s: %w; put back the file as the agent left it, or move it away: then trials count from the "+
					"day their licences were issued, and what was returned must stay out of the licence folder", path,
				err)
		}
	}
	if fresh != "" {
		err = h.write(h.record)
	}
	return h, fresh, err
}

// openHistory opens the agent's record and says when one is begun.
func (a *Agent) openHistory(newKey bool) (*history, error) {
	path := filepath.Join(a.settings().State.Dir, seals.HistoryFile)
	file := seals.Sealed(a.seals.State, func(c files.Content) []byte {
		if c.Fault == files.FaultEdited {
			b, _ := os.ReadFile(path)
			return b // its own signature says that it was changed, and the agent does not start
		}
		return c.Known
	})
	h, fresh, err := openHistory(path, file, a.key, a.desk.Now())
	if err == nil && fresh != "" && !newKey {
		a.audit.Note(eventlog.Event{Type: audit.HistoryBegun, Detail: fresh})
		a.log.Warn(
			"a record of trials, emergencies and returned licences is begun, though the agent's key is older: trials "+
				"that were issued before count from their issue", "why", fresh)
	}
	return h, err
}

func (h *history) read(b []byte) (fresh string, err error) {
	var s signedRecord
	if err := json.Unmarshal(b, &s); err != nil {
		return "", errors.New("it cannot be read")
	}
	if len(s.Public) != ed25519.PublicKeySize ||
		!ed25519.Verify(s.Public, append([]byte(historyPrefix), s.Record...), s.Signature) {
		return "", errors.New("it has been changed since the agent wrote it")
	}
	if own := h.key.Public().(ed25519.PublicKey); !own.Equal(ed25519.PublicKey(s.Public)) {
		return "the one at hand is another agent key's (" + identity.Thumbprint(s.Public) + ")", nil
	}
	var r record
	if err := json.Unmarshal(s.Record, &r); err != nil {
		return "", fmt.Errorf("it cannot be Read: %w", err)
	}
	all := map[enforcer.Ref]past{}
	for ref, p := range r.Licenses {
		if !r.Named {
			ref = enforcer.FormerRef(string(ref))
		}
		all[ref] = p
	}
	h.record = record{r.Began, all, true}
	return "", nil
}

// write puts a record on the disk. h.mu is held, or nobody else has h yet.
func (h *history) write(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	pub := h.key.Public().(ed25519.PublicKey)
	file, err := json.Marshal(signedRecord{b, identity.Thumbprint(pub), pub,
		ed25519.Sign(h.key, append([]byte(historyPrefix), b...))})
	if err == nil {
		err = h.file.Write(h.path, append(file, '\n'))
	}
	if err != nil {
		return fmt.Errorf("history %s: %w", h.path, err)
	}
	return nil
}

// change changes the record, durably or not at all. present is the licences that are at hand: nothing of them is
// dropped.
func (h *history) change(present map[enforcer.Ref]bool, f func(licenses map[enforcer.Ref]past)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.record
	next.Licenses = maps.Clone(next.Licenses)
	f(next.Licenses)
	next.bound(present)
	if len(next.Licenses) > historyLicenses {
		return fmt.Errorf(
			"history %s: it holds trials and returns of %d licences, the most that is kept; ask the vendor", h.path,
			historyLicenses)
	}
	if err := h.write(next); err != nil {
		return err
	}
	h.record = next
	return nil
}

// bound drops what was seen longest ago of the licences that are gone, but for trials, returns and what was bridged.
func (r *record) bound(present map[enforcer.Ref]bool) {
	if len(r.Licenses) <= historyLicenses {
		return
	}
	var idle []enforcer.Ref
	for id, p := range r.Licenses {
		if !present[id] && !p.Trial && p.Returned.IsZero() && len(p.Emergencies) == 0 {
			idle = append(idle, id)
		}
	}
	slices.SortFunc(idle, func(a, b enforcer.Ref) int { return r.Licenses[a].Seen.Compare(r.Licenses[b].Seen) })
	for _, id := range idle[:min(len(idle), len(r.Licenses)-historyLicenses)] {
		delete(r.Licenses, id)
	}
}

// began returns when the record was begun.
func (h *history) began() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.record.Began
}

// fill puts what is recorded into the facts.
func (h *history) fill(f *enforcer.Facts, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.Seen, f.Emergencies, f.Returned = map[enforcer.Ref]time.Time{}, map[enforcer.Ref][]time.Time{},
		map[enforcer.Ref]time.Time{}
	put := func(ref enforcer.Ref, p past) {
		if !p.Seen.IsZero() {
			f.Seen[ref] = p.Seen
		}
		for _, e := range p.Emergencies {
			f.Emergencies[ref] = append(f.Emergencies[ref], e.Began)
		}
		if !p.Returned.IsZero() {
			f.Returned[ref] = p.Returned
		}
	}
	for ref, p := range h.record.Licenses {
		put(ref, p)
	}
	done := map[enforcer.Ref]bool{}
	for _, d := range f.Documents {
		l := d.License
		if l == nil || done[l.Ref()] {
			continue
		}
		ref := l.Ref()
		done[ref] = true
		if _, ok := h.record.Licenses[ref]; !ok {
			put(ref, pastOf(h.record.Licenses, ref))
		}
		if !f.Seen[ref].IsZero() {
			f.Seen[ref] = l.SeenBy(f.Seen[ref], now)
		}
	}
}

// pastOf returns what is known of a licence. What a former version recorded of its id, without a system, holds for each
// licence of that id, for it only ever restricts: a trial that has begun, an emergency that is spent, a licence that
// was returned.
func pastOf(licenses map[enforcer.Ref]past, ref enforcer.Ref) past {
	if p, ok := licenses[ref]; ok {
		return p
	}
	return licenses[enforcer.FormerRef(ref.ID())]
}

// see records first uses, and puts right those that a false clock had put into the future.
func (h *history) see(f *enforcer.Facts, uses map[enforcer.Ref]time.Time, now time.Time) error {
	h.mu.Lock()
	all := h.record.Licenses
	h.mu.Unlock()
	next, trials, present := maps.Clone(uses), map[enforcer.Ref]bool{}, map[enforcer.Ref]bool{}
	if next == nil {
		next = map[enforcer.Ref]time.Time{}
	}
	for _, d := range f.Documents {
		if l := d.License; l != nil {
			ref := l.Ref()
			present[ref], present[enforcer.FormerRef(l.ID)] = true, true
			trials[ref] = trials[ref] || l.Trial > 0
			if was := pastOf(all, ref).Seen; was.After(now) {
				next[ref] = l.SeenBy(was, now)
			}
		}
	}
	if len(next) == 0 {
		return nil
	}
	return h.change(present, func(licenses map[enforcer.Ref]past) {
		for ref, at := range next {
			p := pastOf(licenses, ref)
			p.Seen, p.Trial = at, p.Trial || trials[ref]
			licenses[ref] = p
		}
	})
}

// emergencies returns what operators began, by licence, the oldest first.
func (h *history) emergencies() map[enforcer.Ref][]emergency {
	h.mu.Lock()
	defer h.mu.Unlock()
	out, taken := map[enforcer.Ref][]emergency{}, map[enforcer.Ref]bool{}
	for ref, p := range h.record.Licenses {
		if len(p.Emergencies) > 0 {
			out[ref] = p.Emergencies
		}
		taken[enforcer.FormerRef(ref.ID())] = taken[enforcer.FormerRef(ref.ID())] || !ref.Former()
	}
	// What a former version recorded is recorded with the licence too, once there was more to say of that.
	maps.DeleteFunc(out, func(ref enforcer.Ref, _ []emergency) bool { return taken[ref] })
	return out
}

// emergenciesOf returns what operators began of one licence, the oldest first.
func (h *history) emergenciesOf(ref enforcer.Ref) []emergency {
	h.mu.Lock()
	defer h.mu.Unlock()
	return pastOf(h.record.Licenses, ref).Emergencies
}

// begin records an emergency.
func (h *history) begin(ref enforcer.Ref, e emergency) error {
	return h.change(nil, func(licenses map[enforcer.Ref]past) {
		p := pastOf(licenses, ref)
		p.Emergencies = append(slices.Clone(p.Emergencies), e)
		slices.SortFunc(p.Emergencies, func(a, b emergency) int { return a.Began.Compare(b.Began) })
		p.Emergencies = p.Emergencies[max(0, len(p.Emergencies)-historyEmergencies):]
		licenses[ref] = p
	})
}

// giveBack records that a licence was returned, and returns what is recorded: of one that was before, what was then.
func (h *history) giveBack(ref enforcer.Ref, product, document string, now time.Time, again bool) (past, error) {
	var out past
	err := h.change(nil, func(licenses map[enforcer.Ref]past) {
		p := pastOf(licenses, ref)
		if p.Returned.IsZero() || again {
			p.Returned, p.Document, p.Product = now, document, product
		}
		licenses[ref], out = p, p
	})
	return out, err
}

// returned returns what is recorded of a licence that was returned.
func (h *history) returned(ref enforcer.Ref) (past, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := pastOf(h.record.Licenses, ref)
	return p, !p.Returned.IsZero()
}

// returnedAs returns which licence of an id was returned; of several a production licence. False: none was.
func (h *history) returnedAs(id string) (enforcer.Ref, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ref := range slices.Sorted(maps.Keys(h.record.Licenses)) {
		if ref.ID() == id && !h.record.Licenses[ref].Returned.IsZero() {
			return ref, true
		}
	}
	return "", false
}
