package enforcer

import "fmt"

// Versions is the versions of a product that a licence covers.
type Versions struct{ only string }

// ParseVersions reads a single version.
func ParseVersions(s string) (Versions, error) {
	if s == "" || len(s) > 256 {
		return Versions{}, fmt.Errorf("no version")
	}
	return Versions{s}, nil
}

// Covers reports whether version is covered.
func (v Versions) Covers(version string) (bool, error) { return v.only == version, nil }
