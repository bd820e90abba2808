package early

import (
	"os/signal"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What start notes. Go's runtime puts its own handlers in the place of an inherited SIG_IGN, except for SIGHUP and
// SIGINT, before any Go code runs; see [os/signal]. So the entry of the program is start (start_linux_amd64.s), where
// the linker is told so: make build does with -E.
var (
	action    [4]uint64 // the kernel's struct sigaction; its first word is the handler
	inherited uint64    // the ignored signals: bit n-1 is signal n
	blocked   uint64    // the blocked signals, likewise
	noted     uint64    // 1: start has run
	hushed    uint64    // 1: start has SIGHUP ignored, which was not
)

// ignore is the struct sigaction of a signal that is ignored: SIG_IGN.
var ignore = [4]uint64{1}

// start is the entry; nobody calls it.
func start()

var _, _, _ = start, &action, &ignore // the linker and start itself refer to them

// PassOn sets the signals to be ignored and blocked that this process was started to ignore and to block, for the
// program that the caller's thread becomes at once.
func PassOn() {
	if noted == 0 {
		return
	}
	runtime.LockOSThread()
	ignored, _ := Inherited()
	for _, s := range ignored {
		signal.Ignore(s)
	}
	mask := unix.Sigset_t{}
	mask.Val[0] = blocked
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil) // it fails for arguments that are wrong alone
}

// heedHangUp gives SIGHUP back its usual effect, to end the program, where start has it ignored.
func heedHangUp() {
	if hushed != 1 {
		return
	}
	var usual [4]uint64 // SIG_DFL
	// It fails for arguments that are wrong alone.
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGHUP),
		uintptr(unsafe.Pointer(&usual)), 0, 8, 0, 0)
}

// Inherited returns the signals that this process was started to ignore, and whether that is known of all signals.
func Inherited() (ignored []syscall.Signal, known bool) {
	for n := range 64 {
		if inherited&(1<<n) != 0 {
			ignored = append(ignored, syscall.Signal(n+1))
		}
	}
	return ignored, noted == 1
}
