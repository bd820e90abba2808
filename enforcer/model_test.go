package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// model is the enforcer written naively: slices in their order, and everything counted anew each time.
type model struct {
	options Options

	leases []modelLease
	queue  []modelWaiter // in their turn
	draws  []modelDraw
	tokens map[string]modelToken
	pools  map[string]PoolGrant

	verdict *Verdict
	policy  OnExpiry // of the last good verdict
	ends    time.Time
	turned  time.Time
	shrunk  map[string]time.Time // pool → since when it has been over its limit under Revoke
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
}

type modelWaiter struct {
	r     *Acquire
	items []Item
	until time.Time
}

// modelDraw is a draw, or what an admin set.
type modelDraw struct {
	key string
	n   int64
	at  time.Time
	set bool
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
	return &model{options: o, tokens: map[string]modelToken{}, pools: map[string]PoolGrant{}, shrunk: map[string]time.Time{}}
}

func (m *model) good() bool { return m.verdict.Good() }

func itemsOf(r *Acquire) []Item {
	if r.Pool != "" {
		return []Item{{r.Pool, r.N}}
	}
	return r.Items
}

func has(items []Item, pool string) bool {
	return slices.ContainsFunc(items, func(it Item) bool { return it.Pool == pool })
}

// group is what a caller's leases count as one by; empty: each for itself.
func (m *model) group(pool string, c Caller) string {
	switch m.pools[pool].CountBy {
	case CountUser:
		if c.UID == Nobody && c.Credential == "" {
			return ""
		}
		return cmp.Or(c.Credential, fmt.Sprint("uid ", c.UID))
	case CountProcess:
		return fmt.Sprint("pid ", c.PID)
	default:
		return ""
	}
}

// used counts a pool's slots: by lease, or by the largest lease of each group.
func (m *model) used(pool string) (n int64) {
	groups := map[string]int64{}
	for _, l := range m.leases {
		for _, it := range l.items {
			if g := m.group(pool, l.holders[0]); it.Pool == pool && g == "" {
				n += it.N
			} else if it.Pool == pool {
				groups[g] = max(groups[g], it.N)
			}
		}
	}
	for _, k := range groups {
		n += k
	}
	return n
}

// own returns how many slots a caller can be granted at no cost, because he is counted with them already.
func (m *model) own(pool string, c Caller) (own int64) {
	g := m.group(pool, c)
	for _, l := range m.leases {
		for _, it := range l.items {
			if it.Pool == pool && g != "" && m.group(pool, l.holders[0]) == g {
				own = max(own, it.N)
			}
		}
	}
	return own
}

// room returns how many slots a caller can be granted in one lease.
func (m *model) room(pool string, c Caller) int64 {
	return max(0, m.cap(pool)-m.used(pool)) + m.own(pool, c)
}

func (m *model) cap(pool string) int64 {
	return int64(m.pools[pool].Budget) + int64(m.pools[pool].Overage)
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
func (m *model) fit(r *Acquire) (granted []Item, why DenialCode) {
	for _, it := range itemsOf(r) {
		_, meter := m.verdict.Meters[it.Pool]
		room := m.room(it.Pool, r.Caller)
		switch {
		case meter:
			return nil, BadRequest
		case m.pools[it.Pool].Name == "":
			return nil, PoolUnknown
		case m.ahead(it.Pool, r.ID) && it.N > m.own(it.Pool, r.Caller):
			return nil, NoSlots
		case it.N <= room:
			granted = append(granted, it)
		case r.MinN > 0 && r.MinN <= room:
			granted = append(granted, Item{it.Pool, room})
		default:
			return nil, NoSlots
		}
	}
	return granted, ""
}

// never reports whether what is asked for cannot be had whatever comes free.
func (m *model) never(r *Acquire) bool {
	return slices.ContainsFunc(itemsOf(r), func(it Item) bool { return m.pools[it.Pool].Name == "" || cmp.Or(r.MinN, it.N) > m.cap(it.Pool) })
}

func (m *model) denyBorrow(r *Acquire, now time.Time) DenialCode {
	v := m.verdict
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

// answer says what an acquire is answered: what it gets, that it waits, that it has been answered before, or why not.
func (m *model) answer(r *Acquire, now time.Time) (granted []Item, waits, replayed bool, why DenialCode) {
	items := itemsOf(r)
	if tok, known := m.tokens[tokenText(r)]; r.Token != "" && known {
		if tok.request != requestText(r) || !tok.draw && m.find(tok.id) < 0 {
			return nil, false, false, TokenReused
		}
		return nil, false, true, ""
	}
	if r.Token != "" && m.tooMany(r.Caller.Who(), m.options.MaxTokens, 1, m.tokensOf) {
		return nil, false, false, RateLimited
	}
	if m.verdict == nil {
		return nil, false, false, LicenseMissing
	} else if !m.good() {
		return nil, false, false, LicenseExpired
	}
	if _, meter := m.verdict.Meters[items[0].Pool]; meter {
		granted, why = m.draw(r, now)
		return granted, false, false, why
	} else if r.Lifetime == LifetimeDraw {
		return nil, false, false, BadRequest
	}
	if why := m.denyBorrow(r, now); why != "" {
		return nil, false, false, why
	}
	if u := r.Caller.Who(); m.tooMany(u, m.options.MaxLeases, 1, m.leasesOf) || m.tooMuch(u, kept(r.Labels, r.Data, 0)) {
		return nil, false, false, RateLimited
	}
	granted, why = m.fit(r)
	if why == NoSlots && r.Wait > 0 && !m.never(r) {
		if u := r.Caller.Who(); m.tooMany(u, m.options.MaxWaiters, 1, m.waitersOf) || m.tooMuch(u, keptWaiting(r)) {
			return nil, false, false, RateLimited
		}
		return nil, true, false, ""
	}
	return granted, false, false, why
}

// tooMany reports whether a user may not have n more of what there are most of, one user never more than is left for others.
func (m *model) tooMany(u User, most, n int, of func(*User) int) bool {
	if most == 0 {
		return false
	}
	own, left := of(&u)+n, most-of(nil)-n
	return left < 0 || own > left && own > 1
}

func (m *model) tooMuch(u User, n int) bool {
	return n > 0 && m.tooMany(u, m.options.MaxBytes, n, m.bytesOf)
}

// leasesOf counts what a user holds, or all hold; likewise tokensOf, waitersOf and bytesOf.
func (m *model) leasesOf(u *User) (n int) {
	for _, l := range m.leases {
		if u == nil || l.holders[0].Who() == *u {
			n++
		}
	}
	return n
}

func (m *model) tokensOf(u *User) (n int) {
	for _, t := range m.tokens {
		if u == nil || t.who == *u {
			n++
		}
	}
	return n
}

func (m *model) waitersOf(u *User) (n int) {
	for _, w := range m.queue {
		if u == nil || w.r.Caller.Who() == *u {
			n++
		}
	}
	return n
}

func (m *model) bytesOf(u *User) (n int) {
	for _, l := range m.leases {
		if u == nil || l.holders[0].Who() == *u {
			n += kept(l.labels, l.data, len(l.holders)-1)
		}
	}
	for _, w := range m.queue {
		if u == nil || w.r.Caller.Who() == *u {
			n += keptWaiting(w.r)
		}
	}
	return n
}

func kept(labels map[string]string, d *Data, others int) int {
	n := others * holderBytes
	for k, v := range labels {
		n += len(k + v)
	}
	if d != nil {
		n += len(d.Bytes)
	}
	return n
}

func keptWaiting(r *Acquire) int {
	n := kept(r.Labels, r.Data, 0) + len(r.Token+r.Version)
	for _, it := range r.Items {
		n += len(it.Pool)
	}
	return n
}

// period returns when the period of a meter that now lies in began, day by day backwards.
func period(resets Resets, now time.Time) time.Time {
	day := now.Truncate(24 * time.Hour)
	for resets == ResetsWeekly && day.Weekday() != time.Monday || resets == ResetsMonthly && day.Day() != 1 {
		day = day.Add(-24 * time.Hour)
	}
	if resets == ResetsNever {
		return time.Time{}
	}
	return day
}

// drawn adds up what was drawn since the period began, or since an admin set it.
func (m *model) drawn(g MeterGrant, now time.Time) (sum int64) {
	for _, d := range m.draws {
		switch {
		case d.key != g.Key || d.at.Before(period(g.Resets, now)):
		case d.set:
			sum = d.n
		default:
			sum += d.n
		}
	}
	return sum
}

func (m *model) draw(r *Acquire, now time.Time) (granted []Item, why DenialCode) {
	if r.Lifetime != "" && r.Lifetime != LifetimeDraw {
		return nil, BadRequest
	}
	for _, it := range itemsOf(r) {
		g, ok := m.verdict.Meters[it.Pool]
		if !ok {
			return nil, BadRequest
		}
		n := it.N
		if left := max(0, int64(g.Budget)+int64(g.Overage)-m.drawn(g, now)); g.Budget != Unlimited && left < n {
			if r.MinN == 0 || left < r.MinN {
				return nil, MeterEmpty
			}
			n = left
		}
		granted = append(granted, Item{it.Pool, n})
	}
	return granted, ""
}

// grant gives a request what it gets.
func (m *model) grant(r *Acquire, granted []Item, now time.Time) {
	l := modelLease{id: r.ID, holders: []Caller{r.Caller}, items: granted, lifetime: cmp.Or(r.Lifetime, LifetimeTTL), ttl: r.TTL, at: now, expires: r.Until, data: r.Data, labels: r.Labels}
	if l.lifetime == LifetimeTTL {
		l.expires = now.Add(r.TTL)
	}
	_, draw := m.verdict.Meters[granted[0].Pool]
	if r.Token != "" {
		l.token = tokenText(r)
		m.tokens[l.token] = modelToken{requestText(r), r.ID, draw, now.Add(TokenKept), now.Add(TokenKept), r.Data, r.Caller.Who()}
	}
	if !draw {
		m.leases = append(m.leases, l)
		return
	}
	for _, it := range granted {
		m.draws = append(m.draws, modelDraw{key: m.verdict.Meters[it.Pool].Key, n: it.N, at: now})
	}
}

func tokenText(r *Acquire) string {
	out := fmt.Sprint(r.Token, " ", r.Caller.UID, r.Caller.Credential, " ", ownerOf(r.Data))
	if r.Caller.Who().nobody() {
		out += fmt.Sprint(" of process ", r.Caller.PID)
	}
	for _, it := range itemsOf(r) {
		out += " " + it.Pool
	}
	return out
}

func requestText(r *Acquire) string {
	return fmt.Sprint(itemsOf(r), r.MinN, cmp.Or(r.Lifetime, LifetimeTTL), r.TTL, r.Until, r.Labels)
}

// serve gives the first who waits and can be granted what he waits for, and says what: nothing when nobody can.
func (m *model) serve(now time.Time) string {
	for i, w := range m.queue {
		granted, why := m.fit(w.r)
		if why != "" || slices.ContainsFunc(w.items, func(it Item) bool { return m.ahead(it.Pool, w.r.ID) }) {
			continue
		}
		m.queue = slices.Delete(m.queue, i, i+1)
		if _, known := m.tokens[tokenText(w.r)]; w.r.Token != "" && known {
			return fmt.Sprint(w.r.ID, " has it already")
		}
		m.grant(w.r, granted, now)
		return fmt.Sprint(w.r.ID, granted)
	}
	return ""
}

// vain reports whether somebody waits for what can no longer be had.
func (m *model) vain(r *Acquire, now time.Time) bool {
	return !m.good() || m.denyBorrow(r, now) != "" || m.never(r)
}

func (m *model) find(id LeaseID) int {
	return slices.IndexFunc(m.leases, func(l modelLease) bool { return l.id == id })
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
		if m.used(p) <= m.cap(p) {
			delete(m.shrunk, p)
		}
	}
}

// pass lets time pass to now: what is due ends.
func (m *model) pass(now time.Time) {
	m.leases = slices.DeleteFunc(m.leases, func(l modelLease) bool { return !l.expires.IsZero() && !l.expires.After(now) })
	m.eased()
	if at := m.revokeAll(); !at.IsZero() && !at.After(now) {
		m.leases = nil
	}
	for _, p := range poolNames {
		since, ok := m.shrunk[p]
		if !ok || since.Add(RevokeDelay).After(now) {
			continue
		}
		young := slices.Clone(m.leases)
		slices.SortStableFunc(young, func(x, y modelLease) int { return cmp.Or(y.at.Compare(x.at), slices.Compare(x.id[:], y.id[:])) })
		for _, l := range young {
			if m.used(p) > m.cap(p) && has(l.items, p) {
				m.drop(l.id)
			}
		}
		delete(m.shrunk, p)
	}
	m.eased()
	for t, tok := range m.tokens {
		if tok.until.After(now) {
			continue
		}
		if delete(m.tokens, t); m.find(tok.id) >= 0 {
			tok.until = now.Add(TokenKept)
			m.tokens[t] = tok
		}
	}
	m.queue = slices.DeleteFunc(m.queue, func(w modelWaiter) bool { return !w.until.After(now) })
}

func (m *model) revokeAll() time.Time {
	switch {
	case m.good() || m.turned.IsZero() || m.policy == Keep:
		return time.Time{}
	case m.policy == Revoke:
		return m.turned.Add(RevokeDelay)
	case m.ends.IsZero():
		return time.Time{}
	default:
		return later(m.turned.Add(RevokeDelay), m.ends)
	}
}

func (m *model) judge(v *Verdict, now time.Time) {
	m.verdict = v
	switch {
	case v.Good():
		m.turned, m.policy, m.ends = time.Time{}, v.OnExpiry, v.TerminatesAt
	case m.policy == "":
		m.policy, m.ends = v.OnExpiry, v.TerminatesAt
	}
	if !v.Good() && m.turned.IsZero() {
		m.turned = now
	}
	for _, p := range poolNames {
		g, ok := v.Pools[p]
		if !ok {
			g = PoolGrant{CountBy: m.pools[p].CountBy}
		}
		m.pools[p] = g
		over := m.used(p) > m.cap(p)
		if _, ok := m.shrunk[p]; !over || !m.good() || v.OnExpiry != Revoke {
			delete(m.shrunk, p)
		} else if !ok {
			m.shrunk[p] = now
		}
	}
}

// resume gives what ends by itself its time anew.
func (m *model) resume(now time.Time) {
	for i := range m.leases {
		if l := &m.leases[i]; !l.expires.IsZero() && l.lifetime != LifetimeBorrow {
			l.expires = later(l.expires, now.Add(max(l.ttl, 15*time.Second)))
		}
	}
}

// crash is what the agent's death changes: nobody waits any more, the verdict is as new, and tokens are forgotten by when their
// leases were granted, unless a snapshot knew better.
func (m *model) crash(now time.Time) {
	m.queue, m.pools, m.shrunk = nil, map[string]PoolGrant{}, map[string]time.Time{}
	m.turned, m.policy = time.Time{}, ""
	for t, tok := range m.tokens {
		tok.until = tok.stored
		m.tokens[t] = tok
	}
	if m.verdict != nil {
		m.judge(m.verdict, now)
	}
}

func (m *model) compact() {
	for t, tok := range m.tokens {
		if m.find(tok.id) < 0 {
			tok.stored = tok.until
			m.tokens[t] = tok
		}
	}
}
