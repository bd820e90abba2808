package api

import (
	"os"

	"golang.org/x/sys/unix"
)

// listenAgain makes the kernel tell callers that this process listens on a socket (SO_PEERCRED is that of the last
// listen(2); unix(7)): another has opened it, an earlier agent or the service manager. A kernel that refuses leaves it
// as it was.
func listenAgain(f *os.File) { _ = unix.Listen(int(f.Fd()), backlog) }

// backlog is the most connections that wait to be accepted; net.core.somaxconn limits it further.
const backlog = 4096
