package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/usher-agent/usher/plugin/textual"
)

// places is where the host's files are.
type places struct {
	root, proc, sys, etc string
	ownProc, ownSys      string // this process's own, whatever HOST_PROC and HOST_SYS say
	real                 bool   // the files are this kernel's, not a test's
	hostEtc              bool   // etc is the host's although this is a container
}

func placesOf(root string) places {
	if root != "" {
		p := places{root: root, proc: filepath.Join(root, "proc"), sys: filepath.Join(root, "sys"),
			etc: filepath.Join(root, "etc")}
		p.ownProc, p.ownSys = p.proc, p.sys
		return p
	}
	return places{root: "/", proc: cmp.Or(textual.Value(os.Getenv("HOST_PROC")), "/proc"),
		sys:     cmp.Or(textual.Value(os.Getenv("HOST_SYS")), "/sys"),
		etc:     cmp.Or(textual.Value(os.Getenv("HOST_ETC")), "/etc"),
		ownProc: "/proc", ownSys: "/sys", real: true, hostEtc: textual.Value(os.Getenv("HOST_ETC")) != ""}
}

// context tells gopsutil where the files are.
func (p places) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, common.EnvKey,
		common.EnvMap{common.HostProcEnvKey: p.proc, common.HostSysEnvKey: p.sys, common.HostEtcEnvKey: p.etc})
}

// maxRead bounds what is read of one file, in bytes.
const maxRead = 1 << 20

// read returns a small file's text without surrounding space.
func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRead))
	return strings.TrimSpace(string(b)), err
}

// reason says why a file could not be read.
func reason(path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return path + " is readable for root only"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no " + path
	}
	var e *fs.PathError
	if errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Sprintf("%s: %v", path, err)
}
