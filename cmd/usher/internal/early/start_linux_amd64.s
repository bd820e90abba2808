#include "textflag.h"

// func start()
//
// It is the program's entry where the linker is told so. It notes which signals the program was started to ignore
// and to block, before Go's runtime takes them over, and goes on with the runtime's own entry.
TEXT ·start(SB),NOSPLIT|NOFRAME,$0
	MOVQ	$1, R12 // the signal
	XORQ	R13, R13 // the ignored ones, signal n as bit n-1
next:
	MOVQ	$13, AX // rt_sigaction(2): read what is set
	MOVQ	R12, DI
	XORQ	SI, SI
	LEAQ	·action(SB), DX
	MOVQ	$8, R10
	SYSCALL
	TESTQ	AX, AX
	JNE	after
	CMPQ	·action(SB), $1 // SIG_IGN
	JNE	after
	MOVQ	R12, CX
	DECQ	CX
	MOVQ	$1, AX
	SHLQ	CX, AX
	ORQ	AX, R13
after:
	INCQ	R12
	CMPQ	R12, $64
	JLE	next
	MOVQ	R13, ·inherited(SB)
	MOVQ	$14, AX // rt_sigprocmask(2): read what is blocked
	XORQ	DI, DI
	XORQ	SI, SI
	LEAQ	·blocked(SB), DX
	MOVQ	$8, R10
	SYSCALL
	MOVQ	$1, ·noted(SB)
	XORQ	DX, DX
	JMP	_rt0_amd64_linux(SB)
