//go:build !linux

package external

import (
	"os"
	"os/exec"
)

// runnable names the file. Only Linux can run the very file that was opened; elsewhere the permissions of its folder
// must do.
func runnable(path string, _ *os.File) string { return path }

// contain does nothing here: a plugin ends with the agent because its standard input does.
func contain(*exec.Cmd) {}

func reap(int) {}

func killGroup(p *os.Process) { _ = p.Kill() }
