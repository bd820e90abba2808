package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/agent/plugins"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/catalog"
)

// source names where the configuration comes from.
func (e *exam) source() string {
	text := e.File
	if text == "" {
		text = "no file: defaults and variables"
	}
	if e.Unit != nil {
		text += ", with the variables of " + e.Unit.Service
	}
	return text
}

// configuration reads the configuration, and says what is wrong with it.
func (e *exam) configuration() {
	cfg, err := e.Load()
	if e.Unit != nil {
		for _, path := range e.Unit.Unread {
			e.notLooked("configuration", fmt.Errorf("%s: the unit's file of variables cannot be read", path))
		}
	}
	if err != nil {
		e.unreadable(err)
		return
	}
	e.cfg = cfg
	faults := len(e.found)
	for _, err := range each(inspect.Faults(cfg)) {
		e.faulty(err)
	}
	for _, err := range each(agent.Check(cfg)) {
		e.bad("CONFIG_INVALID", "configuration", e.check(), "%v", err)
	}
	if _, embedded, err := catalog.Embedded(); err == nil && len(embedded)+len(cfg.License.Trust) == 0 {
		e.warn("TRUST_NONE", "configuration", "name the vendor's public key under license.trust",
			"no key is trusted, so that no licence can be valid")
	}
	if len(e.found) == faults {
		e.ok("configuration", "%s", e.source())
	}
}

// faulty reports what is wrong with something that the configuration names. Plugins are looked at one by one, and the
// socket's group where the socket is.
func (e *exam) faulty(err error) {
	var at *config.Error
	key := ""
	if errors.As(err, &at) {
		key = at.Key
	}
	switch {
	case strings.HasPrefix(key, "plugins"), key == "socket.group":
	case strings.HasPrefix(key, "license.trust"):
		e.bad("TRUST_BROKEN", "configuration", "", "%v", err)
	default:
		e.bad("CONFIG_INVALID", "configuration", e.check(), "%v", err)
	}
}

// public are the endings of the keys whose files are no secrets.
var public = []string{"ca_file", "cert_file", "client_cert_file", "web_config"}

// named looks at the files that the configuration names, as the agent's user: whether it may read them, and whether
// others may read the secrets.
func (e *exam) named() {
	if e.cfg == nil {
		return
	}
	if e.File != "" {
		if err := e.readAs(e.File); err != nil {
			mend, why := e.letRead(e.File,
				fmt.Sprintf("chown root %s, and chmod 0644 it, or 0640 with a group of that user",
					e.File))
			e.bad("CONFIG_UNREADABLE", "configuration", mend, "the agent, which runs as %s, does not read %s: %s%s",
				e.agent,
				e.File, plainError(err), why)
		}
	}
	for _, f := range e.cfg.NamedFiles() {
		n := len(e.found)
		fi, err := os.Stat(f.Path)
		if err != nil || strings.HasSuffix(f.Key, ".path") {
			continue // it is said, or it may come later; plugins are looked at one by one
		}
		isPublic := slices.ContainsFunc(public, func(end string) bool { return strings.HasSuffix(f.Key, end) })
		switch err := e.readAs(f.Path); {
		case err != nil:
			mend, why := e.letRead(f.Path, fmt.Sprintf("chown %d %s", e.agent.uid, f.Path))
			e.bad("FILE_UNREADABLE", "configuration", mend,
				"%s: %s is of %s (mode %04o), and the agent, which runs as %s, does not read it: %s%s", f.Key, f.Path,
				nameOf(fi), fi.Mode().Perm(), e.agent, plainError(err), why)
		case !isPublic && !strings.HasPrefix(f.Key, "license.trust") && fi.Mode().Perm()&0o004 != 0:
			e.warn("SECRET_OPEN", "configuration", fmt.Sprintf("chmod o-rwx %s", f.Path),
				"%s: %s is a secret, and every user of this host can read it (mode %04o)", f.Key, f.Path,
				fi.Mode().Perm())
		}
		e.from(n, f.Key)
	}
}

// letRead returns the mend for a file that the agent's user may not read, and what is to be said of it: own is for the
// file itself, and counts where no folder above it is closed.
func (e *exam) letRead(path, own string) (mend, why string) {
	mend = own
	_ = e.agent.do(func() { // it has read the file in vain
		if above := closedAbove(path); above != "" {
			mend, why = letThrough(above)
		}
	})
	return mend, why
}

// readAs says why the agent would not read a file that it is named: it may not, or another user could change it. nil:
// it would, or this process cannot tell.
func (e *exam) readAs(path string) (err error) {
	if e.agent.do(func() { _, err = files.ReadNamed(path, maxNamed) }) != nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// licencePath says that there is no licence folder.
func (e *exam) licencePath() {
	n := len(e.found)
	if _, err := os.Stat(e.cfg.License.Path); errors.Is(err, fs.ErrNotExist) {
		e.warn("LICENSE_MISSING", "licence", "make it, or mend license.path; the agent waits for it",
			"license.path: there is no %s", e.cfg.License.Path)
	}
	e.from(n, "license.path")
}

// check names the command that checks the configuration alone.
func (e *exam) check() string {
	switch {
	case e.Unit != nil && e.Unit.Name != "":
		return "mend it; `usher agent --check --instance " + e.Unit.Name + "` checks it again"
	case e.File != "":
		return "mend it; `usher agent --check --config " + e.File + "` checks it again"
	}
	return "mend it; `usher agent --check` checks it again"
}

// unreadable reports why there is no configuration.
func (e *exam) unreadable(err error) {
	_, failed := os.ReadFile(e.File)
	if e.File == "" || failed == nil {
		for _, err := range each(err) {
			e.bad("CONFIG_INVALID", "configuration", e.check(), "%v", err)
		}
		return
	}
	switch {
	case errors.Is(failed, fs.ErrNotExist):
		e.bad("CONFIG_UNREADABLE", "configuration", "put one there, or name another with --config or --instance",
			"there is no file %s", e.File)
	case errors.Is(failed, fs.ErrPermission):
		e.bad("CONFIG_UNREADABLE", "configuration",
			"let this user read it (chgrp and chmod g+r), or run the command as root or as the agent's user",
			"uid %d may not read %s", os.Geteuid(), e.File)
	default:
		e.bad("CONFIG_UNREADABLE", "configuration", "--config names another file", "%v", failed)
	}
}

// each returns the errors that were joined.
func each(err error) (out []error) {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			out = append(out, each(err)...)
		}
		return out
	}
	if inner := errors.Unwrap(err); inner != nil {
		if all := each(inner); len(all) > 1 {
			return all
		}
	}
	return []error{err}
}

// relative looks whether the agent takes relative paths for others than this process does.
func (e *exam) relative() {
	if e.cfg == nil {
		return
	}
	own, err := os.Getwd()
	if err != nil {
		return
	}
	agents := ""
	if e.pid > 0 {
		agents, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", e.pid)) // empty where this user may not look
	}
	found := agents == "" && e.up && e.Socket == "" && !filepath.IsAbs(e.cfg.Socket.Path) // from here
	if agents == own || found {
		return
	}
	says := Relative(e.cfg, e.File, own)
	if agents != "" {
		says = relativeTo(e.cfg, agents, own)
	}
	if says != "" {
		e.bad("CONFIG_RELATIVE", "configuration", relativeMend, "%s", says)
	}
}

const relativeMend = "run the command there, or write absolute paths"

// Relative says of a configuration that a command reads in the folder own which paths the agent may look for elsewhere;
// empty: it has none, or the file lies in that folder, and so the agent may have been started there.
func Relative(cfg *config.Config, file, own string) string {
	if at, err := filepath.Abs(file); err != nil || file == "" || filepath.Dir(at) == own {
		return ""
	}
	return relativeTo(cfg, "", own)
}

// relativeTo is Relative for an agent that was started in a folder; empty: it is not known.
func relativeTo(cfg *config.Config, agents, own string) string {
	keys := cfg.Relative()
	if len(keys) == 0 {
		return ""
	}
	is := " is a relative path, which begins"
	if len(keys) > 1 {
		is = " are relative paths, which begin"
	}
	if agents != "" {
		agents = ", " + agents
	}
	return strings.Join(keys, ", ") + is + " at the folder that the agent was started in" + agents +
		"; this command looked from " + own
}

// exported says that a variable leads elsewhere than the configuration.
func (e *exam) exported() {
	if e.cfg == nil || e.Exported == "" {
		return
	}
	at := e.configuredSocket()
	if at == "" || filepath.Clean(at) == filepath.Clean(e.Exported) {
		return
	}
	mend := "unset USHER_SOCKET, or name " + at + " there"
	ctx, cancel := e.within()
	defer cancel()
	other := client.New(at)
	defer other.Close()
	if _, err := other.Health(ctx); err == nil && !e.up {
		e.bad("SOCKET_ELSEWHERE", "environment", mend,
			"USHER_SOCKET is %s here, where no agent answers; the configuration says %s, and there one does",
			e.Exported, at)
		return
	}
	e.warn("SOCKET_ELSEWHERE", "environment", mend, "USHER_SOCKET is %s here, and the configuration says %s",
		e.Exported, at)
}

// configuredSocket returns the socket that the configuration names without this process's variables.
func (e *exam) configuredSocket() string {
	if e.Unit != nil {
		return e.cfg.Socket.Path
	}
	if e.File == "" {
		return ""
	}
	cfg, err := config.Load(config.Source{File: e.File})
	if err != nil {
		return ""
	}
	return cfg.Socket.Path
}

// plugins says which plugins cannot be started.
func (e *exam) plugins() {
	if e.cfg == nil || len(e.cfg.Plugins) == 0 {
		return
	}
	for i, p := range e.cfg.Plugins {
		one := *e.cfg
		one.Plugins = e.cfg.Plugins[i : i+1]
		var err error
		failed := e.agent.do(func() {
			var all plugins.Plugins
			if all, _, err = plugins.New(&one, "", "", nil, nil, nil); err == nil {
				err = all[0].Check()
			}
		})
		name := "plugin " + p.Name
		switch {
		case failed != nil:
			e.notLooked(name, failed)
		case err == nil:
			e.ok(name, "%s", p.Path)
		case errors.Is(err, fs.ErrNotExist):
			e.bad("PLUGIN_MISSING", name, fmt.Sprintf("install it there, or mend plugins[%d].path", i),
				"there is no file %s", p.Path)
		case strings.Contains(err.Error(), "SHA-256"):
			e.bad("PLUGIN_CHANGED", name, fmt.Sprintf("compare plugins[%d].sha256 with its maker's", i), "%v", err)
		default:
			e.bad("PLUGIN_UNFIT", name, fmt.Sprintf("mend the file, or leave plugins[%d] out", i), "%v", err)
		}
	}
}

// fileOf returns the configuration file of a running agent, as its settings name it; empty: it has none.
func fileOf(settings []wire.Setting) string {
	for _, s := range settings {
		if file, ok := strings.CutPrefix(s.Origin, "file "); ok {
			if i := strings.LastIndexByte(file, ':'); i > 0 {
				file = file[:i]
			}
			return file
		}
	}
	return ""
}

// differing says which keys the running agent has otherwise than the file. settings are the agent's.
func (e *exam) differing(settings []wire.Setting) {
	if e.cfg == nil {
		return
	}
	if file := fileOf(settings); e.File == "" && file != "" {
		e.found = slices.DeleteFunc(e.found, func(f Finding) bool { return f.Code == "TRUST_NONE" })
		e.add(Unknown, "NOT_LOOKED_AT", "configuration", "--config "+file+" has the doctor look at it",
			"the agent's configuration file is %s, and the doctor looked at none", file)
		return
	}
	here := map[string]config.Setting{}
	for _, s := range e.cfg.Show() {
		here[s.Key] = s
	}
	var pending []string
	seen := map[string]bool{}
	for _, s := range settings {
		now, ok := here[s.Key]
		seen[s.Key] = true
		stays := strings.HasPrefix(s.Origin, "env ") || strings.HasPrefix(s.Origin, "flag ")
		if ok && !stays && now.Value != s.Value && !strings.HasPrefix(now.Origin, "env ") && !config.Reloadable(s.Key) {
			pending = append(pending, s.Key)
		}
	}
	for key, s := range here {
		if !seen[key] && s.Value != "" && strings.HasPrefix(s.Origin, "file ") && !config.Reloadable(key) {
			pending = append(pending, key)
		}
	}
	if slices.Sort(pending); len(pending) > 0 && !e.has("RESTART_PENDING") {
		e.warn("RESTART_PENDING", "configuration", "restart the agent when it suits; it loses no lease",
			"the agent runs with other values than %s has of %s", e.File, strings.Join(pending, ", "))
	}
}
