//go:build !linux

package agent

import (
	"context"
	"io/fs"
	"log/slog"
	"os"

	"github.com/usher-agent/usher/agent/liveness"
)

// handover keeps nothing here: there is no service manager that would.
type handover struct{ idle bool }

type kept struct {
	lend  func(use func(fd int)) error
	close func()
}

type inheritedHolder struct{ handle *liveness.Handle }

func newHandover(*slog.Logger) *handover { return &handover{idle: true} }

func (*handover) socket(fs.FileInfo) *os.File { return nil }

func (*handover) settle() {}

func (*handover) keep(string, kept) bool { return false }

func (*handover) drop(string) {}

func (*handover) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (*handover) close() {}

func (*handover) holders() map[process]inheritedHolder { return nil }

func pidfdName(liveness.Path, process) string { return "" }

func socketName(fs.FileInfo) string { return "" }
