// Package instance finds what the service manager gives to an agent: its configuration file, its variables and its
// user. A command that looks at an agent's files looks with these where the agent looks.
//
// It reads the unit files themselves (systemd.unit(5)), so it needs no running service manager. Start reading at
// [Finder.Find].
package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usher-agent/usher/agent/files"
)

// Variable is the variable that names the instance, where no flag does.
const Variable = "USHER_INSTANCE"

// Program is the name of the units: usher.service, and usher@.service for instances.
const Program = "usher"

// Unit is what the service manager gives to one agent.
type Unit struct {
	Name    string   // of the instance; empty: of usher.service, which has none
	Service string   // usher@acme.service
	File    string   // the unit file, or the template
	Args    []string // of ExecStart, the program first
	Config  string   // the configuration file that Args name; empty: none
	Env     []string // KEY=VALUE, sorted
	// Unread are files of variables that exist and cannot be read by this user.
	Unread []string
	User   string // a name or a number; empty: root
	Group  string // empty: the user's own
	Groups []string
	NoFile string // LimitNOFILE as it stands there; empty: the service manager's default
	Log    string // the file that the log goes to; empty: it goes to the journal
}

// Finder finds units. The zero value finds those of this host.
type Finder struct {
	Root    string // the folder that stands for /; empty: /
	Program string // empty: [Program]
}

// paths are the folders of unit files, the first one wins (systemd.unit(5)).
var paths = []string{"/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
	"/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system",
	"/run/systemd/system.attached", "/run/systemd/generator", "/usr/local/lib/systemd/system",
	"/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late"}

// ErrNone says that there is no such unit.
var ErrNone = errors.New("there is no unit")

func (f Finder) program() string {
	if f.Program == "" {
		return Program
	}
	return f.Program
}

func (f Finder) path(p string) string {
	if f.Root == "" {
		return p
	}
	return filepath.Join(f.Root, p)
}

// service returns the name of an instance's unit.
func (f Finder) service(name string) string {
	if name == "" {
		return f.program() + ".service"
	}
	return f.program() + "@" + name + ".service"
}

// valid reports whether a name can be an instance's: systemd.unit(5) has the characters.
func valid(name string) bool {
	ok := func(r rune) bool {
		return r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune(":-_.\\@", r))
	}
	return len(name) < 200 && !strings.ContainsFunc(name, func(r rune) bool { return !ok(r) })
}

// Find returns the unit of an instance; of the empty name, the unit without instances. The error of a unit that is not
// there is an [ErrNone] and names the instances that there are.
func (f Finder) Find(name string) (*Unit, error) {
	if !valid(name) {
		return nil, fmt.Errorf("instance %q: a name has letters, digits and :-_. alone, as systemd-escape prints it",
			name)
	}
	service := f.service(name)
	file := f.fragment(service)
	if file == "" && name != "" {
		file = f.fragment(f.program() + "@.service")
	}
	if file == "" {
		return nil, f.none(name, service)
	}
	if fi, err := os.Stat(file); err == nil && (fi.Size() == 0 || fi.Mode().Type() != 0) {
		return nil, fmt.Errorf("%s is masked: %s leads to nothing; `systemctl unmask %s`", service, file, service)
	}
	u := &unitFile{finder: f, unit: &Unit{Name: name, Service: service, File: file}}
	for _, path := range append([]string{file}, f.dropIns(service)...) {
		switch err := u.read(path); {
		case path != file && errors.Is(err, fs.ErrNotExist): // it was there a moment ago, or is a link to nothing
		case err != nil:
			return nil, fmt.Errorf("%s: %w", service, err)
		}
	}
	return u.done(), nil
}

// none says that there is no unit, and what there is.
func (f Finder) none(name, service string) error {
	known := f.Names()
	mend := "give --config instead"
	if len(known) > 0 {
		mend = "the instances are " + strings.Join(known, ", ")
	}
	if name == "" {
		return fmt.Errorf("%w %s; %s", ErrNone, service, mend)
	}
	return fmt.Errorf("instance %s: %w %s, nor %s@.service; %s", name, ErrNone, service, f.program(), mend)
}

// fragment returns the file of a unit; empty: there is none.
func (f Finder) fragment(service string) string {
	for _, dir := range paths {
		file := f.path(filepath.Join(dir, service))
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// Template returns the unit file of which instances are made, usher@.service; empty: there is none.
func (f Finder) Template() string { return f.fragment(f.program() + "@.service") }

// Lodges reports whether a folder has those of the instances in it, so that no agent may have it for itself. One that
// has had it before there were instances goes on.
func (f Finder) Lodges(state string) bool {
	if f.Template() == "" || filepath.Clean(state) != filepath.Clean("/var/lib/"+f.program()) {
		return false
	}
	_, err := os.Lstat(f.path(files.StateFolder(state).LockFile()))
	return isGone(err)
}

// dropIns returns the files that add to a unit, in the order in which they are read.
func (f Finder) dropIns(service string) []string {
	dirs := []string{service + ".d"}
	stem := strings.TrimSuffix(service, ".service")
	if at := strings.IndexByte(stem, '@'); at >= 0 {
		dirs = append(dirs, stem[:at+1]+".service.d")
	}
	for i := len(stem) - 1; i > 0; i-- { // foo-bar.service has those of foo-.service, too
		if stem[i] == '-' {
			dirs = append(dirs, stem[:i+1]+".service.d")
		}
	}
	dirs = append(dirs, "service.d")
	byName := map[string]string{}
	for _, d := range dirs {
		for _, path := range paths {
			found, _ := filepath.Glob(f.path(filepath.Join(path, d, "*.conf"))) // the pattern is good
			for _, file := range found {
				if _, ok := byName[filepath.Base(file)]; !ok {
					byName[filepath.Base(file)] = file
				}
			}
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = byName[name]
	}
	return out
}

// Names returns the instances that are enabled, running, or have a file of their own, sorted.
func (f Finder) Names() []string {
	var out []string
	prefix := f.program() + "@"
	add := func(file string) {
		name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".d"), ".service")
		name = strings.TrimPrefix(strings.TrimPrefix(name, "invocation:"), prefix)
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, dir := range paths {
		for _, pattern := range []string{"*.wants/" + prefix + "*.service", "*.requires/" + prefix + "*.service",
			prefix + "*.service", prefix + "*.service.d"} {
			found, _ := filepath.Glob(f.path(filepath.Join(dir, pattern))) // the pattern is good
			for _, file := range found {
				add(file)
			}
		}
	}
	running, _ := filepath.Glob(f.path("/run/systemd/units/invocation:" + prefix + "*.service"))
	for _, file := range running {
		add(file)
	}
	slices.Sort(out)
	return out
}

// Only returns the unit of the host's only agent. The error is an [ErrNone] where there is none, and names the
// instances where there are several.
func (f Finder) Only() (*Unit, error) {
	names := f.Names()
	if f.fragment(f.service("")) != "" {
		names = append([]string{""}, names...)
	}
	switch len(names) {
	case 0:
		return nil, f.none("", f.service(""))
	case 1:
		return f.Find(names[0])
	default:
		return nil, fmt.Errorf("there are several agents here (%s); name one with --instance or %s",
			strings.TrimPrefix(strings.Join(names, ", "), ", "), Variable)
	}
}

// Value returns the value of a variable of the unit; empty: it has none.
func (u *Unit) Value(name string) string {
	for _, kv := range u.Env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// isGone reports whether an error says that there is no such file.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
