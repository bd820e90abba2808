package elastic

import (
	"slices"
	"strings"
)

// The types that the code asks for.
const (
	typeBasic           = "basic"
	typeEnterprise      = "enterprise"
	typeEnterpriseTrial = "enterprise_trial"
	typeEnterpriseOld   = "enterprise-trial" // what the type was written as before
)

// The tiers that stand outside of the order.
const (
	tierTrial   = "trial"   // opens all
	tierMissing = "missing" // opens nothing
)

// Tiers returns the tiers of a licence from the lowest. A trial opens them all.
func Tiers() []string { return []string{"basic", "standard", "gold", "platinum", "enterprise"} }

// tierOf returns the tier that a type means, old names included; empty: there is no such type.
func tierOf(typ string) string {
	switch t := strings.ToLower(typ); t {
	case "basic", "standard", "gold", "platinum", "enterprise", tierTrial, tierMissing:
		return t
	case "silver":
		return "gold"
	case "dev", "development", "none", typeEnterpriseTrial, typeEnterpriseOld:
		return tierTrial
	case "internal", "cloud_internal":
		return "platinum"
	default:
		return ""
	}
}

// rank orders tiers: a greater one opens more. A trial opens as much as the highest.
func rank(tier string) int {
	if tier == tierTrial {
		return len(Tiers())
	}
	return slices.Index(Tiers(), tier) + 1
}

// orchestrates reports whether a type is one of orchestration licences.
func orchestrates(typ string) bool {
	return typ == typeEnterprise || typ == typeEnterpriseTrial || typ == typeEnterpriseOld
}
