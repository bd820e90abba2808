package plugin

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/usher-agent/usher/enforcer"
)

// Bounds of what a plugin may answer.
const (
	MaxState  = 16 << 10 // bytes of a Reply's state
	maxReason = 1024     // bytes of a sentence for people; a longer one is cut
	maxWord   = 128      // bytes of a system's own code
	maxID     = 256      // bytes of a block's id
	// MaxRetryAfter is the longest that an upstream's error may put a caller off. It comes in a header, which no
	// signature covers: anybody on the way can write one.
	MaxRetryAfter = 5 * time.Minute
)

// nameRule is the form of a system's name.
var nameRule = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// CheckName reports why a system cannot have a name; nil: it can.
func CheckName(system string) error {
	if !nameRule.MatchString(system) {
		return fmt.Errorf(
			"%q cannot name a licence system: use a lower-case letter, then lower-case letters, digits and -, 32 "+
				"at most",
			clip(system, 40))
	}
	return nil
}

// problemCodes are the codes that a format may give a document.
var problemCodes = []enforcer.Code{enforcer.Malformed, enforcer.BadSignature, enforcer.UntrustedKey,
	enforcer.Unavailable, enforcer.Revoked}

// CheckVerified compares a format's answer with the question, and returns it made safe. For an impossible answer it
// returns a problem of code Unavailable that names the fault, which is the plugin's and not the document's. anchors are
// those that the format was given. It changes nothing of the licence but what the anchor knows better.
func CheckVerified(system string, anchors []Anchor, l *enforcer.License,
	p *enforcer.Problem) (*enforcer.License, *enforcer.Problem) {
	nonsense := func(format string, args ...any) (*enforcer.License, *enforcer.Problem) {
		return nil, &enforcer.Problem{System: system, Code: enforcer.Unavailable,
			Reason: "what the " + system + " plugin's answer is impossible: " + fmt.Sprintf(format, args...),
			Hint:   "update the plugin, or report this to whoever made it; the licence itself may be good"}
	}
	if l == nil && p == nil {
		return nonsense("neither a licence nor a problem")
	}
	if l != nil {
		if err := l.Validate(); err != nil {
			return nonsense("%v", err)
		}
		if l.System != system {
			return nonsense("it is a licence of another system")
		}
	}
	if p != nil {
		if !slices.Contains(problemCodes, p.Code) {
			return nonsense("no document can have this code")
		}
		if l != nil && p.Code != enforcer.BadSignature && p.Code != enforcer.UntrustedKey {
			return nonsense("both a licence and a problem")
		}
		safe := enforcer.Problem{System: system, Code: p.Code, Reason: sentence(p.Reason), Hint: sentence(p.Hint),
			SystemCode: word(p.SystemCode), Signed: p.Signed && l == nil && p.Code == enforcer.Unavailable}
		if safe.Reason == "" {
			safe.Reason = "no reason was given"
		}
		return l, &safe
	}
	i := slices.IndexFunc(anchors, func(a Anchor) bool { return a.System == system && a.KeyID == l.KeyID })
	if i < 0 {
		return nonsense("it names a key that is not in trust as the one that signed")
	}
	switch a := anchors[i]; {
	case a.Revoked:
		return nonsense("a revoked key is said to vouch for it")
	case !a.NotBefore.IsZero() && l.Issued.Before(a.NotBefore),
		!a.NotAfter.IsZero() && (l.Issued.IsZero() || l.Issued.After(a.NotAfter)):
		return nonsense("it was issued outside the time of the key that signed it")
	case l.AnchorEnvironment != a.Environment:
		c := *l
		c.AnchorEnvironment = a.Environment
		l = &c
	}
	return l, nil
}

// Check reports an impossible reply of an upstream. now is the licence time.
func (r *Reply) Check(now time.Time) error {
	switch {
	case r == nil:
		return fmt.Errorf("there is no reply")
	case len(r.Document) > MaxDocument:
		return fmt.Errorf("the document has %d bytes; the limit is %d", len(r.Document), MaxDocument)
	case len(r.State) > MaxState:
		return fmt.Errorf("the state has %d bytes; the limit is %d", len(r.State), MaxState)
	}
	for what, t := range map[string]time.Time{"next heartbeat": r.NextHeartbeat, "next check-in": r.NextCheckIn} {
		if !t.IsZero() && (t.Before(now.AddDate(-1, 0, 0)) || t.After(now.AddDate(100, 0, 0))) {
			return fmt.Errorf("the %s is at %s, which is impossible", what, t.UTC().Format(time.RFC3339))
		}
	}
	if !r.Time.IsZero() && (r.Time.Year() < 2020 || r.Time.Year() > 9999) {
		return fmt.Errorf("its clock says %s, which is impossible", r.Time.UTC().Format(time.RFC3339))
	}
	return nil
}

// Check reports an impossible block of an upstream, given the request: pool (empty: any), at most slots, at most span.
func (b *Block) Check(pool string, slots, atLeast int64, span time.Duration) error {
	switch {
	case b == nil:
		return fmt.Errorf("there is no block")
	case b.ID == "" || len(b.ID) > maxID || word(b.ID) != b.ID && len(b.ID) <= maxWord || !utf8.ValidString(b.ID):
		return fmt.Errorf("the block has no id, or an invalid one")
	case pool != "" && b.Pool != pool:
		return fmt.Errorf("the block is of another pool")
	case b.Slots < atLeast || b.Slots < 0 || slots > 0 && b.Slots > slots:
		return fmt.Errorf("the block has %d slots; %d to %d were asked for", b.Slots, atLeast, slots)
	case b.For <= 0 || b.For > span:
		return fmt.Errorf("the block is for %s; at most %s was asked for", enforcer.Span(b.For), enforcer.Span(span))
	case b.Keep < 0:
		return fmt.Errorf("its leases may be kept for %s", enforcer.Span(b.Keep))
	case b.Wanted < 0:
		return fmt.Errorf("others want %d slots", b.Wanted)
	case len(b.State) > MaxState:
		return fmt.Errorf("the state has %d bytes; the limit is %d", len(b.State), MaxState)
	}
	return nil
}

// Check reports impossible draws of an upstream, given the request.
func (d *Drawn) Check(meter string, n int64) error {
	switch {
	case d == nil:
		return fmt.Errorf("there is no answer")
	case d.Meter != meter:
		return fmt.Errorf("the draws are of another meter")
	case d.N < 1 || d.N > n:
		return fmt.Errorf("there are %d draws; 1 to %d were asked for", d.N, n)
	case len(d.State) > MaxState:
		return fmt.Errorf("the state has %d bytes; the limit is %d", len(d.State), MaxState)
	}
	return nil
}

// Checked returns the error made safe: a known class and code, and sentences that can be logged. A refusal without a
// known code, and an error of no known class, become Transient: nonsense never worsens a verdict.
func (e *Error) Checked() *Error {
	out := &Error{Class: e.Class, Code: e.Code, Reason: sentence(e.Reason), Hint: sentence(e.Hint),
		SystemCode: word(e.SystemCode),
		RetryAfter: max(0, min(e.RetryAfter, MaxRetryAfter))}
	if e.Elsewhere != nil && e.SystemCode == SystemFull {
		n := min(max(0, e.Elsewhere.Out), enforcer.MaxN)
		out.Elsewhere = &Elsewhere{Out: n, Idle: min(max(0, e.Elsewhere.Idle), n), Rule: word(e.Elsewhere.Rule)}
	}
	if out.Reason == "" {
		out.Reason = "no reason was given"
	}
	switch {
	case e.Class == Refused && slices.Contains(RefusalCodes(), e.Code):
	case e.Class == Transient, e.Class == Misconfigured:
		out.Code = ""
	default:
		out.Class, out.Code = Transient, ""
		out.Reason = "the answer has no known class or code: " + out.Reason
	}
	if out.Class != Transient {
		out.RetryAfter = 0
	}
	return out
}

// sentence makes a text safe to log and show: UTF-8, one line, not longer than maxReason.
func sentence(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, clip(s, maxReason))
	return strings.TrimSpace(s)
}

// word makes a system's own code safe.
func word(s string) string { return clip(sentence(s), maxWord) }

// clip shortens a text to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
