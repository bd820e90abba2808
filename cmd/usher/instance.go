package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/cmd/usher/internal/instance"
	"github.com/usher-agent/usher/plugin/textual"
)

// instanceHint is the mend of an instance that cannot be found.
const instanceHint = "--instance and " + instance.Variable + " name the unit's instance: acme for usher@acme.service"

// seekOnly finds the socket of the host's only agent, and what is amiss where there is none.
func (c *cli) seekOnly() {
	switch u, err := c.units.Only(); {
	case err == nil:
		c.unitSocket, c.unitFault = socketOf(u), errors.New(startIt(u))
	case !errors.Is(err, instance.ErrNone):
		c.unitFault = err
	case c.units.Template() != "":
		c.unitFault = errNoInstance
	}
}

// findInstance finds the instance that the flag or the variable names, and its socket. A flag is nearer than a
// variable, and a socket nearer than an instance.
func (c *cli) findInstance(cmd *cobra.Command) error {
	name := c.instance
	if name == "" && !isAgentItself(cmd) {
		name = textual.Value(os.Getenv(instance.Variable))
	}
	if name == "" {
		if c.socket == "" && os.Getenv("USHER_SOCKET") == "" && !isAgentItself(cmd) &&
			(isGone(naming.Socket()) || isStale(naming.Socket())) {
			c.seek = sync.OnceFunc(c.seekOnly) // most commands that ask no agent never need it
		}
		return nil
	}
	u, err := c.units.Find(name)
	if err != nil {
		return &exit{code: exitUsage, cause: err, hint: instanceHint}
	}
	c.unit = u
	if c.instance == "" && os.Getenv("USHER_SOCKET") != "" {
		return nil
	}
	c.unitSocket, c.unitFault = socketOf(u), errors.New(startIt(u))
	if known := c.units.Names(); u.Name != "" && !slices.Contains(known, u.Name) {
		c.unitFault = notStarted(u, known)
	}
	return nil
}

// errNoInstance is what is amiss on a host that has the package, and nothing more yet.
var errNoInstance = errors.New("there is no instance yet: write /etc/usher/NAME.yaml, and start it: " +
	"`systemctl enable --now usher@NAME.service`; docs/install.md has the steps")

// startIt is the mend where the agent of a unit does not run.
func startIt(u *instance.Unit) string {
	return "start it: `systemctl start " + u.Service + "`; `usher doctor` says what keeps it from that"
}

// notStarted says that an instance is neither enabled nor running, and which ones are.
func notStarted(u *instance.Unit, known []string) error {
	others := ""
	if len(known) > 0 {
		others = "; the instances of this host are " + strings.Join(known, ", ")
	}
	return fmt.Errorf("%s is not enabled and does not run%s; `systemctl enable --now %[1]s` starts it", u.Service,
		others)
}

// apart refuses an agent that would have the folder of the instances' folders for itself: it would close it to them.
func (c *cli) apart(cfg *config.Config) error {
	if !c.units.Lodges(cfg.State.Dir) {
		return nil
	}
	return fail(exitConfig, "start an instance: `systemctl enable --now usher@NAME.service`, with "+
		"/etc/usher/NAME.yaml (docs/install.md); or name another folder with state.dir",
		"state folder %s has those of the instances of usher@.service in it, and an agent of its own would close it "+
			"to them", cfg.State.Dir)
}

// isAgentItself reports whether a command is the agent, to which the service manager gives the variables.
func isAgentItself(cmd *cobra.Command) bool {
	check := cmd.Flags().Lookup("check")
	return cmd.Name() == "agent" && check != nil && !check.Changed
}

func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// isStale reports whether nobody listens on a socket that an agent has left behind.
func isStale(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// socketOf returns the socket of a unit's agent, also where its configuration is not for this user to read.
func socketOf(u *instance.Unit) string {
	if cfg, err := config.Load(config.Source{File: u.Config, Env: u.Env}); err == nil {
		return cfg.Socket.Path
	}
	return cmp.Or(u.Value("USHER_SOCKET_PATH"), u.Value("USHER_SOCKET"), naming.Socket())
}

// locate finds the unit whose agent a configuration is of; nil: there is none. It is the instance that the command
// names, else the one that is given the named file, else, where nothing is named and nothing stands in its usual place,
// the only one of the host.
func (s *source) locate(c *cli) (*instance.Unit, error) {
	switch {
	case s.agent && c.instance == "":
		return nil, nil // the service manager has given it what it needs
	case c.unit != nil:
		return c.unit, nil
	}
	named := s.path()
	if named == "" {
		u, err := c.units.Only()
		if errors.Is(err, instance.ErrNone) {
			return nil, nil
		}
		if err != nil {
			return nil, &exit{code: exitUsage, cause: err, hint: instanceHint}
		}
		return u, nil
	}
	abs, err := filepath.Abs(named)
	if err != nil {
		return nil, err
	}
	stem, _, _ := strings.Cut(filepath.Base(abs), ".")
	names := c.units.Names()
	if !slices.Contains(names, stem) {
		names = append(names, stem)
	}
	for _, name := range append(names, "") {
		if u, err := c.units.Find(name); err == nil && u.Config != "" && filepath.Clean(u.Config) == abs {
			return u, nil
		}
	}
	return nil, nil
}

// configured returns the configuration that a file names, or else that of the agent of this host; where there is none,
// or several, that of the variables alone.
func (c *cli) configured(file string, env []string) (*config.Config, error) {
	src := source{file: file}
	u, err := src.locate(c)
	switch {
	case err == nil && u != nil:
		return config.Load(config.Source{File: cmp.Or(file, u.Config), Env: u.Env})
	default:
		return config.Load(config.Source{File: src.path(), Env: env})
	}
}
