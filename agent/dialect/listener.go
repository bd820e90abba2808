package dialect

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Listener is where one dialect is spoken.
type Listener struct {
	config  config.Listener
	dialect plugin.Dialect
	socket  *api.Socket  // of a Unix socket
	tcp     net.Listener // or of TCP
	all     *Dialects    // nil: it was only checked
}

// Dialect returns the name of the system whose API is answered.
func (l *Listener) Dialect() string { return l.dialect.System() }

// Address returns where it listens. Where the configuration leaves the port to the kernel, it is the kernel's choice.
func (l *Listener) Address() string {
	if l.tcp != nil {
		return l.tcp.Addr().String()
	}
	return l.config.String()
}

func (l *Listener) close() error {
	if l.socket != nil {
		return l.socket.Close()
	}
	if err := l.tcp.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Check finds the dialect of each configured listener, or says what is wrong with the configuration. It opens nothing.
func Check(c *config.Config, dialects []plugin.Dialect) (out []*Listener, err error) {
	known := map[string]plugin.Dialect{}
	var names []string
	for _, d := range dialects {
		if known[d.System()] != nil {
			return nil, fmt.Errorf("there are two dialects %s; leave one of them out", d.System())
		}
		known[d.System()] = d
		names = append(names, d.System())
	}
	var faults []error
	for i, lc := range c.Listeners {
		l := &Listener{config: lc, dialect: known[lc.Dialect]}
		if err := l.check(c, names); err != nil {
			key := fmt.Sprintf("listeners[%d]", i)
			faults = append(faults, c.At(key, fmt.Errorf("%s (%s): %w", key, lc.Address, err)))
		}
		out = append(out, l)
	}
	return out, errors.Join(faults...)
}

func (l *Listener) check(c *config.Config, names []string) error {
	if l.dialect == nil {
		return fmt.Errorf("there is no dialect %q (known: %s)", l.config.Dialect,
			cmp.Or(strings.Join(names, ", "), "none"))
	}
	_, own := l.dialect.(plugin.Authenticator)
	if file := l.config.CredentialsFile; file != "" {
		if !own {
			return fmt.Errorf("credentials_file: the %s dialect has no credential of its own; leave it out",
				l.config.Dialect)
		}
		if _, err := l.readCredentials(c); err != nil {
			return err
		}
	}
	if l.config.Path() != "" {
		_, err := config.GroupID(l.config.Group)
		return err
	}
	switch {
	case l.config.TokenFile != "":
		_, err := readTokens(c, l.config.TokenFile)
		return err
	case !own && !l.config.InsecureLoopback:
		return errors.New(
			"over TCP the kernel vouches for nobody: give token_file, or a Unix socket, or insecure_loopback: true " +
				"if every process of this host may call")
	}
	return nil
}

// Callers describes the permitted callers in a few words, for people.
func (l *Listener) Callers() string {
	a, own := l.dialect.(plugin.Authenticator)
	switch {
	case l.config.Path() != "":
		return "callers that the socket's mode and socket.allow let in"
	case l.config.TokenFile != "":
		return "callers with a token of " + l.config.TokenFile
	case l.config.InsecureLoopback:
		return "every process of this host (insecure_loopback)"
	case own:
		return "callers with " + a.Credential()
	default:
		return "nobody"
	}
}

// The bounds of a token file.
const (
	maxSecretFile = 64 << 10             // bytes, as of a credentials file
	minToken      = plugin.MinCredential // bytes of one token
)

// readSecret reads the file that a key of a listener names.
func readSecret(c *config.Config, key, path string) ([]byte, error) {
	b, err := c.ReadFile(path, maxSecretFile)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; make it readable for uid %d", key, err, os.Geteuid())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return textual.Values(b), nil
}

// readCredentials reads the listener's credentials_file, and refuses one with a credential that can be guessed.
func (l *Listener) readCredentials(c *config.Config) ([]byte, error) {
	b, err := readSecret(c, "credentials_file", l.config.CredentialsFile)
	if err != nil {
		return nil, err
	}
	if d, ok := l.dialect.(plugin.CredentialsChecker); ok {
		if err := d.CheckCredentials(b); err != nil {
			return nil, fmt.Errorf("credentials_file %s: %w", l.config.CredentialsFile, err)
		}
	}
	return b, nil
}

// readTokens reads a file of tokens, one a line.
func readTokens(c *config.Config, path string) ([][]byte, error) {
	b, err := readSecret(c, "token_file", path)
	if err != nil {
		return nil, err
	}
	var tokens [][]byte
	for line := range bytes.Lines(b) {
		switch line = bytes.TrimSpace(line); {
		case len(line) == 0:
		case len(line) < minToken:
			return nil, fmt.Errorf(
				"token_file %s: a token has %d bytes, and must have at least %d; `openssl rand -hex 32` makes a "+
					"good one", path, len(line), minToken)
		default:
			tokens = append(tokens, line)
		}
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("token_file %s: there is no token in it; `openssl rand -hex 32` makes a good one", path)
	}
	return tokens, nil
}

// shown returns the token that a request shows, as a bearer or as a password.
func shown(r *http.Request) []byte {
	if _, password, ok := r.BasicAuth(); ok {
		return []byte(password)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	return []byte(strings.TrimSpace(token))
}

// vouch identifies the caller of a request over TCP. It takes a token off the request: the dialect has no business with
// it.
func (l *Listener) vouch(r *http.Request) (enforcer.Caller, bool, *enforcer.Denial) {
	if l.config.TokenFile == "" {
		_, own := l.dialect.(plugin.Authenticator)
		if l.config.InsecureLoopback {
			return byCredential("loopback"), true, nil
		} else if own {
			return enforcer.Caller{UID: api.Nobody, GID: api.Nobody}, false, nil
		}
		return enforcer.Caller{}, false, &enforcer.Denial{Code: api.Unauthenticated, Detail: "nobody may call here"}
	}
	tokens, err := readTokens(l.all.c.Settings(), l.config.TokenFile)
	if err != nil {
		l.all.c.Log.Error("no call over TCP can be let in", "listener", l.Address(), "error", err)
		return enforcer.Caller{}, false, &enforcer.Denial{Code: api.Unauthenticated,
			Detail: "the tokens of this listener cannot be read; the agent's log says more"}
	}
	token := shown(r)
	sum := sha256.Sum256(token) // of one length, so that comparing tells nothing of it
	right := 0
	for _, t := range tokens {
		is := sha256.Sum256(t)
		right |= subtle.ConstantTimeCompare(sum[:], is[:])
	}
	if right != 1 {
		return enforcer.Caller{}, false,
			&enforcer.Denial{Code: api.Unauthenticated, Detail: "the token is missing, or not one of this listener's",
				Hint: "send one of the token_file as Authorization: Bearer, or as the password of Authorization: Basic"}
	}
	r.Header.Del("Authorization")
	return byCredential(credentialName(l.all.c.Key, "token", string(token))), true, nil
}

// listen takes the address. i is the listener's place in the configuration.
func (l *Listener) listen(i int, c *config.Config) error {
	path := l.config.Path()
	if path == "" {
		at, err := l.config.TCP()
		if err != nil {
			return err
		}
		l.tcp, err = net.Listen("tcp", at.String())
		if err != nil {
			return fmt.Errorf("%w; choose another address", err)
		}
		return nil
	}
	gid, err := config.GroupID(cmp.Or(l.config.Group, c.Socket.Group))
	if err != nil {
		return err
	}
	l.socket, err = api.Listen(api.SocketConfig{Path: path, Key: fmt.Sprintf("listeners[%d].address", i),
		Mode: cmp.Or(l.config.Mode, c.Socket.Mode), GID: gid, Lock: files.Lock,
		LockFile: api.SocketLock(c.State.RuntimeDir, path), Log: l.all.c.Log})
	return err
}

// installs reports whether a caller's credential is one of those by which documents may be installed.
func (l *Listener) installs(c enforcer.Caller) bool {
	return slices.ContainsFunc(l.config.Installers, func(name string) bool {
		return c == byCredential(credentialName(l.all.c.Key, l.Dialect(), name))
	})
}

// Run answers calls until ctx ends. Connections count among those of the local API.
func (l *Listener) Run(ctx context.Context) error {
	c := &l.all.c
	d := api.Dialect{Name: l.Dialect(), Socket: l.socket, TCP: l.tcp, Handler: l.all.spoken[l.Dialect()].handler,
		MaxBody: plugin.MaxDialectBody, Vouch: l.vouch}
	if f, ok := l.dialect.(plugin.Refuser); ok {
		d.Refuse = f.Refuse
	}
	if l.config.CredentialsFile != "" {
		d.Credentials = func() ([]byte, error) { return l.readCredentials(c.Settings()) }
		d.MayInstall = l.installs
	}
	c.Log.Info("dialect", "dialect", l.Dialect(), "address", l.Address(), "callers", l.Callers())
	return c.Server.RunDialect(ctx, d)
}
