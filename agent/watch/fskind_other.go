//go:build !linux

package watch

// fsKind knows no remote file system here; the poll sees what is changed elsewhere.
func fsKind(string) (kind string, remote bool) { return "", false }
