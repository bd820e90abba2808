package awslm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

const (
	// overage is the number of slots or draws beyond MaxCount that an entitlement with Overage gives. AWS sets no
	// bound, and the core can share out only a bounded number.
	overage = 1_000_000
	// usualTTL is how long a provisional checkout lasts by default: that of AWS Marketplace.
	usualTTL = time.Hour
	// usualGrace is how long a licence stays good after its check-in was due, unless the seller sets GraceKey.
	usualGrace = 24 * time.Hour
	maxGrace   = 366 * 24 * time.Hour
)

// The terms that a seller may set in a licence's metadata (LicenseMetadata), beyond those of License Manager.
const (
	GraceKey    = "usher.grace"     // a span such as 36h: how long the licence stays good without an answer of AWS
	OnExpiryKey = "usher.on_expiry" // drain, revoke or keep
)

// TermName returns the name of an entitlement's pool, meter or feature. It is the entitlement's own name if it has only
// letters, digits, and . _ : / - and at most 64 of them. Otherwise, - stands for other characters, and six digits of a
// hash follow.
func TermName(entitlement string) string {
	letter := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	}
	clean := strings.Map(func(r rune) rune {
		if letter(r) || strings.ContainsRune("._:/-", r) {
			return r
		}
		return '-'
	}, entitlement)
	clean = strings.TrimLeft(clean, "._:/-")
	if clean == entitlement && clean != "" && len(clean) <= 64 {
		return clean
	}
	sum := sha256.Sum256([]byte(entitlement))
	if clean == "" {
		clean = "x"
	}
	return clean[:min(len(clean), 64-7)] + "-" + hex.EncodeToString(sum[:3])
}

// isPool and isMeter tell the kind of a received licence's entitlement: slots come back, other counts are consumed.
func (e *Entitlement) isPool() bool { return KindOf(e.Unit) == KindSlots && e.AllowCheckIn }

func (e *Entitlement) isMeter() bool {
	k := KindOf(e.Unit)
	return k == KindAmount || k == KindSlots && !e.AllowCheckIn
}

// find returns the entitlement of a pool or meter; nil: there is none.
func (l *License) find(term string, is func(*Entitlement) bool) *Entitlement {
	for i := range l.Entitlements {
		if e := &l.Entitlements[i]; is(e) && TermName(e.Name) == term {
			return e
		}
	}
	return nil
}

// TTL returns the longest time of a provisional checkout.
func (l *License) TTL() time.Duration {
	if p := l.ConsumptionConfiguration.ProvisionalConfiguration; p != nil && p.MaxTimeToLiveInMinutes > 0 {
		return minutes(p.MaxTimeToLiveInMinutes)
	}
	return usualTTL
}

func minutes(n int64) time.Duration { return time.Duration(min(n, 100*366*24*60)) * time.Minute }

// terms turns AWS's licence into one of the core. issued is the time of AWS's statement.
func (l *License) terms(issued time.Time, all map[string]any) (*enforcer.License, error) {
	if arn(l.LicenseArn) != nil {
		return nil, errors.New("its LicenseArn is not that of a licence")
	}
	if l.ProductSKU == "" || l.Issuer.KeyFingerprint == "" {
		return nil, errors.New("its ProductSKU or its issuer's KeyFingerprint is missing")
	}
	out := &enforcer.License{ID: l.LicenseArn, System: System, Product: l.ProductSKU, Licensee: l.Beneficiary,
		Issuer: l.Issuer.Name, Issued: issued, Terms: all,
		SystemCode: l.Status, KeyID: l.Issuer.KeyFingerprint}
	var err error
	if out.NotBefore, err = ParseTime(l.Validity.Begin); err == nil {
		out.Expires, err = ParseTime(l.Validity.End)
	}
	if err != nil {
		return nil, fmt.Errorf("its validity: %w", err)
	}
	switch l.Status {
	case StatusAvailable:
	case "DELETED", "PENDING_DELETE":
		out.Revoked = true
	case "EXPIRED":
		out.Suspended = out.Expires.IsZero() || out.Expires.After(issued) // its End is more precise
	default:
		out.Suspended = true
	}
	if r := l.ReceivedMetadata; r != nil && r.ReceivedStatus != "" && r.ReceivedStatus != ReceivedActive {
		out.Suspended, out.SystemCode = true, r.ReceivedStatus
	}
	if err := l.metadata(out); err != nil {
		return nil, err
	}
	out.CheckIn.Every = max(l.TTL(), 5*time.Minute)
	return out, l.addEntitlements(out)
}

// metadata reads the seller's terms for Usher. An unreadable one is an error, because ignoring a span would change it.
func (l *License) metadata(out *enforcer.License) error {
	out.CheckIn.Grace = usualGrace
	for _, m := range l.LicenseMetadata {
		switch m.Name {
		case GraceKey:
			d, err := time.ParseDuration(m.Value)
			if err != nil || d < 0 || d > maxGrace {
				return fmt.Errorf("its metadata %s is %q, and must be a span such as 36h, at most a year", GraceKey,
					plugin.Short(m.Value))
			}
			out.CheckIn.Grace = d
		case OnExpiryKey:
			switch v := enforcer.OnExpiry(m.Value); v {
			case enforcer.Drain, enforcer.Revoke, enforcer.Keep:
				out.OnExpiry = v
			default:
				return fmt.Errorf("its metadata %s is %q, and must be drain, revoke or keep", OnExpiryKey,
					plugin.Short(m.Value))
			}
		}
	}
	return nil
}

// addEntitlements adds each entitlement by its unit. Counts belong to a whole site, and each agent takes what it needs:
// nothing ties a checkout to a host.
func (l *License) addEntitlements(out *enforcer.License) error {
	t := termSet{out, map[string]bool{}}
	for i := range l.Entitlements {
		e := &l.Entitlements[i]
		n := int64(0)
		if e.MaxCount != nil {
			n = *e.MaxCount
		}
		most, more := enforcer.Limit(min(n, int64(enforcer.MaxCount))), enforcer.Limit(0)
		if e.Overage {
			more = overage
		}
		if n < 0 {
			return fmt.Errorf("entitlement %q has a negative MaxCount", plugin.Short(e.Name))
		}
		name, err := t.name(e.Name)
		if err != nil {
			return err
		}
		switch {
		case e.isPool():
			out.Pools[name] = enforcer.PoolTerm{Max: most, Overage: more, Scope: enforcer.ScopeSite}
		case e.isMeter():
			out.Meters[name] = enforcer.MeterTerm{Max: most, Overage: more, Scope: enforcer.ScopeSite,
				Resets: l.resets(), Unit: unitWord(e.Unit)}
		case KindOf(e.Unit) == KindRate:
			out.Features[name] = enforcer.Value{Kind: enforcer.KindNumber, Number: float64(n), Unit: e.Unit}
		default: // None, and unknown units, which the raw terms keep
			if KindOf(e.Unit) == KindFeature {
				out.Features[name] = featureOf(e.Value)
			}
		}
	}
	return nil
}

// resets returns when the meters start again at zero; never for an unknown RenewType.
func (l *License) resets() enforcer.Resets {
	switch l.ConsumptionConfiguration.RenewType {
	case RenewWeekly:
		return enforcer.ResetsWeekly
	case RenewMonthly:
		return enforcer.ResetsMonthly
	}
	return enforcer.ResetsNever
}

// unitWord returns a unit for people; a Count has none.
func unitWord(unit string) string {
	if unit == UnitCount {
		return ""
	}
	return unit
}

// featureOf returns the value of an entitlement without a unit. It is on unless its value says that it is off.
func featureOf(value string) enforcer.Value {
	switch strings.ToLower(value) {
	case "", "enabled", "true":
		return enforcer.Value{Kind: enforcer.KindBool, Bool: true}
	case "disabled", "false":
		return enforcer.Value{Kind: enforcer.KindBool}
	}
	return enforcer.Value{Kind: enforcer.KindText, Text: value}
}

// termSet gives terms their names and rejects a name used twice.
type termSet struct {
	license *enforcer.License
	seen    map[string]bool
}

func (t *termSet) name(entitlement string) (string, error) {
	if t.license.Pools == nil {
		t.license.Pools, t.license.Meters, t.license.Features = map[string]enforcer.PoolTerm{},
			map[string]enforcer.MeterTerm{}, map[string]enforcer.Value{}
	}
	name := TermName(entitlement)
	if entitlement == "" || t.seen[name] {
		return "", fmt.Errorf("entitlement %q has no name, or the licence names it twice", plugin.Short(entitlement))
	}
	t.seen[name] = true
	return name, nil
}
