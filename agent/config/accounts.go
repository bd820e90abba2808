package config

import (
	"fmt"
	"os/user"
	"strconv"
)

// GroupID turns a group's name or number into its id; -1 for an empty name.
func GroupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q; create it (groupadd %s), give its number, or leave it out", name,
			name)
	}
	return strconv.Atoi(g.Gid)
}

// UserID turns a user's name or number into its id.
func UserID(name string) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no user %q; create it, or give a number", name)
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(id), err
}
