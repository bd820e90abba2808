package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// fixed returns the findings that hold at any instant.
func (j *judge) fixed(c *candidate) []Finding {
	return slices.Concat(j.issuerFindings(c), j.bindingFindings(c), j.capFindings(c), j.versionFindings(c))
}

// finding makes a finding of a licence, which its reason names.
func (c *candidate) finding(code Code, format string, args ...any) Finding {
	return Finding{code, fmt.Sprintf("licence %s: ", c.label()) + fmt.Sprintf(format, args...)}
}

// issuerFindings are about the product, the environment, and the words of the issuer and its upstream.
func (j *judge) issuerFindings(c *candidate) (out []Finding) {
	l := c.license
	if len(j.Products) > 0 && !slices.Contains(j.Products, l.Product) {
		out = append(out, c.finding(ProductMismatch,
			"it is for product %q, and this agent serves %s; install it where that product runs",
			l.Product, strings.Join(j.Products, ", ")))
	}
	if l.Revoked {
		out = append(out, c.finding(Revoked, "its issuer has revoked it; ask the vendor for another"))
	}
	if l.Banned {
		out = append(out, c.finding(Banned, "its issuer has banned it; ask the vendor"))
	}
	if l.Suspended {
		out = append(out, c.finding(Suspended, "its issuer has suspended it; ask the vendor"))
	}
	if code := c.up.Refused; code != "" && !c.paused() {
		out = append(out, c.finding(code, "the upstream says: %s",
			cmp.Or(c.up.RefusedReason, strings.ToLower(string(code)))))
	}
	if f, found := c.unproved(j.UpstreamLost); found {
		out = append(out, f)
	}
	if at := c.up.Released; !at.IsZero() {
		out = append(out, c.finding(HeartbeatNotStarted,
			"this host gave its place back on %s; `usher upstream call` takes one again", day(at)))
	}
	if l.IsTest() && j.Narrowing.RequireProduction {
		out = append(out, c.finding(TestLicense,
			"it is a test licence, and license.require_production is set; install a production licence"))
	}
	return out
}

// bindingFindings are about the host and the agent that the licence is bound to.
func (j *judge) bindingFindings(c *candidate) (out []Finding) {
	l := c.license
	if c.match.Bound && !c.match.OK {
		out = append(out, c.finding(FingerprintMismatch,
			"it is bound to another host: %d of %d components match (%s); have it bound to this host: `usher "+
				"fingerprint --request`",
			c.match.Matched, c.match.Of, strings.Join(c.match.Misses, "; ")))
	}
	if len(l.AgentKeys) > 0 && (j.AgentKey == "" || !slices.Contains(l.AgentKeys, j.AgentKey)) {
		out = append(out, c.finding(AgentKeyMismatch,
			"it is bound to another agent's key, and this one's is %s; have it bound again: `usher fingerprint "+
				"--request`", cmp.Or(j.AgentKey, "missing")))
	}
	if l.Trial > 0 && len(l.AgentKeys) == 0 {
		out = append(out, c.finding(AgentKeyMismatch,
			"it is a trial, and a trial must name the key of the agent that it is for; have it bound: `usher "+
				"fingerprint --request`"))
	}
	return out
}

// capFindings are about a host with more cores, memory or disk than the licence allows.
func (j *judge) capFindings(c *candidate) (out []Finding) {
	l := c.license
	if l.CoreCap != 0 && l.CoreCap != Unlimited {
		kind := orDefault(l.CoreKind, CoresPhysical)
		switch n := j.Host.Cores(kind); {
		case n == 0:
			out = append(out, c.finding(TooManyCores,
				"it allows %d %s cores, and this host's number of cores could not be read; mount /sys for the agent",
				l.CoreCap, kind))
		case !l.CoreCap.Covers(int64(n)):
			out = append(out, c.finding(TooManyCores,
				"it allows %d %s cores, and this host has %d; have it extended, or give the host fewer",
				l.CoreCap, kind, n))
		}
	}
	for _, x := range []struct {
		code Code
		what string
		cap  Limit
		has  int64
	}{{TooMuchMemory, "memory", l.MemoryCap, j.Host.Memory}, {TooMuchDisk, "disk", l.DiskCap, j.Host.Disk}} {
		switch {
		case x.cap == 0 || x.cap == Unlimited:
		case x.has == 0:
			out = append(out, c.finding(x.code,
				"it allows %d bytes of %[2]s, and this host's %[2]s could not be read", x.cap, x.what))
		case !x.cap.Covers(x.has):
			out = append(out, c.finding(x.code,
				"it allows %d bytes of %s, and this host has %d; have it extended, or give the host less",
				x.cap, x.what, x.has))
		}
	}
	return out
}

// versionFindings are about a product version or release that the licence does not cover.
func (j *judge) versionFindings(c *candidate) (out []Finding) {
	l := c.license
	if l.Versions != "" {
		switch covered, err := coversVersion(l.Versions, cmp.Or(j.Version, "0")); {
		case err != nil && j.Version == "":
			out = append(out, c.finding(Malformed,
				"its versions %q cannot be read: %v; ask the vendor for a corrected one", l.Versions, err))
		case err != nil:
			out = append(out,
				c.finding(VersionNotCovered, "it cannot be told whether it covers version %q: %v", j.Version, err))
		case j.Version != "" && !covered:
			out = append(out, c.finding(VersionNotCovered,
				"it covers versions %s, and the product is %s; have it extended", l.Versions,
				j.Version))
		}
	}
	if !l.ReleasedBefore.IsZero() && !j.Released.IsZero() && !j.Released.Before(l.ReleasedBefore) {
		out = append(out, c.finding(VersionNotCovered,
			"it covers releases before %s, and this one is of %s; have it extended",
			day(l.ReleasedBefore), day(j.Released)))
	}
	return out
}

func (c *candidate) label() string {
	if c.license == nil || c.license.ID == "" {
		return c.Name
	}
	if c.Name == "" {
		return c.license.ID
	}
	return c.license.ID + " (" + c.Name + ")"
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") + " UTC" }

// findings returns every finding on a document at an instant, and when its grace ends; zero: it is not in grace.
func (c *candidate) findings(now time.Time) (out []Finding, graceEnds time.Time) {
	out = slices.Clone(c.fixed)
	if l := c.license; l != nil {
		if now.Before(c.begins()) {
			out = append(out, c.notYet(now))
		}
		if at := c.clock.falls(l); !at.IsZero() && !now.Before(at) {
			out = append(out, Finding{ClockTampered, fmt.Sprintf("licence %s: %s", c.label(), c.clock.words())})
		}
		if l.Trial > 0 && c.seen.IsZero() {
			out = append(out, Finding{Preparing,
				fmt.Sprintf("licence %s: its trial begins when the agent has recorded its first use", c.label())})
		}
		var grace []Finding
		if c.paused() {
			grace = append(grace, Finding{ValidInGrace, c.pausedWords()})
		}
		emergency := c.emergency(now)
		for _, x := range c.lapses() {
			switch {
			case !now.Before(x.ends) && !emergency.IsZero():
				grace = append(grace, Finding{ValidInGrace,
					fmt.Sprintf("%s; an operator's emergency holds until %s", x.reason, minute(emergency))})
				graceEnds = sooner(graceEnds, emergency)
			case !now.Before(x.ends):
				out = append(out, Finding{x.code, x.reason})
			case !now.Before(x.due):
				grace = append(grace, Finding{ValidInGrace, x.late})
				graceEnds = sooner(graceEnds, x.ends)
			}
		}
		if len(out) == 0 {
			out = grace
		} else {
			graceEnds = zeroTime
		}
		if len(out) == 0 {
			out = []Finding{{Valid, "licence " + c.label() + c.validWords()}}
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Compare(a.Code.rank(), b.Code.rank()) })
	return out, graceEnds
}

// notYet is the finding on a document that begins later.
func (c *candidate) notYet(now time.Time) Finding {
	if l := c.license; now.Before(l.Issued) && !l.NotBefore.After(l.Issued) {
		return c.finding(NotYetValid,
			"it is dated %s, which has not come yet; it counts from then on, or ask the vendor "+
				"for one with the right date", minute(l.Issued))
	}
	return c.finding(NotYetValid, "it is good from %s on", minute(later(c.license.NotBefore, c.begins())))
}

// validWords describes a good licence, after its name.
func (c *candidate) validWords() string {
	switch at := c.expires(); {
	case c.license.Role == RoleNotice && len(c.license.Revokes) == 0:
		return " is a time document: it says that it is no earlier than " + minute(c.license.Issued) +
			", and grants nothing"
	case c.license.Role == RoleNotice:
		return " is a notice of " + plural(len(c.license.Revokes), "revoked licence") + ", and grants nothing"
	case at.IsZero():
		return " is valid and never expires"
	default:
		return " is valid until " + minute(at)
	}
}

// rank is the code's place in the order of precedence.
func (c Code) rank() int {
	if i := slices.Index(precedence, c); i >= 0 {
		return i
	}
	return len(precedence)
}
