// Package doctor looks for what keeps an agent from its work, with and without a running agent, and puts the cause
// before what follows from it. It changes nothing.
//
// [Codes] has everything that it can find. Start reading at [Examine].
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/cmd/usher/internal/instance"
)

// Result says how much a finding matters.
type Result string

// The results, the worst first.
const (
	Bad     Result = "bad"     // it keeps the agent, the licence or callers from working
	Warning Result = "warning" // it will, or it may
	Unknown Result = "unknown" // this user may not look
	OK      Result = "ok"
)

// order is that of [Result] in a report.
var order = []Result{Bad, Warning, Unknown, OK}

// Finding is the result of one check.
type Finding struct {
	Code   string `json:"code"`  // one of [Codes]; ok: nothing is wrong
	Check  string `json:"check"` // what was looked at
	Result Result `json:"result"`
	Detail string `json:"detail"`         // the cause, one sentence
	Hint   string `json:"hint,omitempty"` // the mend
	// Place is where the configuration has what is at fault, as "usher.yaml:12"; empty: it has not, or no one place.
	Place string `json:"place,omitempty"`
}

// String returns the finding as one line.
func (f Finding) String() string {
	text := fmt.Sprintf("%-8s", f.Result)
	if f.Code != codeOK {
		text += f.Code + " "
	}
	return text + f.Check + ": " + f.Sentence()
}

// Sentence returns the place, the cause and the mend.
func (f Finding) Sentence() string {
	text := f.Detail
	if f.Place != "" {
		text = f.Place + ": " + text
	}
	if f.Hint != "" {
		text += "; " + f.Hint
	}
	return strings.ReplaceAll(text, "\n", "; ")
}

// Options says what to examine.
type Options struct {
	Version string // of this command
	Socket  string // of the agent; empty: the configured one
	Usual   string // socket, where there is no configuration either
	// Load reads the configuration as `agent --check` does.
	Load func() (*config.Config, error)
	File string         // the configuration file; empty: none
	Unit *instance.Unit // of the agent; nil: none is known
	// Template is the unit file of which instances are made; empty: there is none.
	Template string
	// Exported is the socket of the variable USHER_SOCKET, where that decides; empty: it does not.
	Exported string
	// As is the product's user, by name or number, as which the socket is tried; empty: this process's.
	As     string
	Now    func() time.Time // nil: time.Now
	Within time.Duration    // how long to wait for each answer; zero: 5 s
}

// exam is an examination under way.
type exam struct {
	Options
	ctx    context.Context
	cfg    *config.Config // nil: it cannot be read
	client *client.Client
	agent  account       // as which the agent runs
	env    []string      // of the agent, as far as it is known: KEY=VALUE
	pid    int           // of the agent; 0: none answers, or it is not known
	up     bool          // an agent answers
	said   *wire.License // by the agent; nil: nothing
	found  []Finding
	// inFleet says that the agent is a member of a fleet, and takes slots from it.
	inFleet bool
}

// Examine looks at everything, and returns the findings, the worst first and causes before what follows from them.
func Examine(ctx context.Context, o Options) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Within == 0 {
		o.Within = 5 * time.Second
	}
	e := &exam{Options: o, ctx: ctx}
	e.configuration()
	socket := cmp.Or(o.Socket, o.Usual)
	if o.Socket == "" && e.cfg != nil {
		socket = e.cfg.Socket.Path
	}
	e.client = client.New(socket)
	defer e.client.Close()
	e.meet()
	if e.up && os.Geteuid() != 0 { // the agent has read it; that this user may not is no fault
		for i := range e.found {
			if f := &e.found[i]; f.Code == "CONFIG_UNREADABLE" && f.Result == Bad {
				f.Code, f.Result = "NOT_LOOKED_AT", Unknown
			}
		}
	}
	e.agent, e.env = e.agentUser(), e.environment()
	checks := []func(){e.relative, e.exported, e.named, e.folders, e.lock, e.socket, e.addresses, e.plugins, e.journals,
		e.kernel, e.descriptors, e.clock, e.host, e.upstreams, e.fleet, e.product, e.stopped}
	if e.up {
		checks[len(checks)-1] = e.running
	}
	for _, check := range append(checks, e.notifications) {
		check()
	}
	return sorted(e.found)
}

// OfConfiguration looks at what a good configuration names on this host: files, folders, the socket and addresses. It
// returns what an agent that starts with it would meet, and nothing of an agent that runs.
func OfConfiguration(ctx context.Context, o Options) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Within = time.Second
	e := &exam{Options: o, ctx: ctx}
	e.configuration()
	if e.cfg == nil {
		return nil
	}
	e.client = client.New(cmp.Or(o.Socket, e.cfg.Socket.Path))
	defer e.client.Close()
	e.meet()
	e.agent = e.agentUser()
	e.found = nil
	for _, check := range []func(){e.named, e.licencePath, e.folders, e.socket, e.addresses} {
		check()
	}
	return slices.DeleteFunc(sorted(e.found), func(f Finding) bool { return f.Result != Bad && f.Result != Warning })
}

func (e *exam) add(result Result, code, check, hint, format string, args ...any) {
	e.found = append(e.found, Finding{Code: code, Check: check, Result: result, Detail: fmt.Sprintf(format, args...),
		Hint: hint})
}

// from adds to the findings from n on where the configuration has their key.
func (e *exam) from(n int, key string) {
	for i := n; i < len(e.found); i++ {
		if f := &e.found[i]; f.Place == "" && f.Result != OK && e.cfg != nil {
			f.Place = e.cfg.Place(key)
		}
	}
}

func (e *exam) bad(code, check, hint, format string, args ...any) {
	e.add(Bad, code, check, hint, format, args...)
}

func (e *exam) warn(code, check, hint, format string, args ...any) {
	e.add(Warning, code, check, hint, format, args...)
}

func (e *exam) ok(check, format string, args ...any) { e.add(OK, codeOK, check, "", format, args...) }

// notLooked says that this user may not look.
func (e *exam) notLooked(check string, err error) {
	e.add(Unknown, "NOT_LOOKED_AT", check, "run the command as root, or as the agent's user", "%v", err)
}

// has reports whether there is a finding of a code.
func (e *exam) has(code string) bool {
	return slices.ContainsFunc(e.found, func(f Finding) bool { return f.Code == code && f.Result != OK })
}

// sorted puts findings into the order of a report. A warning that explains something bad is bad, names it, and comes
// before it.
func sorted(found []Finding) []Finding {
	place := map[string]int{} // of codes that come earlier than [Codes] has them
	for _, effect := range slices.Clone(found) {
		if effect.Result != Bad {
			continue
		}
		for i, f := range found {
			if f.Result == Warning && slices.Contains(explained[effect.Code], f.Code) {
				found[i].Result = Bad
				found[i].Detail += " (and so " + effect.Check + ": " + effect.Detail + ")"
				place[f.Code] = min(rank(f.Code), rank(effect.Code)-1)
			}
		}
	}
	at := func(f Finding) int {
		if i, ok := place[f.Code]; ok {
			return i
		}
		return rank(f.Code)
	}
	slices.SortStableFunc(found, func(a, b Finding) int {
		if c := slices.Index(order, a.Result) - slices.Index(order, b.Result); c != 0 {
			return c
		}
		return at(a) - at(b)
	})
	return found
}

// rank is the place of a code among [Codes], with a place free before each: causes come first.
func rank(code string) int {
	if i := slices.IndexFunc(Codes, func(c Code) bool { return c.Code == code }); i >= 0 {
		return 2*i + 1
	}
	return 2*len(Codes) + 1
}

// HasBad reports whether a finding is bad.
func HasBad(found []Finding) bool {
	return slices.ContainsFunc(found, func(f Finding) bool { return f.Result == Bad })
}
