//go:build !linux

package watch

// fsKind knows no remote file system on this system. The poll sees changes made elsewhere.
func fsKind(string) (kind string, remote bool) { return "", false }
