package config

import (
	"errors"
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

// ByID returns the settings with the names of users and groups in rules replaced by their ids. The error names each
// rule whose user or group there is not.
func (s Socket) ByID() (Socket, error) {
	var faults []error
	resolve := func(key string, in []Rule) (out []Rule) {
		for i, r := range in {
			if r.User != "" {
				id, err := UserID(r.User)
				if err != nil {
					faults = append(faults, of(fmt.Sprintf("%s[%d]", key, i), err))
				}
				r.UID, r.User = &id, ""
			}
			if r.Group != "" {
				id, err := GroupID(r.Group)
				if err != nil {
					faults = append(faults, of(fmt.Sprintf("%s[%d]", key, i), err))
				}
				r.GID, r.Group = new(uint32(id)), ""
			}
			out = append(out, r)
		}
		return out
	}
	s.Allow, s.Admin = resolve("socket.allow", s.Allow), resolve("socket.admin", s.Admin)
	return s, errors.Join(faults...)
}

// of says of an error which key is at fault.
func of(key string, err error) *Error {
	return &Error{Key: key, Text: key + ": " + err.Error(), Cause: err}
}
