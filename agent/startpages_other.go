//go:build !linux

package agent

import "runtime/debug"

func dropStartPages() error {
	debug.FreeOSMemory()
	return nil
}
