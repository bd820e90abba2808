package enforcer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// model is the enforcer written naively: slices in their order, with every count taken again each time.
type model struct {
	options Options

	leases []modelLease
	queue  []modelWaiter // in their turn
	draws  []modelDraw
	tokens map[string]modelToken
	pools  map[string]PoolGrant

	holdOffs []modelHoldOff
	rules    []Policy
	lingers  []modelLinger

	verdict  *Verdict
	over     map[string]time.Time // licence → when it ended, where leases are held that were granted under it
	shrunk   map[string]time.Time // pool → since when it has been over its limit under Revoke
	hard     map[string]bool      // pool → it has been over its limit since a licence was replaced that says revoke
	unproved time.Duration        // how far the time is ahead of what is proved of it
	unsure   bool                 // whether the first clock still needs its proof
}

type modelLease struct {
	id          LeaseID
	holders     []Caller // the first is whom it is counted with
	items       []Item
	lifetime    Lifetime
	ttl         time.Duration
	expires     time.Time
	at          time.Time
	unconfirmed bool
	token       string
	data        *Data
	labels      map[string]string
	of, stored  *License // that it was granted under, and that the journal says it was
	// since when the rules count how long it is held, and unused
	began, renewed time.Time
}

type modelWaiter struct {
	r     *Acquire
	items []Item
	draws bool // of meters
	until time.Time
	since time.Time
	rank  time.Time // see ruleRank
}

// modelDraw is a draw, or what an admin set.
type modelDraw struct {
	key    string
	n      int64
	period time.Time // that it counts in
	set    bool
}

type modelToken struct {
	request string
	id      LeaseID
	draw    bool
	until   time.Time
	stored  time.Time // until, as the journal tells it
	data    *Data     // of a draw: what was kept on it
	who     User
}

func newModel(o Options) *model {
	return &model{options: o, tokens: map[string]modelToken{}, pools: map[string]PoolGrant{},
		shrunk: map[string]time.Time{}, over: map[string]time.Time{}, hard: map[string]bool{}}
}

func (m *model) good() bool { return m.verdict.Good() }

// at returns the verdict that holds: the one in force, or what that says it turns into.
func (m *model) at(now time.Time) *Verdict {
	v := m.verdict
	if v != nil {
		for _, next := range v.Next {
			if !next.JudgedAt.After(now) {
				v = next
			}
		}
	}
	return v
}

func itemsOf(r *Acquire) []Item {
	if r.Pool != "" {
		return []Item{{Pool: r.Pool, N: r.N, Of: r.Of}}
	}
	return r.Items
}

func has(items []Item, pool string) bool {
	return slices.ContainsFunc(items, func(it Item) bool { return it.Pool == pool })
}

// group is what a caller counts as; empty: nobody knows.
func (m *model) group(by CountBy, c Caller, labels map[string]string) string {
	name, known := m.groupOf(by, c, labels)
	if !known {
		return ""
	}
	return name
}

// groupOf is what is known of what a caller counts as, and whether that is all.
func (m *model) groupOf(by CountBy, c Caller, labels map[string]string) (name string, known bool) {
	words, _, _ := strings.Cut(string(by), "/")
	known = true
	for _, word := range strings.Split(words, "+") {
		one := m.groupByWord(word, c, labels)
		known = known && one != ""
		name += one + ", "
	}
	return name, known
}

func (m *model) groupByWord(word string, c Caller, labels map[string]string) string {
	user := cmp.Or(c.Credential, fmt.Sprint("uid ", c.UID))
	if user == "uid 65534" {
		user = ""
	}
	label, isLabel := strings.CutPrefix(word, "label:")
	switch by := CountBy(word); {
	case isLabel:
		return labels[label]
	case by == CountHost:
		return "host"
	case by == CountUser, by == CountProcess && user == "":
		return user
	case by == CountProcess && c.PID+int32(c.Inode) != 0:
		return fmt.Sprint("pid ", c.PID, " ", c.Inode, user)
	case by == CountPod:
		return c.Pod
	default:
		return ""
	}
}

// uses lists what a lease's holders count as in a pool, each once.
func (m *model) uses(pool string, l modelLease) map[string]bool {
	out := map[string]bool{}
	g := m.pools[pool]
	for _, h := range l.holders {
		by := cmp.Or(g.HoldersBy, g.CountBy)
		name, known := m.groupOf(by, h, l.labels)
		if g.HoldersBy != "" || !known {
			name = fmt.Sprint(l.id, name)
		}
		out[name] = true
	}
	return out
}

// shared adds up the parts of leases that count as one, but for no more than so many of them: the largest ones
// together, and then the others likewise.
func (m *model) shared(pool string, parts []int64) (n int64) {
	most := len(parts)
	if _, number, limited := strings.Cut(string(m.pools[pool].CountBy), "/"); limited {
		most, _ = strconv.Atoi(number)
	}
	slices.SortFunc(parts, func(a, b int64) int { return cmp.Compare(b, a) })
	for use := range slices.Chunk(parts, most) {
		n += use[0]
	}
	return n
}

// used counts the parts of a pool's slots.
func (m *model) used(pool string) (n int64) {
	groups := map[string][]int64{}
	for _, l := range m.leases {
		for _, it := range l.items {
			if it.Pool != pool {
				continue
			}
			for use := range m.uses(pool, l) {
				groups[use] = append(groups[use], m.weigh(it))
			}
		}
	}
	for _, parts := range groups {
		n += m.shared(pool, parts)
	}
	return n
}

// costs returns how many parts more are in use once a caller has some in a lease of its own.
func (m *model) costs(pool string, c Caller, labels map[string]string, parts int64) int64 {
	with := *m
	with.leases = append(slices.Clone(m.leases), modelLease{holders: []Caller{c}, labels: labels,
		items: []Item{{Pool: pool, N: parts, Of: m.per(pool)}}})
	return with.used(pool) - m.used(pool)
}

// reach returns how many parts a caller can be granted in one lease of its own where so many are free.
func (m *model) reach(pool string, c Caller, labels map[string]string, spare int64) int64 {
	n := spare
	for spare < math.MaxInt64 && n-spare < 1000 && m.costs(pool, c, labels, n+1) <= spare {
		n++
	}
	return n
}

// own returns how many slots a caller can be granted at no cost, because it is counted with them already.
func (m *model) own(pool string, r *Acquire) int64 { return m.reach(pool, r.Caller, r.Labels, 0) }

// refused says why no slots of a pool may be granted at all.
func (m *model) refused(pool string, now time.Time) DenialCode {
	v, g := m.at(now), m.pools[pool]
	next, named := v.Pools[pool]
	switch {
	case v.Meters[pool].Name != "":
		return BadRequest
	case g.Name == "" || !named:
		return PoolUnknown
	case next.CountBy != g.CountBy || next.HoldersBy != g.HoldersBy || next.Quantum != g.Quantum:
		return NoSlots
	case v.Paused != "":
		return NoSlots
	}
	return ""
}

// rehold says why a lease may not have other holders, nil when it may: a change that counts for more is a grant.
func (m *model) rehold(i int, holders []Caller, by Caller, now time.Time) DenialCode {
	with := *m
	with.leases = slices.Clone(m.leases)
	with.leases[i].holders = holders
	for _, it := range m.leases[i].items {
		more := with.used(it.Pool) - m.used(it.Pool)
		if more <= 0 {
			continue
		}
		if v := m.at(now); v == nil {
			return LicenseMissing
		} else if !v.Good() {
			return LicenseExpired
		}
		if m.isHeldOff(by, []Item{it}, now) {
			return HeldOff
		}
		if why := m.refused(it.Pool, now); why != "" {
			return why
		}
		if m.ahead(it.Pool, LeaseID{}) || m.used(it.Pool)+more > m.cap(it.Pool, now) {
			return NoSlots
		}
		if !m.mayGrow(it.Pool, by, m.leases[i].labels, i, more, now) {
			return DeniedByPolicy
		}
	}
	return ""
}

// room returns how many slots a caller can be granted in one lease.
func (m *model) room(pool string, r *Acquire, now time.Time) int64 {
	return m.reach(pool, r.Caller, r.Labels, max(0, m.cap(pool, now)-m.used(pool)))
}

func (m *model) cap(pool string, now time.Time) int64 {
	most := func(g PoolGrant) int64 { return (int64(g.Budget) + int64(g.Overage)) * m.per(pool) }
	if v := m.at(now); v != m.verdict {
		return min(most(m.pools[pool]), most(v.Pools[pool]))
	}
	return most(m.pools[pool])
}

// isOver reports whether more of a pool is in use than may stay so.
func (m *model) isOver(pool string) bool {
	return m.used(pool) > m.cap(pool, time.Time{})+int64(m.pools[pool].Kept)*m.per(pool)
}

// ahead reports whether anybody before w (at all, for one who does not wait) waits for the pool.
func (m *model) ahead(pool string, w LeaseID) bool {
	for i := range m.queue {
		if m.queue[i].r.ID == w {
			return false
		}
		if has(m.queue[i].items, pool) {
			return true
		}
	}
	return false
}

// fit returns what a request gets now, or why it gets nothing.
func (m *model) fit(r *Acquire, now time.Time) (granted []Item, why DenialCode) {
	for _, it := range itemsOf(r) {
		room := m.room(it.Pool, r, now)
		switch why := m.refused(it.Pool, now); {
		case why != "":
			return nil, why
		case !m.divides(it):
			return nil, BadRequest
		case len(m.rules) > 0:
			got, why := m.fitRuled(r, it, now)
			if why != "" {
				return nil, why
			}
			granted = append(granted, got)
		case m.ahead(it.Pool, r.ID) && m.weigh(it) > m.own(it.Pool, r):
			return nil, NoSlots
		case m.weigh(it) <= room:
			granted = append(granted, it)
		case r.MinN > 0 && m.weigh(Item{it.Pool, r.MinN, it.Of}) <= room:
			got := it
			for m.weigh(got) > room {
				got.N--
			}
			granted = append(granted, got)
		default:
			return nil, NoSlots
		}
	}
	return granted, ""
}

// never reports whether a request can never be granted, whatever comes free.
func (m *model) never(r *Acquire) bool {
	return slices.ContainsFunc(itemsOf(r), func(it Item) bool {
		return m.pools[it.Pool].Name == "" || m.ruledOut(r, it) ||
			m.weigh(Item{it.Pool, cmp.Or(r.MinN, it.N), it.Of}) > m.cap(it.Pool, time.Time{})
	})
}

func (m *model) denyBorrow(r *Acquire, now time.Time) DenialCode {
	v := m.at(now)
	switch ends := v.TerminatesAt; {
	case r.Lifetime != LifetimeBorrow:
		return ""
	case !r.Until.After(now):
		return BadRequest
	case r.Until.After(now.Add(v.MaxBorrow)):
		return LicenseInvalid
	case !ends.IsZero() && !v.CoveredUntil.IsZero() && r.Until.After(ends) && r.Until.After(v.CoveredUntil):
		return LicenseInvalid
	}
	return ""
}

// answer returns the answer to an acquire: what it gets, that it waits, that it was answered before, or why not.
func (m *model) answer(r *Acquire, now time.Time) (granted []Item, waits, replayed bool, why DenialCode) {
	items := itemsOf(r)
	if tok, known := m.tokens[tokenText(r)]; r.Token != "" && known {
		if tok.request != requestText(r) || !tok.draw && m.find(tok.id) < 0 {
			return nil, false, false, TokenReused
		}
		if r.Named && !m.holds(tok.id, r.Caller) {
			return nil, false, false, TokenReused
		}
		return nil, false, true, ""
	}
	if u := r.Caller; r.Token != "" && u.Who().nobody() && (u.PID == 0 || u.Start == 0) && u.Inode == 0 {
		return nil, false, false, BadRequest
	}
	if r.Token != "" && m.tooMany(r.Caller.Who(), m.options.MaxTokens, 1, m.tokensOf) {
		return nil, false, false, RateLimited
	}
	if m.verdict == nil {
		return nil, false, false, LicenseMissing
	} else if !m.at(now).Good() {
		return nil, false, false, LicenseExpired
	}
	if slices.ContainsFunc(items, func(it Item) bool { return m.ruleDenies(it.Pool, r) }) {
		return nil, false, false, DeniedByPolicy
	}
	if _, meter := m.at(now).Meters[items[0].Pool]; meter {
		grows := false
		if granted, grows, why = m.draw(r, now); why == MeterEmpty && grows && r.Wait > 0 {
			waits, why = m.mayWait(r)
		}
		return granted, waits, false, why
	} else if r.Lifetime == LifetimeDraw {
		return nil, false, false, BadRequest
	}
	if why := m.denyBorrow(r, now); why != "" {
		return nil, false, false, why
	}
	if u := r.Caller.Who(); m.tooMany(u, m.options.MaxLeases, 1, m.leasesOf) ||
		m.tooMuch(u, kept(r.Labels, r.Data, 0)) {
		return nil, false, false, RateLimited
	}
	if m.isHeldOff(r.Caller, items, now) {
		return nil, false, false, HeldOff
	}
	if no, forGood := m.ruleKeeps(r, now); no {
		if why = DeniedByPolicy; r.Wait > 0 && !forGood && !m.never(r) {
			waits, why = m.mayWait(r)
		}
		return nil, waits, false, why
	}
	granted, why = m.fit(r, now)
	if (why == NoSlots || why == DeniedByPolicy) && r.Wait > 0 && !m.never(r) {
		waits, why = m.mayWait(r)
		return nil, waits, false, why
	}
	return granted, false, false, why
}

// grant gives a request what it gets.
func (m *model) grant(r *Acquire, granted []Item, now time.Time) {
	l := modelLease{id: r.ID, holders: []Caller{r.Caller}, items: granted, lifetime: cmp.Or(r.Lifetime, LifetimeTTL),
		ttl: r.TTL, at: now, expires: r.Until, data: r.Data, labels: r.Labels, of: m.at(now).base()}
	l.stored, l.began, l.renewed = l.of, now, now
	if l.lifetime == LifetimeTTL {
		l.expires = now.Add(r.TTL)
	}
	_, draw := m.at(now).Meters[granted[0].Pool]
	if r.Token != "" {
		l.token = tokenText(r)
		m.tokens[l.token] = modelToken{requestText(r), r.ID, draw, now.Add(TokenKept), now.Add(TokenKept), r.Data,
			r.Caller.Who()}
	}
	if !draw {
		m.takeBack(r.Caller, r.Labels, granted)
		m.leases = append(m.leases, l)
		return
	}
	for _, it := range granted {
		g := m.at(now).Meters[it.Pool]
		m.record(g, it.N, false, now)
	}
}

func tokenText(r *Acquire) string {
	out := fmt.Sprint(r.Token, " ", r.Caller.UID, r.Caller.Credential, " ", ownerOf(r.Data))
	if r.Caller.Who().nobody() {
		out += fmt.Sprint(" of process ", r.Caller.PID, " ", r.Caller.Inode)
	}
	for _, it := range itemsOf(r) {
		out += " " + it.Pool
	}
	return out
}

func requestText(r *Acquire) string {
	return fmt.Sprint(itemsOf(r), r.MinN, cmp.Or(r.Lifetime, LifetimeTTL), r.TTL, r.Until, r.Labels)
}

func (m *model) find(id LeaseID) int {
	return slices.IndexFunc(m.leases, func(l modelLease) bool { return l.id == id })
}

// holds reports whether a process that can be told from others is one of a lease's holders.
func (m *model) holds(id LeaseID, c Caller) bool {
	return (c.PID != 0 || c.Inode != 0) && slices.ContainsFunc(m.leases[m.find(id)].holders, func(h Caller) bool {
		return h.Who() == c.Who() && h.PID == c.PID && h.Inode == c.Inode
	})
}

func (m *model) drop(id LeaseID) { m.leases = slices.Delete(m.leases, m.find(id), m.find(id)+1) }

// act says why a caller may not act on a lease.
func ownerOf(d *Data) string {
	if d == nil {
		return "nobody"
	}
	return d.Owner
}

// act says why a caller may not act on a lease through an owner of data.
func (m *model) act(id LeaseID, c Caller, owner string, force bool) DenialCode {
	switch i := m.find(id); {
	case i < 0:
		return LeaseUnknown
	case m.leases[i].holders[0].UID != c.UID && !force, m.leases[i].holders[0].Credential != c.Credential && !force:
		return NotHolder
	case !force && ownerOf(m.leases[i].data) != cmp.Or(owner, "nobody"):
		return NotHolder
	}
	return ""
}

// eased forgets that pools were over their limits which no longer are.
func (m *model) eased() {
	for p := range m.shrunk {
		if !m.isOver(p) {
			delete(m.shrunk, p)
		}
	}
	for p := range m.hard {
		if !m.isOver(p) {
			delete(m.hard, p)
		}
	}
}
