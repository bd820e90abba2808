package oldkernel

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

type refusal struct {
	call   uintptr
	option uint32 // of getsockopt; 0: whatever its argument
	errno  unix.Errno
}

var (
	noPeerPIDFD = refusal{unix.SYS_GETSOCKOPT, 77, unix.ENOPROTOOPT}
	noPIDFS     = refusal{unix.SYS_FSTATFS, 0, unix.ENOSYS} // a file system other than pidfs looks like that too
	noHandles   = refusal{unix.SYS_NAME_TO_HANDLE_AT, 0, unix.EOPNOTSUPP}
	noPIDFD     = refusal{unix.SYS_PIDFD_OPEN, 0, unix.ENOSYS}
)

// releases lists what each release does not have.
var releases = map[string][]refusal{
	"4.18": {noPeerPIDFD, noPIDFS, noHandles, noPIDFD},
	"6.1":  {noPeerPIDFD, noPIDFS, noHandles},
	"6.6":  {noPIDFS, noHandles},
	"6.12": {noHandles},
}

// Main becomes the program that the arguments name, if the environment says so. Call it from an init function of a
// test.
func Main() {
	release := os.Getenv(Env)
	if release == "" {
		return
	}
	runtime.LockOSThread() // the filter is the thread's, which becomes the process
	if err := pretend(release); err != nil {
		fmt.Fprintln(os.Stderr, "pretend Linux", release+":", err)
		os.Exit(77)
	}
	os.Unsetenv(Env)
	fmt.Fprintln(os.Stderr, unix.Exec(os.Args[1], os.Args[1:], os.Environ()))
	os.Exit(77)
}

// pretend makes the thread, and the program that it becomes, see an older kernel.
func pretend(release string) error {
	const nr, option = 0, 16 + 2*8 // offsets in struct seccomp_data (little-endian)
	refusals, ok := releases[release]
	if !ok {
		return fmt.Errorf("this release is not known")
	}
	var f []unix.SockFilter
	for _, r := range refusals {
		answer := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x50000 | uint32(r.errno)} // SECCOMP_RET_ERRNO
		f = append(f, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr})
		if r.option == 0 {
			f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(r.call), Jf: 1},
				answer)
			continue
		}
		f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(r.call), Jf: 3},
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: option},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.option, Jf: 1}, answer)
	}
	f = append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}) // SECCOMP_RET_ALLOW
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err !=
		nil {
		return err
	}
	runtime.KeepAlive(f)
	return nil
}
