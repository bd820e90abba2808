package eventlog

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/files"
)

// The ways to name users: privacy.users.
const (
	UsersOmit      = "omit"
	UsersPseudonym = "pseudonym"
	UsersPlain     = "plain"
)

// monthsKept is for how many months a pseudonym can be traced to its user.
const monthsKept = 13

// Users names users as privacy.users asks. With pseudonyms a user has one name a month: an HMAC under a key of that
// month. Deleting the key makes the names of the month nobody's, and leaves the chain of events whole. It is safe for
// concurrent use.
type Users struct {
	mode string
	dir  string

	mu    sync.Mutex // guards all below
	month string
	key   []byte
}

// NewUsers returns a namer of users; dir holds the keys of pseudonyms (0700).
func NewUsers(mode, dir string) *Users { return &Users{mode: mode, dir: dir} }

// Plain reports whether users go by their own names.
func (u *Users) Plain() bool { return u.mode == UsersPlain }

// Name returns the name of a user at an instant; empty where users are left out.
func (u *Users) Name(user string, at time.Time) (string, error) {
	switch u.mode {
	case UsersPlain:
		return user, nil
	case UsersPseudonym:
	default:
		return "", nil
	}
	key, err := u.keyOf(at.UTC().Format("2006-01"))
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(user))
	return "p-" + hex.EncodeToString(mac.Sum(nil)[:10]), nil
}

// keyOf returns the key of a month, made if need be, and deletes those that are too old.
func (u *Users) keyOf(month string) ([]byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.month == month {
		return u.key, nil
	}
	if err := os.MkdirAll(u.dir, 0o700); err != nil {
		return nil, fmt.Errorf("pseudonyms: %w", err)
	}
	path := filepath.Join(u.dir, month+".key")
	key, err := files.Read(path, files.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key) // never fails: see crypto/rand
		err = files.Replace(path, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("pseudonyms: %w", err)
	}
	u.month, u.key = month, key
	return key, u.forget(month)
}

func (u *Users) forget(month string) error {
	at, err := time.Parse("2006-01", month)
	if err != nil {
		return err
	}
	oldest := at.AddDate(0, 1-monthsKept, 0).Format("2006-01")
	entries, err := os.ReadDir(u.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if m, ok := strings.CutSuffix(e.Name(), ".key"); ok && m < oldest {
			errs = append(errs, os.Remove(filepath.Join(u.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
