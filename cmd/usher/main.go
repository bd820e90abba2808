// Command usher is the licence sidecar: the agent, the commands that call it, and the vendor's signing tools.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/cmd/usher/internal/early"
	"github.com/usher-agent/usher/cmd/usher/internal/instance"
	"github.com/usher-agent/usher/plugin/textual"
)

// version is set by the linker: make build stamps it from git.
var version = "dev"

// The exit codes.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 64 // EX_USAGE; Go's runtime ends with 2 when it crashes
	exitNotValid  = 3
	exitAgentAway = 69 // EX_UNAVAILABLE of sysexits.h
	exitNoSlot    = 75 // EX_TEMPFAIL
	exitConfig    = 78 // EX_CONFIG
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole program, for tests too.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	ctx, stop := early.NotifyContext(os.Interrupt, syscall.SIGTERM)
	defer stop()
	said := &checked{Writer: out}
	out = naming.Writer(said)
	c := &cli{in: in, out: out, errs: naming.Writer(errs), childOut: said, childErrs: errs, stopSignals: stop,
		flush: func() {}, units: instance.Finder{Program: naming.Program()}}
	return c.execute(ctx, said, args)
}

// execute runs the command that the arguments name, and returns its exit code.
func (c *cli) execute(ctx context.Context, said *checked, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.errs)
	defer func() { c.flush() }()
	stop := c.endBySignal(ctx)
	ran, err := root.ExecuteContextC(ctx)
	c.ran = ran
	stop()
	if err == nil && said.err != nil {
		err = fmt.Errorf("standard output: %w", said.err)
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil { // a signal has ended it, and nothing is to be said of it
		return signalled(context.Cause(ctx))
	}
	return c.explain(err)
}

// endsWithin is for how long a command that a signal has come for may take to end by itself.
const endsWithin = time.Second

// endBySignal ends the program where a signal has come for it and it goes on: it reads a named pipe that nobody writes
// to, or a terminal at which somebody has forgotten to name a file. stop says that the command is over.
func (c *cli) endBySignal(ctx context.Context) (stop func() bool) {
	over, end := context.WithCancel(context.Background())
	stopped := context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		if cause.Error() == context.Canceled.Error() {
			return // no signal has come
		}
		select {
		case <-over.Done():
			return
		case <-time.After(endsWithin):
		}
		if !c.takesTime.Load() {
			os.Exit(signalled(cause))
		}
	})
	return func() bool { end(); return stopped() }
}

// signalled returns the exit code of a command that a signal has ended.
func signalled(cause error) int {
	if strings.Contains(cause.Error(), syscall.SIGTERM.String()) {
		return runSignalled + int(syscall.SIGTERM)
	}
	return runSignalled + int(syscall.SIGINT)
}

// checked is an output that remembers that it failed: what was not written was not said.
type checked struct {
	io.Writer
	err error
}

func (w *checked) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil && w.err == nil {
		w.err = err
	}
	return n, err
}

// cli is shared by all commands.
type cli struct {
	in        io.Reader
	out, errs io.Writer
	// childOut and childErrs are for a program that runs as a child: the same, with nothing put in its words.
	childOut, childErrs io.Writer
	socket              string
	timeout             time.Duration   // for which the agent may be silent
	instance            string          // --instance
	units               instance.Finder // of the host
	unit                *instance.Unit  // of the named instance; nil: none is named
	seek                func()          // sets the next two where no instance is named; nil: they stand
	unitSocket          string          // of the instance's agent; empty: as no instance is named
	unitFault           error           // what is amiss where no agent answers, and its mend; nil: nothing
	ran                 *cobra.Command  // nil: none has yet
	json                bool
	stopSignals         func()      // gives signals their default effect again
	takesTime           atomic.Bool // the command ends in order when a signal comes, and that takes time
	flush               func()      // writes what is left of the errors
}

// exit is an error that names its exit code; without a cause nothing is printed.
type exit struct {
	code  int
	cause error
	hint  string
}

func (e *exit) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.cause.Error()
}
func (e *exit) Unwrap() error { return e.cause }

func fail(code int, hint, format string, args ...any) error {
	return &exit{code, fmt.Errorf(format, args...), hint}
}

func usage(format string, args ...any) error { return fail(exitUsage, "", format, args...) }

// explain prints an error for people and returns the exit code.
func (c *cli) explain(err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	var e *exit
	var problem *client.Error
	var bad *config.Error
	switch {
	case errors.As(err, &e):
		code, hint = e.code, e.hint
		if e.cause == nil {
			return code
		}
	case errors.As(err, &problem):
		code, hint = codeOf(problem), problem.Hint
		gone := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
		if code == exitAgentAway {
			c.sought()
		}
		if code == exitAgentAway && c.unitFault != nil && gone && c.socket == "" {
			hint = c.unitFault.Error()
		}
	case errors.As(err, &bad):
		code = exitConfig
	case errors.Is(err, context.Canceled):
		return 128 + int(syscall.SIGINT)
	}
	said := func(text string) string { return text }
	if errors.As(err, &problem) { // the agent speaks of the fields of its API
		said = func(text string) string { return asTyped(c.ran, text) }
		hint = said(hint)
	}
	for _, line := range sentences(err) {
		fprintf(c.errs, "error: %s\n", said(line))
	}
	if problem != nil {
		c.nameHolders(problem.Holders)
	}
	if hint != "" {
		fprintf(c.errs, "hint: %s\n", hint)
	}
	return code
}

// sentences returns the lines of an error: one for each of several faults. What an agent or another program has said is
// one line, whatever is in it.
func sentences(err error) []string {
	text := strings.TrimSpace(err.Error())
	var said *client.Error
	if errors.As(err, &said) {
		return []string{text}
	}
	return strings.Split(text, "\n")
}

// codeOf returns the exit code for an agent's answer.
func codeOf(p *client.Error) int {
	switch client.Code(p.Code) {
	case client.ErrAgentAway, client.ErrDraining:
		return exitAgentAway
	case client.ErrNoSlots, client.ErrNotShared, client.ErrMeterEmpty, client.ErrRateLimited,
		client.ErrHeldOff:
		return exitNoSlot
	case client.ErrLicenseMissing, client.ErrLicenseInvalid, client.ErrLicenseExpired:
		return exitNotValid
	default:
		return exitFailed
	}
}

func (c *cli) client() *client.Client { return client.New(c.socketPath()).AnswerWithin(c.timeout) }

// sought looks for the host's only agent, once, where no other is named.
func (c *cli) sought() {
	if c.seek != nil {
		c.seek()
	}
}

// socketPath returns the path of the agent's socket.
func (c *cli) socketPath() string {
	c.sought()
	return cmp.Or(c.socket, c.unitSocket, textual.Value(os.Getenv("USHER_SOCKET")), naming.Socket())
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   naming.Program(),
		Short: "A licence sidecar: drop a licence, get a slot",
		Long: `Usher stands beside a product. It verifies the licence file that an installer drops into a folder,
and hands out the slots that the licence grants on a local Unix socket.

New here? "usher demo" shows the whole story in a few seconds.`,
		SilenceUsage: true, SilenceErrors: true, Version: version,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetVersionTemplate(versionText() + "\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var value *pflag.InvalidValueError
		if errors.As(err, &value) {
			err = fmt.Errorf("--%s: %q is %s", value.GetFlag().Name, value.GetValue(), whatIsWrong(value))
		}
		hint := fmt.Sprintf("`%s --help` lists the flags", cmd.CommandPath())
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			if like := flagLike(cmd, unknown.GetSpecifiedName()); like != "" {
				hint = fmt.Sprintf("did you mean --%s?", like)
			}
		}
		return fail(exitUsage, hint, "%w", err)
	})
	root.PersistentFlags().StringVar(&c.socket, "socket", "",
		"the agent's socket (default USHER_SOCKET, else "+naming.Socket()+")")
	root.PersistentFlags().StringVar(&c.instance, "instance", "",
		"the instance, as usher@NAME.service names it (default "+instance.Variable+", else the only one)")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := noEmptyFlags(cmd); err != nil {
			return err
		}
		return c.findInstance(cmd)
	}
	spanVar(root.PersistentFlags(), &c.timeout, "timeout", answerWithin, time.Millisecond,
		"how long the agent may take to answer")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print the API's JSON")
	groups := []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"daemon", "The agent:", []*cobra.Command{c.agentCommand(), c.demoCommand(), c.healthCommand(),
			c.checkCommand(), c.reloadCommand(), c.policiesCommand(), c.drainCommand(), c.configCommand(),
			c.fleetCommand(),
			c.upstreamCommand()}},
		{"look", "Reports:", []*cobra.Command{c.statusCommand(), c.poolsCommand(), c.leasesCommand(),
			c.topCommand(), c.reportCommand(), c.eventsCommand(), c.doctorCommand(), c.bundleCommand()}},
		{"slots", "Slots:", []*cobra.Command{c.runCommand(), c.acquireCommand(), c.renewCommand(), c.releaseCommand(),
			c.drawCommand(), c.adjustCommand()}},
		{"license", "Licences:",
			[]*cobra.Command{c.licenseCommand(), c.emergencyCommand(), c.fingerprintCommand(), c.hostCommand(),
				c.importOptionsCommand(), c.vendorCommand()}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.id
			root.AddCommand(cmd)
		}
	}
	root.AddCommand(c.manCommand(root))
	root.SetHelpCommand(c.helpCommand(root))
	strictArgs(root)
	helpPage(root)
	c.complete(root)
	statedOnce(root)
	name(root)
	return root
}

// name puts the program's name into the texts of a command and of those below it.
func name(cmd *cobra.Command) {
	for _, text := range []*string{&cmd.Use, &cmd.Short, &cmd.Long, &cmd.Example} {
		*text = naming.Text(*text)
	}
	for _, flags := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) { f.Usage = naming.Text(f.Usage) })
	}
	for _, sub := range cmd.Commands() {
		name(sub)
	}
}

// whatIsWrong explains why a flag rejects a value.
func whatIsWrong(e *pflag.InvalidValueError) string {
	var says rangeError
	switch kind := e.GetFlag().Value.Type(); {
	case errors.As(e, &says):
		return says.Error()
	case errors.Is(e, strconv.ErrRange):
		return "out of range"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "not a whole number"
	case strings.HasPrefix(kind, "float"):
		return "not a number"
	case kind == "bool":
		return "neither true nor false"
	default:
		return "not a " + kind
	}
}

// strictArgs makes wrong arguments and unknown subcommands usage errors.
func strictArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if check(cmd, args) == nil {
				return nil
			}
			if len(args) > 0 && cmd.HasSubCommands() && len(cmd.SuggestionsFor(args[0])) > 0 {
				return unknownCommand(cmd, args[0])
			}
			hint := "usage: " + strings.TrimSuffix(cmd.UseLine(), " [flags]")
			for n := range args {
				if check(cmd, args[:n]) == nil {
					return fail(exitUsage, hint, "%s takes no argument %q", cmd.CommandPath(), args[n])
				}
			}
			return fail(exitUsage, hint, "%s lacks an argument", cmd.CommandPath())
		}
	} else if cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		}
		if cmd.RunE == nil {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	cmd.SuggestionsMinimumDistance = 2
	for _, sub := range cmd.Commands() {
		strictArgs(sub)
	}
}

// commit returns the revision that the binary was built from.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

func versionText() string {
	s := naming.Program() + " " + version
	if rev := commit(); rev != "" {
		s += " (" + rev[:min(12, len(rev))] + ")"
	}
	return s + " anchors=" + anchorsFrom()
}
