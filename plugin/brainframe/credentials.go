package brainframe

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// everyUser names the owner of the streams of all users of a credentials file: streams belong to the server. No user
// can have this name.
const everyUser = "*"

// credential is a line of a credentials file: USER:PASSWORD.
type credential struct {
	user     string
	password [sha256.Size]byte // its digest
}

// lines calls f with each credential of a file, and with its line's number and its password's length. Lines that begin
// with # are comments.
func lines(file []byte, f func(n int, user, password string, ok bool)) {
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(file, []byte("\xef\xbb\xbf"))) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		user, password, ok := strings.Cut(string(line), ":")
		f(n, user, password, ok && user != "" && user != everyUser)
	}
}

// CheckCredentials names the first line of a credentials_file that is no user and password, or whose password is too
// short.
func (Dialect) CheckCredentials(file []byte) (err error) {
	found := false
	lines(file, func(n int, _, password string, ok bool) {
		found = true
		switch {
		case err != nil:
		case !ok:
			err = fmt.Errorf("line %d: it is no user and password: write USER:PASSWORD", n)
		case len(password) < plugin.MinCredential:
			err = fmt.Errorf(
				"line %d: the password has %d bytes, and must have at least %d; `openssl rand -hex 32` makes one", n,
				len(password), plugin.MinCredential)
		}
	})
	if err == nil && !found {
		err = fmt.Errorf("there is no user in it; write USER:PASSWORD on a line")
	}
	return err
}

// parseCredentials reads a credentials file. A line that cannot be used lets nobody in.
func parseCredentials(file []byte) (out []credential) {
	lines(file, func(_ int, user, password string, ok bool) {
		if ok && len(password) >= plugin.MinCredential {
			out = append(out, credential{user, sha256.Sum256([]byte(password))})
		}
	})
	return out
}

// authenticate finds the caller; nil: it is known. Over TCP that takes HTTP Basic or, later, the session's cookie.
func (x *request) authenticate() *answer {
	if c, vouched := x.Caller(x.r); vouched {
		x.caller, x.user = c, c
		return nil
	}
	file, err := x.Credentials(x.r)
	if err != nil {
		x.Log().Error("the credentials file cannot be read", "error", err)
		return failed(http.StatusInternalServerError, UnknownError,
			"the listener's credentials_file cannot be read; the agent's log says more")
	}
	all := parseCredentials(file)
	user := ""
	if name, password, ok := x.r.BasicAuth(); ok {
		found := match(all, name, password)
		if found == nil {
			found = match(all, fromLatin1(name), fromLatin1(password)) // clients send that
		}
		if found == nil {
			return failed(http.StatusUnauthorized, Unauthorized, "the user or password is wrong")
		}
		user = found.user
		http.SetCookie(x.w, x.sessions.begin(found, x.Now()))
	} else if cookie, err := x.r.Cookie(sessionCookie); err == nil {
		var state sessionState
		if user, state = x.sessions.user(cookie.Value, all, x.Now()); state != sessionGood {
			status := http.StatusUnauthorized
			if state == sessionOver {
				status = http.StatusForbidden // it was good: nobody guesses
			}
			return failed(status, InvalidSession, "the session is over; show the user and password again")
		}
	} else {
		return failed(http.StatusUnauthorized, Unauthorized, "show a user and password (HTTP Basic)")
	}
	x.caller, x.user = x.CallerBy(x.r, everyUser), x.CallerBy(x.r, user)
	return nil
}

// match returns the credential of a user and password; nil: there is none. It takes as long for any.
func match(all []credential, user, password string) (found *credential) {
	digest := sha256.Sum256([]byte(password))
	name := sha256.Sum256([]byte(user))
	for i := range all {
		own := sha256.Sum256([]byte(all[i].user))
		if subtle.ConstantTimeCompare(name[:], own[:])&subtle.ConstantTimeCompare(digest[:], all[i].password[:]) == 1 {
			found = &all[i]
		}
	}
	return found
}

// fromLatin1 returns the text of ISO 8859-1 bytes.
func fromLatin1(s string) string {
	out := make([]rune, 0, len(s))
	for i := range len(s) {
		out = append(out, rune(s[i]))
	}
	return string(out)
}

const (
	sessionCookie = "session_id"
	sessionFor    = 12 * time.Hour
)

// sessions makes and checks the cookies of sessions. A cookie carries its user and end, authenticated with the
// password's digest: a session ends with its password, and outlives the agent.
type sessions struct{ key []byte }

func newSessions(key ed25519.PrivateKey) sessions {
	return sessions{mac(key.Seed(), "brainframe session key")}
}

func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return h.Sum(nil)
}

func (s sessions) seal(c *credential, end string) string {
	return base64.RawURLEncoding.EncodeToString(mac(s.key, c.user, end, string(c.password[:])))
}

// begin returns the cookie of a new session.
func (s sessions) begin(c *credential, now time.Time) *http.Cookie {
	end := strconv.FormatInt(now.Add(sessionFor).Unix(), 10)
	return &http.Cookie{Name: sessionCookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Value: base64.RawURLEncoding.EncodeToString([]byte(c.user)) + "." + end + "." + s.seal(c, end)}
}

type sessionState int

const (
	sessionUnknown sessionState = iota
	sessionOver
	sessionGood
)

// user returns the user of a session, and whether the session is good, over, or none that was begun here.
func (s sessions) user(cookie string, all []credential, now time.Time) (string, sessionState) {
	parts := strings.Split(cookie, ".")
	if len(parts) != 3 {
		return "", sessionUnknown
	}
	name, err := base64.RawURLEncoding.DecodeString(parts[0])
	end, bad := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || bad != nil {
		return "", sessionUnknown
	}
	for i := range all {
		if all[i].user != string(name) || !hmac.Equal([]byte(parts[2]), []byte(s.seal(&all[i], parts[1]))) {
			continue
		}
		if now.Unix() >= end {
			return "", sessionOver
		}
		return all[i].user, sessionGood
	}
	return "", sessionUnknown
}
