package court

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Bounds of the history.
const (
	historyLicenses    = 1024
	historyEmergencies = 64 // of one licence
)

// historyPrefix is signed before the record, so that nothing else that the key signs can be taken for one.
const historyPrefix = "usher-history\n"

// HistoryConfig is what a History needs. All of it is required.
type HistoryConfig struct {
	Path string // of the file
	// Read reads it; its error is fs.ErrNotExist where there is none. Write replaces it, whole, durably or not at all.
	Read  func(path string) ([]byte, error)
	Write func(path string, data []byte) error
	Key   ed25519.PrivateKey // the agent's
	// KeyID returns the thumbprint of a key.
	KeyID func(ed25519.PublicKey) string
	Now   time.Time // the licence time, from which a new record knows of licences
}

// History is what must not be forgotten of licences: when each was first used here, the emergencies that operators
// began, and what was returned. It is one file, replaced whole and signed by the agent's key. Nothing counts before it
// is on the disk. It is a [Source], and safe for concurrent use: readers never wait for the disk.
type History struct {
	cfg HistoryConfig
	// turn holds one token. Its holder makes the next record and writes it; no lock is held meanwhile.
	turn chan struct{}

	mu   sync.Mutex // guards record; a leaf
	kept record     // as it is on the disk; its map is never changed
}

// record is what the file says.
type record struct {
	// Began is when the record was begun: nothing is known of earlier days.
	Began    time.Time             `json:"began"`
	Licenses map[enforcer.Ref]past `json:"licences"`
	// Named says that licences are under their Refs; former versions put them under their ids.
	Named bool `json:"named,omitempty"`
}

// past is what is known of one licence.
type past struct {
	Seen        time.Time   `json:"seen,omitzero"` // from when its first use counts
	Trial       bool        `json:"trial,omitzero"`
	Emergencies []Emergency `json:"emergencies,omitempty"`
	Returned    time.Time   `json:"returned,omitzero"`
	Document    string      `json:"document,omitempty"` // SHA-256 of what was returned, in hex
	Product     string      `json:"product,omitempty"`  // of what was returned
}

// Emergency is one that an operator began.
type Emergency struct {
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

// OpenHistory reads the record, or begins one where there is none or another key's. fresh says why it has begun one;
// empty: it has not.
func OpenHistory(c HistoryConfig) (h *History, fresh string, err error) {
	h = &History{cfg: c, turn: make(chan struct{}, 1),
		kept: record{Began: c.Now, Licenses: map[enforcer.Ref]past{}, Named: true}}
	b, err := c.Read(c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fresh = "there is none"
	case err != nil:
		return nil, "", fmt.Errorf("history: %w", err)
	default:
		if fresh, err = h.read(b); err != nil {
			return nil, "", fmt.Errorf(
				"history %s: %w; put back the file as the agent left it, or move it away: then trials count from the "+
					"day their licences were issued, and what was returned must stay out of the licence folder", c.Path,
				err)
		}
	}
	if fresh != "" {
		err = h.write(h.kept)
	}
	return h, fresh, err
}

// read takes what a file says, and says why that is not this agent's record.
func (h *History) read(b []byte) (fresh string, err error) {
	var s signedRecord
	if err := json.Unmarshal(b, &s); err != nil {
		return "", errors.New("it cannot be read")
	}
	if len(s.Public) != ed25519.PublicKeySize ||
		!ed25519.Verify(s.Public, append([]byte(historyPrefix), s.Record...), s.Signature) {
		return "", errors.New("it has been changed since the agent wrote it")
	}
	if own := h.cfg.Key.Public().(ed25519.PublicKey); !own.Equal(ed25519.PublicKey(s.Public)) {
		return "the one at hand is another agent key's (" + h.cfg.KeyID(s.Public) + ")", nil
	}
	var r record
	if err := json.Unmarshal(s.Record, &r); err != nil {
		return "", fmt.Errorf("it cannot be read: %w", err)
	}
	all := map[enforcer.Ref]past{}
	for ref, p := range r.Licenses {
		if !r.Named {
			ref = enforcer.FormerRef(string(ref))
		}
		all[ref] = p
	}
	h.kept = record{r.Began, all, true}
	return "", nil
}

// write puts a record on the disk. The caller has the turn, or nobody else has h yet.
func (h *History) write(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	pub := h.cfg.Key.Public().(ed25519.PublicKey)
	file, err := json.Marshal(signedRecord{b, h.cfg.KeyID(pub), pub,
		ed25519.Sign(h.cfg.Key, append([]byte(historyPrefix), b...))})
	if err == nil {
		err = h.cfg.Write(h.cfg.Path, append(file, '\n'))
	}
	if err != nil {
		return fmt.Errorf("history %s: %w", h.cfg.Path, err)
	}
	return nil
}

// change changes the record, durably or not at all. f changes the licences; where it changes none, or returns an error,
// nothing is written. One f runs after the other, each on what the last one recorded. present is the licences that are
// at hand: nothing of them is dropped.
func (h *History) change(present map[enforcer.Ref]bool, f func(licenses map[enforcer.Ref]past) error) error {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	was := h.recorded()
	next := was
	next.Licenses = maps.Clone(was.Licenses)
	if err := f(next.Licenses); err != nil {
		return err
	}
	if maps.EqualFunc(was.Licenses, next.Licenses, past.equal) {
		return nil
	}
	next.bound(present)
	if len(next.Licenses) > historyLicenses {
		return fmt.Errorf(
			"history %s: it holds trials and returns of %d licences, the most that is kept; ask the vendor", h.cfg.Path,
			historyLicenses)
	}
	if err := h.write(next); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = next
	return nil
}

// recorded returns the record as it is on the disk. Its map is not to be changed.
func (h *History) recorded() record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept
}

// equal reports whether two entries say the same.
func (p past) equal(o past) bool {
	return p.Seen.Equal(o.Seen) && p.Trial == o.Trial && p.Returned.Equal(o.Returned) && p.Document == o.Document &&
		p.Product == o.Product && slices.Equal(p.Emergencies, o.Emergencies)
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

// Began returns when the record was begun.
func (h *History) Began() time.Time { return h.recorded().Began }

// Fill puts what is recorded into the facts. It holds until something is recorded.
func (h *History) Fill(f *enforcer.Facts, now time.Time) (fence time.Duration) {
	recorded := h.recorded().Licenses
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
	for ref, p := range recorded {
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
		if _, ok := recorded[ref]; !ok {
			put(ref, pastOf(recorded, ref))
		}
		if !f.Seen[ref].IsZero() {
			f.Seen[ref] = l.SeenBy(f.Seen[ref], now)
		}
	}
	return 0
}

// See has nothing new to say: first uses are recorded on the disk before they count, which the court waits for.
func (h *History) See(*enforcer.Facts, *enforcer.Verdict, func(string) []byte) (changed bool) {
	return false
}

// pastOf returns what is known of a licence. A former version's record of its id, without a system, holds for each
// licence of that id, for it only ever restricts: a trial that has begun, an emergency that is spent, a licence that
// was returned.
func pastOf(licenses map[enforcer.Ref]past, ref enforcer.Ref) past {
	if p, ok := licenses[ref]; ok {
		return p
	}
	return licenses[enforcer.FormerRef(ref.ID())]
}

// firstUses is what is to be recorded of licences' first uses.
type firstUses struct {
	at      map[enforcer.Ref]time.Time
	trials  map[enforcer.Ref]bool
	present map[enforcer.Ref]bool
	now     time.Time
}

// unrecorded returns the first uses that a verdict on the facts brings, and those that a false clock had put into the
// future; nil: there are none.
func (h *History) unrecorded(f *enforcer.Facts, v *enforcer.Verdict, now time.Time) *firstUses {
	all := h.recorded()
	return toRecord(all.Licenses, f, enforcer.FirstUses(*f, v, now, all.Began), now)
}

func toRecord(all map[enforcer.Ref]past, f *enforcer.Facts, uses map[enforcer.Ref]time.Time,
	now time.Time) *firstUses {
	next := firstUses{map[enforcer.Ref]time.Time{}, map[enforcer.Ref]bool{}, map[enforcer.Ref]bool{}, now}
	maps.Copy(next.at, uses)
	for _, d := range f.Documents {
		if l := d.License; l != nil {
			ref := l.Ref()
			next.present[ref], next.present[enforcer.FormerRef(l.ID)] = true, true
			next.trials[ref] = next.trials[ref] || l.Trial > 0
			if was := pastOf(all, ref).Seen; was.After(now) {
				next.at[ref] = l.SeenBy(was, now)
			}
		}
	}
	maps.DeleteFunc(next.at, func(ref enforcer.Ref, at time.Time) bool { return pastOf(all, ref).Seen.Equal(at) })
	if len(next.at) == 0 {
		return nil
	}
	return &next
}

// record records first uses. One that was recorded meanwhile stands.
func (h *History) record(uses *firstUses) error {
	return h.change(uses.present, func(licenses map[enforcer.Ref]past) error {
		for ref, at := range uses.at {
			p := pastOf(licenses, ref)
			if p.Seen.IsZero() || p.Seen.After(uses.now) {
				p.Seen = at
			}
			p.Trial = p.Trial || uses.trials[ref]
			licenses[ref] = p
		}
		return nil
	})
}

// Emergencies returns what operators began, by licence, the oldest first.
func (h *History) Emergencies() map[enforcer.Ref][]Emergency {
	out, taken := map[enforcer.Ref][]Emergency{}, map[enforcer.Ref]bool{}
	for ref, p := range h.recorded().Licenses {
		if len(p.Emergencies) > 0 {
			out[ref] = p.Emergencies
		}
		taken[enforcer.FormerRef(ref.ID())] = taken[enforcer.FormerRef(ref.ID())] || !ref.Former()
	}
	// A former version's record has been copied to the licence, once more was recorded of that.
	maps.DeleteFunc(out, func(ref enforcer.Ref, _ []Emergency) bool { return taken[ref] })
	return out
}

// EmergenciesOf returns what operators began of one licence, the oldest first. It is not to be changed.
func (h *History) EmergenciesOf(ref enforcer.Ref) []Emergency {
	return pastOf(h.recorded().Licenses, ref).Emergencies
}

// reportedFor is for how long an upstream is shown an emergency: any within a year counts, leap years included.
const reportedFor = 366 * 24 * time.Hour

// Reported returns the emergencies that an upstream is shown with each call: the licence's of the last year.
func (h *History) Reported(ref enforcer.Ref, now time.Time) (out []plugin.Emergency) {
	for _, e := range h.EmergenciesOf(ref) {
		if now.Sub(e.Began) < reportedFor {
			out = append(out, plugin.Emergency{Began: e.Began, Ends: e.Ends, Reason: e.Reason})
		}
	}
	return out
}

// addEmergency adds an emergency to what is known of a licence. The oldest are dropped.
func addEmergency(licenses map[enforcer.Ref]past, ref enforcer.Ref, e Emergency) {
	p := pastOf(licenses, ref)
	p.Emergencies = append(slices.Clone(p.Emergencies), e)
	slices.SortFunc(p.Emergencies, func(a, b Emergency) int { return a.Began.Compare(b.Began) })
	p.Emergencies = p.Emergencies[max(0, len(p.Emergencies)-historyEmergencies):]
	licenses[ref] = p
}

// returnedAs returns which licence of an id was returned; of several a production licence. False: none was.
func returnedAs(licenses map[enforcer.Ref]past, id string) (enforcer.Ref, bool) {
	for _, ref := range slices.Sorted(maps.Keys(licenses)) {
		if ref.ID() == id && !licenses[ref].Returned.IsZero() {
			return ref, true
		}
	}
	return "", false
}
