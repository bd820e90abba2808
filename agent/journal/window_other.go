//go:build !linux

package journal

import (
	"errors"
	"os"
)

// windowOverlap is a multiple of every page's size.
const windowOverlap = 64 << 10

// window maps the end of a file into memory, where that is possible: not here.
type window struct{}

func inMemory(string) bool { return false }

func newWindow(File) *window { return nil }

func (w *window) room(int64, int) ([]byte, error) { return nil, nil }

func (w *window) close() {}

func mapToRead(*os.File, int64, int64) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) {}

// reserve would have room for n bytes of a file from an offset on: this system has no call for that.
func reserve(File, int64, int) error { return nil }
