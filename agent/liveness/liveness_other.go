//go:build !linux

package liveness

import (
	"context"
	"net"
)

// Handle is of no process on this system.
type Handle struct{}

// Process returns none.
func (*Handle) Process() Process { return Process{} }

// Path returns the connection.
func (*Handle) Path() Path { return PathConnection }

// Close does nothing.
func (*Handle) Close() error { return nil }

// FromConn is [ErrUnsupported].
func FromConn(*net.UnixConn, *Sent) (*Handle, error) { return nil, ErrUnsupported }

// Sent is a pidfd that came with a connection; this system has none.
type Sent struct{}

// SentSpace is no room at all.
const SentSpace = 0

// WantsSent is false.
func WantsSent() bool { return false }

// ReceiveSent finds none.
func ReceiveSent([]byte) *Sent { return nil }

// Close does nothing.
func (*Sent) Close() error { return nil }

// FromPID is [ErrUnsupported].
func FromPID(int32, uint64) (*Handle, error) { return nil, ErrUnsupported }

// FromPIDFD is [ErrUnsupported]: this system has no pidfds, and nothing to close.
func FromPIDFD(int) (*Handle, error) { return nil, ErrUnsupported }

// Share is [ErrUnsupported].
func (*Handle) Share() (*Handle, error) { return nil, ErrUnsupported }

// Lend is [ErrUnsupported].
func (*Handle) Lend(func(int)) error { return ErrUnsupported }

// Handle is [ErrUnsupported].
func (*Sent) Handle() (*Handle, error) { return nil, ErrUnsupported }

// Owner is [ErrUnsupported].
func (*Handle) Owner() (Owner, error) { return Owner{}, ErrUnsupported }

// Numbers knows none.
func Numbers(int32, uint64) []int32 { return nil }

// FromKept is [ErrUnsupported].
func FromKept(int, Path) (*Handle, error) { return nil, ErrUnsupported }

// SendPIDFD is [ErrUnsupported], and writes nothing.
func SendPIDFD(*net.UnixConn, []byte) error { return ErrUnsupported }

// ReceivePIDFD finds none.
func ReceivePIDFD([]byte) (int, bool) { return -1, false }

// Find knows nothing of any process.
func Find(Process) (*Handle, State) { return nil, Unknown }

// Supported offers nothing.
func Supported() Support { return Support{} }

// Watcher watches nothing on this system.
type Watcher struct{}

// Watch is of nothing.
type Watch struct{}

// NewWatcher returns a watcher that calls nobody.
func NewWatcher() (*Watcher, error) { return &Watcher{}, nil }

// Watch is [ErrUnsupported].
func (*Watcher) Watch(*Handle, func()) (*Watch, error) { return nil, ErrUnsupported }

// Stop does nothing.
func (*Watch) Stop() {}

// Close does nothing.
func (*Watcher) Close() {}

// Run waits until ctx ends.
func (*Watcher) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Len returns 0.
func (*Watcher) Len() int { return 0 }
