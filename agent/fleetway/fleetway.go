// Package fleetway is the way of a member to the etcd of its fleet: the files that it needs, which may be renewed while
// it runs, and what its metrics have of it. Agents and site servers share it.
package fleetway

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
)

// Way is how a member reaches etcd.
type Way struct {
	Endpoints []string
	User      string // of etcd; empty: none
	// Password, CA, Cert and Key are files; CA, Cert and Key are for addresses with https alone, in PEM.
	Password, CA, Cert, Key File
	// Read reads a file.
	Read func(path string) ([]byte, error)
}

// File is a file of the way.
type File struct {
	Setting string // as people know it, such as fleet.ca_file
	Path    string // empty: there is none
}

// Secure reports whether any address has https.
func (w *Way) Secure() bool {
	return slices.ContainsFunc(w.Endpoints, func(at string) bool { return strings.HasPrefix(at, "https://") })
}

// Open reads the files. way is nil where no address has https. An error names the setting.
func (w *Way) Open() (password string, way *tls.Config, err error) {
	if w.Password.Path != "" {
		b, err := w.Read(w.Password.Path)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", w.Password.Setting, err)
		}
		if password = strings.TrimSpace(string(b)); password == "" {
			return "", nil, fmt.Errorf("%s: %s is empty; write the password into it", w.Password.Setting,
				w.Password.Path)
		}
	}
	if !w.Secure() {
		return password, nil, nil
	}
	way = &tls.Config{MinVersion: tls.VersionTLS12}
	if w.CA.Path != "" {
		b, err := w.Read(w.CA.Path)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", w.CA.Setting, err)
		}
		way.RootCAs = x509.NewCertPool()
		if !way.RootCAs.AppendCertsFromPEM(b) {
			return "", nil, errors.New(w.CA.Setting + ": " + w.CA.Path + " holds no certificate in PEM")
		}
	}
	if w.Cert.Path != "" {
		cert, err := w.pair()
		if err != nil {
			return "", nil, fmt.Errorf("%s and %s: %w", w.Cert.Setting, w.Key.Setting, err)
		}
		way.Certificates = []tls.Certificate{cert}
	}
	return password, way, nil
}

func (w *Way) pair() (tls.Certificate, error) {
	cert, err := w.Read(w.Cert.Path)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := w.Read(w.Key.Path)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// Dial makes a client of etcd. It connects when it is used.
func (w *Way) Dial() (*fleet.Etcd, error) {
	password, way, err := w.Open()
	if err != nil {
		return nil, err
	}
	return fleet.Dial(w.Endpoints, w.User, password, way), nil
}

// lookEvery is how often the files are looked at.
const lookEvery = 3 * time.Second

// Renew has a client use renewed files once they are good together, until ctx ends. It tells of each look at files that
// changed: a nil error where they are used from now on, else why they are not; then the old ones stay in use.
func (w *Way) Renew(ctx context.Context, store interface{ Use(string, *tls.Config) }, tell func(error)) error {
	used, refused := w.contents(), false
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		is := w.contents()
		if is == used && !refused {
			continue
		}
		password, way, err := w.Open()
		if refused = err != nil; !refused {
			used = is
			store.Use(password, way)
		}
		tell(err)
	}
}

// contents returns digests of the files; one that cannot be read is as if it were empty.
func (w *Way) contents() (all [4][sha256.Size]byte) {
	for i, f := range []File{w.Password, w.CA, w.Cert, w.Key} {
		if f.Path != "" {
			b, _ := w.Read(f.Path) // Open says what is wrong
			all[i] = sha256.Sum256(b)
		}
	}
	return all
}
