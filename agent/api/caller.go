package api

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
)

// peer is the process at the other end, as the kernel describes it. It never changes for a connection.
type peer struct {
	uid, gid uint32
	pid      int32 // 0: in a PID namespace that the agent does not see
	own      bool  // the kernel does not say who it is, and lets only the agent's own user in
	groups   []uint32
	exe      string // empty: not readable
	start    uint64
	inode    uint64 // of the process's pidfd; only of a process that the agent does not see
	profile  enforcer.ProfileRef
	// executables knows the hashes that exe_sha256 rules compare; nil: none are kept
	executables *executables
}

// Nobody is the uid, and the gid, of callers that no kernel vouches for: an overflow id is not an identity.
const Nobody = enforcer.Nobody

// Rule matches callers. All of its fields that are set must match.
type Rule struct {
	UID       *uint32
	GID       *uint32 // of the process, or one of its supplementary groups
	Exe       string  // path of the executable
	ExeSHA256 string  // of the executable's file, lower-case hex
}

// Rules says who may call. Without an Allow rule, everybody may whom the socket's mode lets connect.
type Rules struct {
	Allow []Rule
	Admin []Rule
}

func (r Rule) matches(p *peer) bool {
	if r.UID == nil && r.GID == nil && r.Exe == "" && r.ExeSHA256 == "" {
		return false // an empty rule is a mistake, and lets nobody in
	}
	switch {
	case r.UID != nil && (*r.UID != p.uid || p.uid == Nobody),
		r.GID != nil && (*r.GID == Nobody || *r.GID != p.gid && !slices.Contains(p.groups, *r.GID)),
		r.Exe != "" && (p.exe == "" || filepath.Clean(r.Exe) != p.exe),
		r.ExeSHA256 != "" && !strings.EqualFold(r.ExeSHA256, p.exeHash()):
		return false
	}
	return true
}

// exeHash returns the SHA-256 of the peer's executable in hex, empty when it cannot be read. It waits for the hash
// where it is not known yet.
func (p *peer) exeHash() string {
	if p.pid == 0 || p.exe == "" {
		return ""
	}
	name := exeFile(p.pid)
	if name == "" {
		return ""
	}
	e := p.executables
	if e == nil {
		e = newExecutables(nil)
	}
	sum := e.sum(p.key(), name)
	if !p.lives() { // by the time the file was opened, the number may have been another process's
		return ""
	}
	return sum
}

// matchesAny reports whether a rule matches. It tries rules without a hash first, so that a caller they let in waits
// for no hash.
func matchesAny(rules []Rule, p *peer) bool {
	hashed := func(r Rule) bool { return r.ExeSHA256 != "" }
	return slices.ContainsFunc(rules, func(r Rule) bool { return !hashed(r) && r.matches(p) }) ||
		slices.ContainsFunc(rules, func(r Rule) bool { return hashed(r) && r.matches(p) })
}

// admin reports whether the peer may do everything: as root or the agent's own user, where the kernel shows the agent
// its pid, or by rule. In a sibling PID namespace, which is another container's, the number of a uid says nothing:
// images share numbers.
func (r Rules) admin(p *peer) bool {
	if p.own {
		return true
	}
	if p.uid == Nobody {
		return false
	}
	return p.pid != 0 && (p.uid == 0 || int(p.uid) == os.Geteuid()) || matchesAny(r.Admin, p)
}

// allowed reports whether the peer may call at all.
func (r Rules) allowed(p *peer) bool {
	return len(r.Allow) == 0 || matchesAny(r.Allow, p) || r.admin(p)
}

// caller is the peer as the enforcer knows it.
func (p *peer) caller(admin bool) (c enforcer.Caller) {
	p.call(&c, admin)
	return c
}

// call says in a caller, of which nothing is said yet, who the peer is.
func (p *peer) call(c *enforcer.Caller, admin bool) {
	c.UID, c.GID, c.PID, c.Admin, c.Exe, c.Start, c.Inode = p.uid, p.gid, p.pid, admin, p.exe, p.start, p.inode
	c.Profile = p.profile
}
