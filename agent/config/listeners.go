package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Listener is an address at which the agent answers the API of a licence system, by that system's dialect.
type Listener struct {
	// Address is an absolute path, with or without unix: before it, or a loopback address and port.
	Address string      `yaml:"address"`
	Dialect string      `yaml:"dialect"` // name of the system
	Mode    fs.FileMode `yaml:"mode"`    // of a Unix socket; 0: as socket.mode
	Group   string      `yaml:"group"`   // of a Unix socket; empty: as socket.group
	// TokenFile holds the tokens that callers over TCP show, one a line.
	TokenFile        string `yaml:"token_file" file:"use"`
	InsecureLoopback bool   `yaml:"insecure_loopback"` // callers over TCP show no token
	// CredentialsFile holds the credentials that a dialect accepts for its own system, in the dialect's form.
	CredentialsFile string `yaml:"credentials_file" file:"use"`
	// Installers are the names of the credentials by which a caller over TCP may install documents.
	Installers []string `yaml:"installers"`
}

// Path returns the path of a Unix socket; empty for an address of TCP.
func (l Listener) Path() string {
	if p, ok := strings.CutPrefix(l.Address, "unix:"); ok {
		return p
	}
	if strings.HasPrefix(l.Address, "/") {
		return l.Address
	}
	return ""
}

// TCP returns the loopback address and port of a listener that is no Unix socket, or says what is wrong with it.
func (l Listener) TCP() (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return a,
			fmt.Errorf(
				"address is %q, and must be an absolute path, or a loopback address and port in numbers, such as "+
					"127.0.0.1:8130 or [::1]:8130", clip(l.Address))
	}
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if !a.Addr().IsLoopback() || a.Addr().Zone() != "" {
		return a,
			fmt.Errorf(
				"address %s can be reached from other hosts, and a dialect is for this host alone; use 127.0.0.1, "+
					"[::1] or a Unix socket", clip(l.Address))
	}
	return a, nil
}

// String returns the address in one form, however it was written.
func (l Listener) String() string {
	if p := l.Path(); p != "" {
		return "unix:" + filepath.Clean(p)
	}
	if a, err := l.TCP(); err == nil {
		return a.String()
	}
	return l.Address
}

func (k *checker) listeners() {
	taken := map[string]string{"unix:" + filepath.Clean(k.config.Socket.Path): "socket.path",
		Listener{Address: k.config.Ops.Listen}.String(): "ops.listen"}
	for i, l := range k.config.Listeners {
		key := fmt.Sprintf("listeners[%d]", i)
		path := l.Path()
		if l.Address == "" {
			k.bad(key,
				"%s: address is missing; give the path of a Unix socket, or a loopback address and port such as "+
					"127.0.0.1:8130", key)
			continue
		}
		if l.Dialect == "" {
			k.bad(key, "%s (%s): dialect is missing; name the licence system whose API is answered there", key,
				clip(l.Address))
		}
		if path != "" || strings.HasPrefix(l.Address, "unix:") {
			k.unixListener(key, path, l)
		} else {
			k.tcpListener(key, l)
		}
		k.credentials(key, l)
		name := l.String()
		if was := taken[name]; was != "" {
			k.bad(key, "%s: %s listens on %s already; give each an address of its own", key, was, clip(name))
		}
		if a, err := l.TCP(); err != nil || a.Port() != 0 {
			taken[name] = key
		}
	}
}

func (k *checker) credentials(key string, l Listener) {
	if l.CredentialsFile != "" && !filepath.IsAbs(l.CredentialsFile) {
		k.bad(key, "%s (%s): credentials_file %q must be an absolute path", key, clip(l.Address),
			clip(l.CredentialsFile))
	}
	if len(l.Installers) > 0 && (l.CredentialsFile == "" || l.Path() != "" || l.TokenFile != "" || l.InsecureLoopback) {
		k.bad(key, "%s (%s): installers names credentials of a credentials_file on TCP, without token_file and "+
			"insecure_loopback; on a Unix socket admins may install, see socket.admin", key, clip(l.Address))
	}
	if slices.Contains(l.Installers, "") {
		k.bad(key, "%s (%s): installers has an empty name; leave it out", key, clip(l.Address))
	}
}

func (k *checker) unixListener(key, path string, l Listener) {
	switch n := len(path); {
	case !filepath.IsAbs(path):
		k.bad(key, "%s: the path %q of the socket must be absolute", key, clip(path))
	case n > maxSocketPath:
		k.bad(key, "%s: the socket's path has %d bytes, and the kernel takes at most %d; choose a shorter one", key, n,
			maxSocketPath)
	case l.TokenFile != "" || l.InsecureLoopback:
		k.bad(key,
			"%s (%s): token_file and insecure_loopback are for TCP; on a Unix socket the kernel says who calls, and "+
				"socket.allow who may", key, clip(l.Address))
	case l.Mode != 0 && l.Mode&0o222 == 0:
		k.bad(key,
			"%s (%s): mode %04o lets nobody connect: to connect needs write permission; leave it out for that of "+
				"socket.mode", key, clip(l.Address), uint32(l.Mode))
	}
}

func (k *checker) tcpListener(key string, l Listener) {
	switch _, err := l.TCP(); {
	case err != nil:
		k.bad(key, "%s: %v", key, err)
	case l.Mode != 0 || l.Group != "":
		k.bad(key, "%s (%s): mode and group are for Unix sockets; leave them out", key, clip(l.Address))
	case l.TokenFile != "" && l.InsecureLoopback:
		k.bad(key, "%s (%s): token_file and insecure_loopback are both given; keep one", key, clip(l.Address))
	case l.TokenFile != "" && !filepath.IsAbs(l.TokenFile):
		k.bad(key, "%s (%s): token_file %q must be an absolute path", key, clip(l.Address), clip(l.TokenFile))
	}
}
