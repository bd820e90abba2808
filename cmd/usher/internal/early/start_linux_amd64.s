#include "textflag.h"

// func start()
//
// It is the program's entry where the linker is told so. It notes which signals the program was started to ignore
// and to block, before Go's runtime takes them over, and goes on with the runtime's own entry. First of all it has
// SIGHUP ignored where a word of the command line is "agent": Go's runtime leaves it so until somebody asks for it.
TEXT ·start(SB),NOSPLIT|NOFRAME,$0
	MOVQ	0(SP), R8 // argc
	LEAQ	8(SP), R9 // argv
	XORQ	R15, R15 // 1: the entry alone has SIGHUP ignored
word:
	ADDQ	$8, R9
	DECQ	R8
	JLE	note
	MOVQ	(R9), SI
	CMPL	(SI), $0x6e656761 // "agen"; strings follow that are longer
	JNE	word
	CMPW	4(SI), $0x74 // "t" and the end
	JNE	word
	MOVQ	$13, AX // rt_sigaction(2)
	MOVQ	$1, DI // SIGHUP
	LEAQ	·ignore(SB), SI
	LEAQ	·action(SB), DX
	MOVQ	$8, R10
	SYSCALL
	TESTQ	AX, AX
	JNE	note
	CMPQ	·action(SB), $1 // SIG_IGN
	JEQ	note
	MOVQ	$1, R15
	MOVQ	R15, ·hushed(SB)
note:
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
	XORQ	R15, R13 // SIGHUP is bit 0
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
