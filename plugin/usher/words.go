package usher

import (
	"fmt"
	"slices"
)

// meant are the claims behind words of people and of the command that signs.
var meant = map[string]string{"limit": "pools", "limits": "pools", "slots": "pools", "meter": "pools", "expires": "exp",
	"expiry": "exp", "customer": "licensee", "id": "jti", "issuer": "iss", "issued": "iat", "not_before": "nbf",
	"grace": "grace_seconds", "trial": "trial_seconds"}

// suggestion names the known claim that is most like a name.
func suggestion(name string) string {
	if claim := meant[name]; slices.Contains(claimNames, claim) {
		return fmt.Sprintf("; did you mean %q?", claim)
	}
	best, least := "", 3
	for _, n := range claimNames {
		if d := distance(name, n); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance of two short texts.
func distance(a, b string) int {
	if len(a) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last, row[j+1] = row[j+1], min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
