//go:build !linux

package systemd

import (
	"context"
	"io/fs"
	"log/slog"
	"os"

	"github.com/usher-agent/usher/agent/liveness"
)

// Store keeps nothing on this system: there is no service manager for it.
type Store struct{}

// OpenStore has nothing to take on this system.
func OpenStore(*slog.Logger) *Store { return &Store{} }

// Idle reports that there is no service manager.
func (*Store) Idle() bool { return true }

// Socket returns nil.
func (*Store) Socket(fs.FileInfo) *os.File { return nil }

// Activated returns nil.
func (*Store) Activated(string) *os.File { return nil }

// Settle does nothing.
func (*Store) Settle() {}

// Keep reports that nothing is kept.
func (*Store) Keep(string, Kept) bool { return false }

// KeepHolder keeps nothing.
func (*Store) KeepHolder(*liveness.Handle, int32, uint64, uint64) string { return "" }

// Drop does nothing.
func (*Store) Drop(string) {}

// Run waits until ctx ends.
func (*Store) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close does nothing.
func (*Store) Close() {}

// Holders returns none.
func (*Store) Holders() map[Process]*liveness.Handle { return nil }

// SocketName returns no name: nothing is kept.
func SocketName(fs.FileInfo) string { return "" }
