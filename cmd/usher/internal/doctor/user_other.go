//go:build !linux

package doctor

import (
	"fmt"
	"io/fs"
)

// asUser is there for Linux alone.
func asUser(account, func()) error { return errOther }

func ownerOf(fs.FileInfo) int { return -1 }

func (e *exam) ownerOfAgent() (int, bool) { return 0, false }

func writable(string) error { return nil }

// room is the free room of a file system.
type room struct{ free, total, files, nodes uint64 }

func roomOf(string) (room, error) { return room{}, fmt.Errorf("the room is not known here") }

func holder(string) int { return 0 }

func programOf(pid int) string { return fmt.Sprintf("pid %d", pid) }

func listener(int) int { return 0 }
