package api

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// accounts are the names of users and groups as the host's own files have them: passwd(5) and group(5). They are read
// again when a file has changed, and looked at once a second at most.
type accounts struct {
	passwd, group string // paths
	// cgroups says that control groups are looked at, too: a rule asks for them.
	cgroups atomic.Bool

	mu     sync.Mutex // guards all below
	looked time.Time
	stamps [2]fileStamp
	users  map[uint32]string
	groups map[uint32]string
}

// fileStamp tells one state of a file from another.
type fileStamp struct {
	changed time.Time
	size    int64
}

// maxAccounts is how many bytes of a file of accounts are read.
const maxAccounts = 16 << 20

func newAccounts() *accounts { return &accounts{passwd: "/etc/passwd", group: "/etc/group"} }

// HostAccounts returns the names of the users and groups that the host's own files have, as rules of the site know
// them.
func HostAccounts() (users, groups []string) {
	a := newAccounts()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.look()
	return slices.Sorted(maps.Values(a.users)), slices.Sorted(maps.Values(a.groups))
}

// names returns the login of a uid and the name of each gid; empty where there is none.
func (a *accounts) names(uid uint32, gids []uint32) (login string, groups []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.look()
	groups = make([]string, len(gids))
	for i, g := range gids {
		groups[i] = a.groups[g]
	}
	return a.users[uid], groups
}

// uidOf returns the uid of a login; Nobody: the host's files have none of that name.
func (a *accounts) uidOf(login string) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.look()
	for uid, name := range a.users {
		if name == login {
			return uid
		}
	}
	return Nobody
}

// look reads what has changed. a.mu is held.
func (a *accounts) look() {
	now := time.Now()
	if now.Sub(a.looked) < time.Second {
		return
	}
	a.looked = now
	for i, path := range []string{a.passwd, a.group} {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		stamp := fileStamp{info.ModTime(), info.Size()}
		if stamp == a.stamps[i] || info.Size() > maxAccounts {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		a.stamps[i] = stamp
		if names := namesOf(string(data)); i == 0 {
			a.users = names
		} else {
			a.groups = names
		}
	}
}

// namesOf reads the names of a file of accounts, whose third field is the number. Of several lines with one number the
// first counts, as for the C library.
func namesOf(text string) map[uint32]string {
	out := map[uint32]string{}
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 4)
		if len(f) < 3 || f[0] == "" || strings.HasPrefix(f[0], "#") {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			if _, twice := out[uint32(n)]; !twice {
				out[uint32(n)] = f[0]
			}
		}
	}
	return out
}

// profile returns what the host knows of a peer, for the site's rules.
func (a *accounts) profile(p *peer) enforcer.ProfileRef {
	if p.own {
		return enforcer.ProfileRef{}
	}
	var gids []uint32
	for _, g := range append([]uint32{p.gid}, p.groups...) {
		if g != Nobody {
			gids = append(gids, g)
		}
	}
	login, names := a.names(p.uid, gids)
	if p.uid == Nobody {
		login = ""
	}
	var groups strings.Builder
	for i, g := range gids {
		groups.WriteString(strconv.FormatUint(uint64(g), 10) + "\n")
		if names[i] != "" {
			groups.WriteString(names[i] + "\n")
		}
	}
	out := enforcer.Profile{Login: login, Groups: strings.TrimSuffix(groups.String(), "\n")}
	if a.cgroups.Load() {
		out.Cgroup = cgroupOf(p)
	}
	return enforcer.ProfileOf(out)
}

// cgroupOf returns the path of a peer's control group (cgroups(7), version 2, or else the one that systemd keeps);
// empty: it is not known.
func cgroupOf(p *peer) (path string) {
	if p.pid == 0 {
		return ""
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(int(p.pid)) + "/cgroup")
	if err != nil || !p.lives() {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && (f[1] == "" || f[1] == "name=systemd" && path == "") {
			path = f[2]
		}
	}
	return path
}

// LookAtCgroups says whether the site's rules look at the control groups of callers that connect from now on.
func (s *Server) LookAtCgroups(look bool) { s.accounts.cgroups.Store(look) }
