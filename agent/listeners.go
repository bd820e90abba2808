package agent

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
	"strings"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// listener is where one dialect is spoken.
type listener struct {
	config  config.Listener
	dialect plugin.Dialect
	socket  *api.Socket  // of a Unix socket
	tcp     net.Listener // or of TCP
}

// address is where it listens: of a port that was left to the kernel, the one that it chose.
func (l *listener) address() string {
	if l.tcp != nil {
		return l.tcp.Addr().String()
	}
	return l.config.String()
}

func (l *listener) Close() error {
	if l.socket != nil {
		return l.socket.Close()
	}
	if err := l.tcp.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// checkListeners finds the dialect of each listener, or says what is wrong with what is configured.
func checkListeners(c *config.Config, dialects []plugin.Dialect) (out []*listener, err error) {
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
		l := &listener{config: lc, dialect: known[lc.Dialect]}
		if err := l.check(c, names); err != nil {
			faults = append(faults, fmt.Errorf("listeners[%d] (%s): %w", i, lc.Address, err))
		}
		out = append(out, l)
	}
	return out, errors.Join(faults...)
}

func (l *listener) check(c *config.Config, names []string) error {
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
		_, err := groupID(l.config.Group)
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

// who says in a few words who may call, for people.
func (l *listener) who() string {
	a, own := l.dialect.(plugin.Authenticator)
	switch {
	case l.config.Path() != "":
		return "whom the socket's mode and socket.allow let"
	case l.config.TokenFile != "":
		return "who shows a token of " + l.config.TokenFile
	case l.config.InsecureLoopback:
		return "every process of this host (insecure_loopback)"
	case own:
		return "who has " + a.Credential()
	default:
		return "nobody"
	}
}

// What a token file may hold.
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
	return b, nil
}

// readCredentials reads the listener's credentials_file, and refuses one with a credential that can be guessed.
func (l *listener) readCredentials(c *config.Config) ([]byte, error) {
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
				"token_file %s: a token has %d bytes, and must have %d at least; `openssl rand -hex 32` makes a "+
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

// vouch says who sent a request over TCP. A token is taken off the request: it is no business of the dialect's.
func (a *Agent) vouch(l *listener, r *http.Request) (enforcer.Caller, bool, *enforcer.Denial) {
	if l.config.TokenFile == "" {
		_, own := l.dialect.(plugin.Authenticator)
		if l.config.InsecureLoopback {
			return byCredential("loopback"), true, nil
		} else if own {
			return enforcer.Caller{UID: api.Nobody, GID: api.Nobody}, false, nil
		}
		return enforcer.Caller{}, false, &enforcer.Denial{Code: api.Unauthenticated, Detail: "nobody may call here"}
	}
	tokens, err := readTokens(a.settings(), l.config.TokenFile)
	if err != nil {
		a.log.Error("no call over TCP can be let in", "listener", l.address(), "error", err)
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
	return byCredential(a.credentialName("token", string(token))), true, nil
}

// openListeners takes the addresses of the dialects' listeners, and opens the stores of the dialects.
func (a *Agent) openListeners(dialects []plugin.Dialect) error {
	found, err := checkListeners(a.config, dialects)
	if err != nil {
		return err
	}
	a.stores, a.handlers, a.dialectKeys = dialectStores{}, map[string]http.Handler{}, map[string]dialectPublic{}
	for i, l := range found {
		if err := a.openDialect(l.dialect); err != nil {
			return err
		}
		if err := a.listen(i, l); err != nil {
			return fmt.Errorf("listeners[%d]: %w", i, err)
		}
		a.listeners = append(a.listeners, l)
	}
	return nil
}

// openDialect makes the desk of a dialect, where a listener before has not.
func (a *Agent) openDialect(d plugin.Dialect) error {
	system := d.System()
	if a.handlers[system] != nil {
		return nil
	}
	key, err := dialectKey(a.key, system)
	if err != nil {
		return err
	}
	log := a.log.With("dialect", system)
	store, err := openDialectStore(a.state.path, system, log, nil, a.seals.state)
	if err != nil {
		return err
	}
	a.stores[system] = store
	a.dialectKeys[system] = publicOf(key)
	a.handlers[system] = d.Handler(&dialectDesk{agent: a, system: system, store: store, key: key, log: log})
	return nil
}

func (a *Agent) listen(i int, l *listener) error {
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
	gid, err := groupID(cmp.Or(l.config.Group, a.config.Socket.Group))
	if err != nil {
		return err
	}
	l.socket, err = api.Listen(api.SocketConfig{Path: path, Key: fmt.Sprintf("listeners[%d].address", i),
		Mode: cmp.Or(l.config.Mode, a.config.Socket.Mode), GID: gid, Lock: files.Lock,
		LockFile: socketLock(a.config.State.RuntimeDir, path), Log: a.log})
	return err
}

// run answers on a listener until ctx ends.
func (a *Agent) runListener(ctx context.Context, l *listener) error {
	d := api.Dialect{Name: l.dialect.System(), Socket: l.socket, TCP: l.tcp, Handler: a.handlers[l.dialect.System()],
		MaxBody: plugin.MaxDialectBody,
		Vouch:   func(r *http.Request) (enforcer.Caller, bool, *enforcer.Denial) { return a.vouch(l, r) }}
	if l.config.CredentialsFile != "" {
		d.Credentials = func() ([]byte, error) { return l.readCredentials(a.settings()) }
	}
	a.log.Info("dialect", "dialect", l.dialect.System(), "address", l.address(), "callers", l.who())
	return a.server.RunDialect(ctx, d)
}
