//go:build !linux && !darwin

package journal

import (
	"path/filepath"
	"strings"
)

// remoteKind returns the kind of network file system that dir is on; empty: on none that is known. Only a share's path
// tells on this system.
func remoteKind(dir string) string {
	if strings.HasPrefix(filepath.VolumeName(dir), `\\`) {
		return "a share"
	}
	return ""
}
