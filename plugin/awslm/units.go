package awslm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Kind is the kind of an entitlement, by its unit.
type Kind string

// The kinds of entitlements.
const (
	KindSlots   Kind = "slots"   // Count: taken, and given back if AllowCheckIn is set
	KindAmount  Kind = "amount"  // bytes, bits, seconds: consumed
	KindRate    Kind = "rate"    // per second, percent: a limit to read, not to take
	KindFeature Kind = "feature" // None: there or not
)

// The units with a meaning of their own.
const (
	UnitCount = "Count"
	UnitNone  = "None"
)

var amounts = []string{"Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes",
	"Terabytes", "Bits", "Kilobits",
	"Megabits", "Gigabits", "Terabits"}

// KindOf returns the kind of entitlements with a unit; empty: it is none of the API's 27 units.
func KindOf(unit string) Kind {
	base, rate := strings.CutSuffix(unit, "/Second")
	switch {
	case unit == UnitCount:
		return KindSlots
	case unit == UnitNone:
		return KindFeature
	case unit == "Percent", rate && base == UnitCount, rate && slices.Contains(amounts[3:], base):
		return KindRate
	case slices.Contains(amounts, unit):
		return KindAmount
	}
	return ""
}

// zoneless is the form of times without a zone.
const zoneless = "2006-01-02T15:04:05"

// LocalTime writes a time as CheckoutLicense and CheckoutBorrowLicense do: UTC, without a zone.
func LocalTime(t time.Time) string { return t.UTC().Format(zoneless) }

// ZonedTime writes a time as ExtendLicenseConsumption and the licences do: RFC 3339.
func ZonedTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ParseTime reads both forms of times. One without a zone is UTC. An empty text alone is the zero time.
func ParseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339Nano, zoneless, "2006-01-02T15:04Z07:00", "2006-01-02T15:04"} {
		if t, err := time.Parse(form, s); err == nil {
			return plugin.Stated(t.UTC()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time in ISO 8601", plugin.Short(s))
}

// parsed is ParseTime with the zero time for an unreadable text.
func parsed(s string) time.Time {
	t, err := ParseTime(s)
	if err != nil {
		return time.Time{}
	}
	return t
}
