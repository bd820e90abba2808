package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/textual"
)

// picture is what top shows: the agent's answers, and how they are to be looked at.
type picture struct {
	license  *wire.License // nil: the agent has not answered yet
	product  string
	pools    []wire.Pool
	leases   []wire.Lease
	more     bool             // there are more leases
	waiting  []wire.Waiter    // in their order
	behind   bool             // others wait behind these
	denied   map[string]int64 // acquires that were denied in the last 24 hours, by pool; nil: not known
	deniedAt time.Time        // when that was asked
	denials  []wire.Event     // the newest first
	away     string           // why there is no answer now; empty: there is one
	at       time.Time        // of the answers

	pool  string // the only one shown; empty: all are
	sort  int    // in topSorts
	first int    // of the holders that are shown
}

// topSorts are the orders of holders.
var topSorts = []struct {
	name  string
	order func(a, b *wire.Lease) int
}{
	{"oldest", func(a, b *wire.Lease) int { return a.AcquiredAt.Compare(b.AcquiredAt) }},
	{"newest", func(a, b *wire.Lease) int { return b.AcquiredAt.Compare(a.AcquiredAt) }},
	{"slots", func(a, b *wire.Lease) int {
		return cmp.Or(cmp.Compare(slotsIn(b), slotsIn(a)), a.AcquiredAt.Compare(b.AcquiredAt))
	}},
	{"holder", func(a, b *wire.Lease) int {
		return cmp.Or(cmp.Compare(topHolder(a.Holder), topHolder(b.Holder)), a.AcquiredAt.Compare(b.AcquiredAt))
	}},
}

func slotsIn(l *wire.Lease) (n int64) {
	for _, it := range l.Items {
		n += it.N
	}
	return n
}

// smallest is the smallest terminal that is drawn for; on a smaller one lines and columns are cut off.
const topWidth, topHeight = 40, 8

// frame returns the lines of a picture for a terminal of so many columns and rows. No line is wider, and there are no
// more of them. A height of 0 is as many as are needed.
func (p *picture) frame(width, height int, now time.Time) []string {
	width = max(width, topWidth)
	all := height == 0
	if !all {
		height = max(height, topHeight)
	}
	out := []string{p.title(width, now)}
	if p.away != "" {
		out = append(out, "the agent does not answer, and is asked again: "+p.away)
	}
	seen := height // no more rows of a kind are written out: the others only count
	if all {
		seen = math.MaxInt
	}
	pools := p.poolRows(width, seen)
	denials, waiters := p.denialRows(seen), p.waiterRows(width, seen, now)
	if !all { // at least three holders are seen, where there are as many
		room := height - len(out) - 3 - min(3, len(p.leases)) // the heads and the last line
		pools = clip(pools, max(2, room-min(len(denials), 4)-min(len(waiters), 5)), "pools")
		room = max(0, room-len(pools))
		waiters = clip(waiters, min(room-min(len(denials), 4), max(5, room/2)), "wait")
		denials = denials[:min(len(denials), room-len(waiters))]
	}
	out = append(out, pools...)
	rest := height - len(out) - len(denials) - len(waiters) - 1
	out = append(out, p.holderRows(width, rest, all, now)...)
	out = append(append(out, waiters...), denials...)
	if !all {
		for len(out) < height-1 {
			out = append(out, "")
		}
		out = append(out[:height-1], p.keys())
	}
	for i, line := range out {
		out[i] = strings.TrimRight(cut(textual.Printable(line), width), " ")
	}
	return out
}

// clip leaves the first n lines, of which the last says how many are left out; fewer than three tell nothing of those
// that wait, which have a line of room and a head.
func clip(lines []string, n int, what string) []string {
	switch {
	case len(lines) <= n:
		return lines
	case what == "wait" && n < 3:
		return nil
	}
	return append(lines[:n-1:n-1], fmt.Sprintf("  and %d more %s", len(lines)-n+1, what))
}

func (p *picture) title(width int, now time.Time) string {
	left := naming.Program() + " top"
	if p.product != "" {
		left += ": " + p.product
	}
	if l := p.license; l != nil {
		left += ", licence " + l.State + " (" + l.Code + ")"
		if l.CoveredUntil != nil {
			left += " until " + l.CoveredUntil.UTC().Format(time.DateOnly)
		}
		if l.Draining {
			left += ", draining"
		}
	}
	right := now.UTC().Format("15:04:05") + "Z"
	return fit(cut(left, width-len(right)-1), width-len(right)) + right
}

// poolRows are the pools, each with its bar. Only so many rows as are seen are written out.
func (p *picture) poolRows(width, seen int) []string {
	name, bar := 4, max(10, min(40, width-58))
	var shown []wire.Pool
	for _, x := range p.pools {
		if p.pool == "" || x.Name == p.pool {
			shown = append(shown, x)
			name = max(name, min(20, cells(x.Name)))
		}
	}
	denied := "DENIED 24H"
	if p.denied == nil {
		denied = ""
	}
	out := []string{fit("POOL", name) + "  " + fit("", bar+2) + "  " + fit("IN USE", 14) + right("WAITING", 8) +
		right("PEAK", 7) + right(denied, 12)}
	for _, x := range shown {
		if len(out) > seen {
			out = append(out, "")
			continue
		}
		peak, waiting := fmt.Sprint(x.Peak), dash(strings.TrimPrefix(fmt.Sprint(x.Waiting), "0"))
		inUse := fmt.Sprintf("%d/%s", x.InUse, limitText(x.Budget))
		if x.Kind == "meter" {
			peak, inUse = "-", inUse+" drawn"
		}
		n := ""
		if p.denied != nil {
			n = dash(strings.TrimPrefix(fmt.Sprint(p.denied[x.Name]), "0"))
		}
		out = append(out, fit(x.Name, name)+"  "+gauge(x.InUse, x.Budget, bar)+"  "+fit(inUse, 14)+right(waiting, 8)+
			right(peak, 7)+right(n, 12))
	}
	if p.license != nil && len(shown) == 0 {
		out = append(out, "  the licence in force names no pool")
	}
	return out
}

// gauge is a bar of how much of a limit is in use: # within it, ! beyond it.
func gauge(n int64, limit *int64, width int) string {
	full := 0
	switch {
	case limit == nil || n <= 0:
	case *limit <= 0:
		full = width
	default:
		full = int(min(float64(width), float64(n)*float64(width)/float64(*limit)))
		full = max(1, full)
	}
	mark := "#"
	if limit != nil && n > *limit {
		mark = "!"
	}
	return "[" + strings.Repeat(mark, full) + strings.Repeat(".", width-full) + "]"
}

// holderRows are the leases, in rows lines with their head.
func (p *picture) holderRows(width, rows int, all bool, now time.Time) []string {
	leases := make([]*wire.Lease, len(p.leases))
	for i := range p.leases {
		leases[i] = &p.leases[i]
	}
	slices.SortStableFunc(leases, topSorts[p.sort].order)
	side := 20 + 8 + 12
	holder := max(12, width-side)
	head := fit("HOLDER", holder) + fit("SLOTS", 20) + right("SINCE", 8) + right("ENDS", 12)
	out := []string{"", head}
	if all {
		rows = len(leases) + 3
	}
	room := max(1, rows-len(out))
	first := max(0, min(p.first, len(leases)-room))
	for i := first; i < len(leases) && i < first+room; i++ {
		l := leases[i]
		ends := "-"
		if l.ExpiresAt != nil {
			ends = away(*l.ExpiresAt, now)
		}
		if l.State != "" && l.State != "held" && l.State != "active" {
			ends = l.State
		}
		out = append(out, fit(topHolder(l.Holder), holder-1)+" "+fit(itemsText(l.Items), 19)+" "+
			right(span(now.Sub(l.AcquiredAt)), 8)+right(ends, 12))
	}
	switch {
	case len(leases) == 0 && p.license != nil:
		out = append(out, "  nobody holds a slot")
	case p.more || len(leases) > room:
		many := fmt.Sprintf("  %d to %d of %d", first+1, min(len(leases), first+room), len(leases))
		if p.more {
			many += " and more"
		}
		if len(out) > room+1 {
			out = out[:room+1]
		}
		out = append(out, many)
	}
	return out
}

// waiterRows are the acquires that wait, in their order. Only so many rows as are seen are written out.
func (p *picture) waiterRows(width, seen int, now time.Time) (out []string) {
	who := max(12, width-16-6-6-8-12)
	for i := range p.waiting {
		w := &p.waiting[i]
		if p.pool != "" && !slices.ContainsFunc(w.Items, func(it wire.Item) bool { return it.Pool == p.pool }) {
			continue
		}
		if out == nil {
			out = []string{"", fit("WAITING", who) + fit("SLOTS", 16) + right("PLACE", 6) + right("PRIO", 6) +
				right("SINCE", 8) + right("MAY WAIT", 12)}
		}
		if len(out) > seen {
			out = append(out, "")
			continue
		}
		may := "-"
		if w.EstimateSeconds > 0 {
			may = span(time.Duration(w.EstimateSeconds * float64(time.Second)))
		}
		out = append(out, fit(topHolder(waiterHolder(w)), who-1)+" "+fit(itemsText(w.Items), 15)+" "+
			right(fmt.Sprint(w.Position), 6)+right(fmt.Sprint(w.Priority), 6)+right(span(now.Sub(w.Since)), 8)+
			right(may, 12))
	}
	if p.behind && out != nil {
		out = append(out, "  and others behind these")
	}
	return out
}

// topHolder is a holder on little room: the user or the credential, its labels, its program and process.
func topHolder(h *wire.Holder) string {
	if h == nil {
		return "-"
	}
	who := h.User
	switch {
	case h.Credential != "":
		who = "credential " + h.Credential
	case h.UID == nobody:
		who = "without an identity"
	case who == "":
		who = fmt.Sprintf("uid %d", h.UID)
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(h.Labels)) {
		labels = append(labels, k+"="+h.Labels[k])
	}
	if len(labels) > 0 {
		who += " (" + strings.Join(labels, ", ") + ")"
	}
	if h.Exe != "" {
		who += " " + filepath.Base(h.Exe)
	}
	if h.PID != 0 {
		who += fmt.Sprintf(" %d", h.PID)
	}
	return who
}

// denialRows are the denials that top has heard of, the newest first. Only so many rows as are seen are written out.
func (p *picture) denialRows(seen int) []string {
	var out []string
	for _, ev := range p.denials {
		if p.pool != "" && ev.Pool != p.pool {
			continue
		}
		if out == nil {
			out = []string{"", "DENIED"}
		}
		if len(out) > seen {
			out = append(out, "")
			continue
		}
		times := ""
		if ev.Count > 1 {
			times = fmt.Sprintf(" ×%d", ev.Count)
		}
		out = append(out, fmt.Sprintf("%s  %s%s  %s: %s", ev.At.UTC().Format("15:04:05"), dash(ev.Pool), times,
			topHolder(ev.Holder), cmp.Or(ev.Reason, ev.Code)))
	}
	return out
}

func (p *picture) keys() string {
	return fmt.Sprintf("q quit   s sort: %s   p pool: %s   j k scroll", topSorts[p.sort].name, cmp.Or(p.pool, "all"))
}

// cells is how many columns of a terminal a text takes.
func cells(s string) (n int) {
	for _, r := range s {
		n += cellsOf(r)
	}
	return n
}

// cellsOf returns the columns of one character: two for those of East Asian scripts and for pictures.
func cellsOf(r rune) int {
	if r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd) {
		return 2
	}
	return 1
}

// cut leaves as much of a text as fits into n columns.
func cut(s string, n int) string {
	if cells(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used += cellsOf(r); used > n-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// fit makes a text n columns wide.
func fit(s string, n int) string {
	s = cut(textual.Printable(s), n)
	return s + strings.Repeat(" ", max(0, n-cells(s)))
}

// right is fit, with the text at the right end.
func right(s string, n int) string {
	s = cut(s, n)
	return strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) + s
}
