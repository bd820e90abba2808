package doctor

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"

	"github.com/usher-agent/usher/agent/config"
)

// account is a user as which something is tried.
type account struct {
	uid  int
	gids []int // the first is the user's own
	name string
}

// errOther says that only root can try something as another user.
var errOther = errors.New("only root can try that as another user")

// String names the user for people.
func (u account) String() string {
	if u.name == "" {
		return fmt.Sprintf("uid %d", u.uid)
	}
	return fmt.Sprintf("%s (uid %d)", u.name, u.uid)
}

// self is this process's user.
func self() account {
	u := account{uid: os.Geteuid(), gids: []int{os.Getegid()}}
	more, _ := os.Getgroups() // none where the system has none
	u.gids = append(u.gids, more...)
	if is, err := user.LookupId(strconv.Itoa(u.uid)); err == nil {
		u.name = is.Username
	}
	return u
}

// userOf returns a user with the groups of the accounts database; name is a name or a number.
func userOf(name string) (account, error) {
	id, err := config.UserID(name)
	if err != nil {
		return account{}, err
	}
	u := account{uid: int(id), gids: []int{int(id)}}
	is, err := user.LookupId(strconv.Itoa(u.uid))
	if err != nil {
		return u, nil // a number that no account has
	}
	u.name, u.gids = is.Username, nil
	gid, _ := strconv.Atoi(is.Gid) // it is a number on Unix
	u.gids = append(u.gids, gid)
	groups, _ := is.GroupIds() // those that can be read
	for _, g := range groups {
		if n, err := strconv.Atoi(g); err == nil && n != gid {
			u.gids = append(u.gids, n)
		}
	}
	return u, nil
}

// agentUser returns the user as which the agent runs, or would: that of the running one, of the unit, of its state
// folder, or this one.
func (e *exam) agentUser() account {
	u := e.guess()
	if e.Unit == nil || e.Unit.Group == "" {
		return u
	}
	for _, g := range append([]string{e.Unit.Group}, e.Unit.Groups...) {
		if gid, err := config.GroupID(g); err == nil {
			u.gids = append([]int{gid}, u.gids...)
		}
	}
	return u
}

func (e *exam) guess() account {
	if uid, ok := e.ownerOfAgent(); ok {
		if u, err := userOf(strconv.Itoa(uid)); err == nil {
			return u
		}
	}
	if e.Unit != nil {
		name := e.Unit.User
		if name == "" {
			name = "0"
		}
		u, err := userOf(name)
		if err == nil {
			return u
		}
		e.bad("CONFIG_INVALID", e.Unit.Service, "create the user, as systemd-sysusers does, or mend User= of the unit",
			"%v", err)
	}
	if e.cfg != nil {
		if fi, err := os.Stat(e.cfg.State.Dir); err == nil { // whose it is ran the last one
			if u, err := userOf(strconv.Itoa(ownerOf(fi))); err == nil {
				return u
			}
		}
	}
	return self()
}

// do calls f as the user. The error says that this process cannot.
func (u account) do(f func()) error {
	switch {
	case u.uid == os.Geteuid():
		f()
		return nil
	case os.Geteuid() != 0:
		return fmt.Errorf("%w: %s", errOther, u)
	}
	return asUser(u, f)
}
