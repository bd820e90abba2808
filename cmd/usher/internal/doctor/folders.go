package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/agent/journal"
	"github.com/usher-agent/usher/agent/repair"
)

// own is one of the agent's own folders.
type own struct {
	name, key, path string
	place           files.Place
}

func (e *exam) own() []own {
	if e.cfg == nil {
		return nil
	}
	s := e.cfg.State
	return []own{{"state folder", "state.dir", s.Dir, files.StateFolder(s.Dir)},
		{"runtime folder", "state.runtime_dir", s.RuntimeDir, files.RuntimeFolder(s.RuntimeDir)}}
}

// folders looks at the agent's own folders as the agent would.
func (e *exam) folders() {
	for _, f := range e.own() {
		before := len(e.found)
		e.room(f)
		if failed := e.agent.do(func() { e.folder(f) }); failed != nil {
			e.notLooked(f.name,
				fmt.Errorf("%s is for an agent that runs as %s, and only root can try what that user may; "+
					"one that %s starts cannot use it", f.path, e.agent, self()))
		}
		e.from(before, f.key)
		if len(e.found) == before {
			e.ok(f.name, "%s", f.path)
		}
	}
}

// folder looks at one folder as the agent's user.
func (e *exam) folder(f own) {
	at := f.name + " " + f.path
	elsewhere := "or name another folder with " + f.key
	switch err := f.place.Look(); {
	case errors.Is(err, fs.ErrNotExist):
		e.missing(f)
		return
	case errors.Is(err, fs.ErrPermission):
		mend, why := fmt.Sprintf("chown -R %d %s", e.agent.uid, f.path), ""
		if above := closedAbove(f.path); above != "" {
			mend, why = letThrough(above)
		}
		e.bad("STATE_OWNER", f.name, mend+", "+elsewhere, "%s cannot be entered by the agent's user %s: %v%s", f.path,
			e.agent, err, why)
		return
	case files.Foreign(err):
		fi, _ := os.Stat(f.path) // it is there
		e.bad("STATE_OWNER", f.name, fmt.Sprintf("chown -R %d %s, %s", e.agent.uid, f.path, elsewhere),
			"%s belongs to %s, and the agent runs as %s", f.path, nameOf(fi), e.agent)
		return
	case err != nil:
		e.bad("STATE_MODE", f.name, elsewhere, "%s: %v", f.path, err)
		return
	}
	switch err := writable(f.path); {
	case errors.Is(err, syscall.EROFS):
		e.bad("STATE_READ_ONLY", f.name, "mount it read-write, "+elsewhere,
			"%s lies on a file system that is mounted read-only", f.path)
		return
	case err != nil:
		fi, _ := os.Stat(f.path) // it is there
		e.bad("STATE_OWNER", f.name, fmt.Sprintf("chown -R %d %s, %s", e.agent.uid, f.path, elsewhere),
			"%s belongs to %s, and the agent, which runs as %s, cannot write there", f.path, nameOf(fi), e.agent)
		return
	}
	if kind := journal.Remote(f.path); kind != "" {
		e.bad("STATE_NETWORK", f.name, "name a local folder with "+f.key,
			"%s lies on a network file system (%s), on which locks and journals cannot be relied upon", f.path, kind)
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		e.notLooked(at, err)
		return
	}
	for _, entry := range entries {
		path := filepath.Join(f.path, entry.Name())
		if !entry.Type().IsRegular() {
			continue
		}
		if file, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
			file.Close()
		} else if errors.Is(err, fs.ErrPermission) {
			fi, _ := os.Lstat(path) // it is there
			e.bad("STATE_OWNER", f.name, fmt.Sprintf("chown -R %d %s", e.agent.uid, f.path),
				"%s belongs to %s, and the agent runs as %s", path, nameOf(fi), e.agent)
			return
		}
	}
}

// closedAbove returns the folder above a path through which this thread's user may not go; empty: there is none.
func closedAbove(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	way := []string{path}
	for at := path; at != filepath.Dir(at); at = filepath.Dir(at) {
		way = append(way, filepath.Dir(at))
	}
	for i := len(way) - 1; i > 0; i-- {
		if _, err := os.Lstat(way[i-1]); errors.Is(err, fs.ErrPermission) {
			return way[i]
		}
	}
	return ""
}

// letThrough says how a folder lets others pass, and why they do not. An agent that root has started by hand leaves one
// that is closed.
func letThrough(folder string) (mend, why string) {
	mend = "chmod a+x " + folder
	if fi, err := os.Stat(folder); err == nil {
		why = fmt.Sprintf("; %s is of %s (mode %04o) and lets nobody else through", folder, nameOf(fi),
			fi.Mode().Perm())
	}
	return mend, why
}

// missing says whether the agent can make a folder that is not there.
func (e *exam) missing(f own) {
	parent := filepath.Dir(filepath.Clean(f.path))
	for {
		fi, err := os.Stat(parent)
		if err == nil && fi.IsDir() {
			break
		}
		if up := filepath.Dir(parent); up != parent {
			parent = up
			continue
		}
		break
	}
	err := writable(parent)
	if err == nil {
		if !e.up {
			e.ok(f.name, "%s is not there yet; the agent makes it", f.path)
		}
		return
	}
	if errors.Is(err, syscall.EROFS) {
		e.bad("STATE_READ_ONLY", f.name, "make it there, or name another folder with "+f.key,
			"there is no %s, and %s lies on a file system that is mounted read-only", f.path, parent)
		return
	}
	mode := "700"
	if f.key == "state.runtime_dir" {
		mode = "755"
	}
	if e.Unit != nil {
		e.ok(f.name, "%s is not there; %s makes it", f.path, e.Unit.Service)
		return
	}
	e.bad("STATE_MISSING", f.name, fmt.Sprintf("install -d -o %d -m %s %s, or name another folder with %s",
		e.agent.uid, mode, f.path, f.key), "there is no %s, and the agent's user %s cannot make it in %s", f.path,
		e.agent, parent)
}

// bounds of the room for the agent's files
const (
	fullBytes = 64 << 10 // less is nothing: one compaction of a small journal needs as much
	lowBytes  = 32 << 20 // less is little, where it is less than a tenth
	tinyBytes = 4 << 20  // less is little anywhere
	lowNodes  = 64
)

// room says how much room there is in a folder.
func (e *exam) room(f own) {
	r, err := roomOf(f.path)
	if err != nil || r.total == 0 {
		return
	}
	mend := "free some space there, or name another folder with " + f.key
	switch {
	case r.free < fullBytes:
		e.bad("STATE_FULL", f.name, mend, "the file system of %s is full (%s free of %s)", f.path, size(r.free),
			size(r.total))
	case r.nodes > 0 && r.files < 2:
		e.bad("STATE_FULL", f.name, "remove files there, or name another folder with "+f.key,
			"the file system of %s has no inode left for a new file (%d of %d are in use)", f.path, r.nodes-r.files,
			r.nodes)
	case r.free < tinyBytes, r.free < lowBytes && r.free < r.total/10:
		e.warn("STATE_LOW", f.name, mend, "the file system of %s has little room (%s free of %s)", f.path, size(r.free),
			size(r.total))
	case r.nodes > 0 && r.files < lowNodes:
		e.warn("STATE_LOW", f.name, "remove files there, or name another folder with "+f.key,
			"the file system of %s has room for %d files more", f.path, r.files)
	}
}

// size writes bytes for people.
func size(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%d KiB", n>>10)
	}
}

// nameOf names the owner of a file.
func nameOf(fi fs.FileInfo) string {
	if fi == nil {
		return "another user"
	}
	u, err := userOf(fmt.Sprint(ownerOf(fi)))
	if err != nil {
		return "another user"
	}
	return u.String()
}

// lock says whether another agent uses one of the folders. Where this user may not connect to the agent, it is most
// likely that one, and nothing tells.
func (e *exam) lock() {
	if !e.up && e.has("SOCKET_CLOSED") {
		return
	}
	for _, f := range e.own() {
		pid := holder(f.place.LockFile())
		if pid == 0 || pid == e.pid || e.up && e.pid == 0 {
			continue
		}
		e.bad("SECOND_AGENT", f.name, fmt.Sprintf("stop that one, or give this agent a %s of its own", f.key),
			"%s is in use by %s, which does not listen on %s", f.path, programOf(pid), e.client.Socket())
		return
	}
}

// journals reads the journals of an agent that does not run.
func (e *exam) journals() {
	if e.cfg == nil || e.up || e.has("SECOND_AGENT") {
		return
	}
	sound := 0
	look := func() {
		repair.Look(e.cfg, func(path string, err error) {
			var corrupt *journal.CorruptError
			var past *desk.PastError
			switch {
			case err == nil:
				sound++
			case errors.As(err, &past):
				e.warn("JOURNAL_DAMAGED", "journal",
					"start the agent, which keeps what the journal proves and sets the damaged file aside",
					"%s is of an earlier start of the host and is damaged, as by a power cut; its leases are over in "+
						"any case", path)
			case errors.As(err, &corrupt):
				e.bad("JOURNAL_DAMAGED", "journal", "run `"+e.repair()+"`, which keeps every record that can be proved",
					"%s is damaged at byte %d: %s", path, corrupt.Offset, corrupt.Reason)
			case errors.Is(err, fs.ErrPermission):
				e.notLooked("journal", err)
			default:
				e.bad("JOURNAL_DAMAGED", "journal", "run `"+e.repair()+"`, or use the usher that wrote it", "%s: %v",
					path, err)
			}
		})
	}
	if failed := e.agent.do(look); failed != nil {
		e.notLooked("journal", failed)
		return
	}
	if sound > 0 {
		e.ok("journal", "%d journals are sound", sound)
	}
}

// repair is the command that mends journals.
func (e *exam) repair() string {
	switch {
	case e.Unit != nil && e.Unit.Name != "":
		return "usher doctor --repair --instance " + e.Unit.Name
	case e.File != "":
		return "usher doctor --repair --config " + e.File
	}
	return "usher doctor --repair"
}

// socket looks at the place of an agent's socket that does not listen there.
func (e *exam) socket() {
	if e.cfg == nil || e.up {
		return
	}
	path := e.cfg.Socket.Path
	n := len(e.found)
	defer func() { e.from(n, "socket.path") }()
	gid, err := config.GroupID(e.cfg.Socket.Group)
	switch {
	case err != nil:
		e.bad("SOCKET_GROUP", "socket", "socket.group names the group", "socket.group: %v", err)
	case gid >= 0 && e.agent.uid != 0 && !slices.Contains(e.agent.gids, gid):
		e.bad("SOCKET_GROUP", "socket", fmt.Sprintf("usermod -aG %s %s, or leave socket.group out",
			e.cfg.Socket.Group, e.agent.name),
			"the agent, which runs as %s, cannot give the socket to the group %s, of which it is no member", e.agent,
			e.cfg.Socket.Group)
	}
	e.from(n, "socket.group")
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() != fs.ModeSocket {
		e.bad("SOCKET_TAKEN", "socket", "move it away, or set another socket.path",
			"there is something of the name %s that is no socket (%v)", path, fi.Mode().Type())
	}
	dir := filepath.Dir(path)
	if slices.ContainsFunc(e.own(), func(f own) bool { return filepath.Clean(f.path) == dir }) {
		return // it is looked at as that
	}
	var fault error
	if failed := e.agent.do(func() { fault = canMake(dir) }); failed != nil {
		e.notLooked("socket", failed)
		return
	}
	if fault != nil {
		e.bad("SOCKET_FOLDER", "socket",
			fmt.Sprintf("install -d -o %d %s, or set another socket.path", e.agent.uid, dir),
			"the agent, which runs as %s, cannot make its socket in %s: %s", e.agent, dir, plainError(fault))
	}
}

// canMake says why this thread cannot make a file in a folder, or the folder.
func canMake(dir string) error {
	err := writable(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		err = writable(dir)
	}
	return err
}

// plainError is an error of the system in words.
func plainError(err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the file system is mounted read-only"
	case errors.Is(err, fs.ErrPermission):
		return "it belongs to another, and is not writable for that user"
	case errors.Is(err, syscall.ENOTDIR):
		return "something on the way is no folder"
	}
	return err.Error()
}

// addresses tries the TCP addresses of an agent that does not run.
func (e *exam) addresses() {
	if e.cfg == nil || e.up || e.has("SECOND_AGENT") {
		return
	}
	at := map[string]string{}
	if e.cfg.Ops.Listen != "" {
		at["ops.listen"] = e.cfg.Ops.Listen
	}
	for i, l := range e.cfg.Listeners {
		if l.Path() == "" {
			at[fmt.Sprintf("listeners[%d]", i)] = l.Address
		}
	}
	for key, address := range at {
		n := len(e.found)
		var err error
		failed := e.agent.do(func() {
			var l net.Listener
			if l, err = net.Listen("tcp", address); err == nil {
				err = l.Close()
			}
		})
		switch {
		case failed != nil:
			e.notLooked(key, failed)
		case errors.Is(err, syscall.EADDRINUSE):
			who := "another program"
			if _, port, splitErr := net.SplitHostPort(address); splitErr == nil {
				if n, lookErr := net.LookupPort("tcp", port); lookErr == nil && listener(n) > 0 {
					who = programOf(listener(n))
				}
			}
			e.bad("ADDRESS_IN_USE", key, "stop that one, or choose another address for "+key, "%s is in use by %s",
				address, who)
		case err != nil:
			e.bad("ADDRESS_IN_USE", key, "choose another address for "+key, "%s cannot be had: %v", address, err)
		default:
			e.ok(key, "%s is free", address)
		}
		e.from(n, key)
	}
}

// variable returns the value of a variable of the agent.
func (e *exam) variable(name string) string {
	for _, kv := range e.env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}
