package fleet

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// diagnoseWithin bounds how long the members of the store are looked at.
const diagnoseWithin = 2 * time.Second

// MemberFault is what is wrong with one member of the store.
type MemberFault struct {
	Endpoint string
	Fault    Fault
	Reason   string
}

// Diagnoser is a store that can say what is wrong with each of its members.
type Diagnoser interface {
	// Diagnose returns what is wrong, where a read of a key shows it, too.
	Diagnose(ctx context.Context, key string) []MemberFault
}

// Diagnose goes the way to each member step by step: name, connection, TLS, user, leader, quota. It returns the first
// fault of each member, in the order of the configuration; where no member has one, that of a read of the key.
func (e *Etcd) Diagnose(ctx context.Context, key string) []MemberFault {
	endpoints := e.config.Load().Endpoints
	found := make([]MemberFault, len(endpoints))
	var all sync.WaitGroup
	for i, at := range endpoints {
		all.Go(func() {
			fault, reason := e.member(ctx, at)
			found[i] = MemberFault{at, fault, reason}
		})
	}
	all.Wait()
	found = slices.DeleteFunc(found, func(m MemberFault) bool { return m.Fault == "" })
	if len(found) == 0 && key != "" {
		if _, err := e.Txn(ctx, &Txn{Kind: KindOperate, Then: []Op{{Get: key}}}); err != nil {
			fault, reason := FaultOf(err)
			found = append(found, MemberFault{strings.Join(endpoints, " "), fault, reason})
		}
	}
	return found
}

// member looks at one member.
func (e *Etcd) member(ctx context.Context, endpoint string) (Fault, string) {
	at, err := url.Parse(endpoint)
	if err != nil {
		return FaultOther, err.Error()
	}
	port := cmp.Or(at.Port(), "2379")
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(at.Hostname(), port))
	if err != nil {
		return faultOfWay(err)
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(until); err != nil {
			return faultOfWay(err)
		}
	}
	if at.Scheme == "https" {
		if err := e.shake(ctx, conn, at.Hostname()); err != nil {
			return faultOfWay(err)
		}
	}
	c, err := e.connected(ctx)
	if err != nil {
		return FaultOf(err)
	}
	is, err := c.Status(counting(ctx), endpoint)
	switch {
	case err != nil && ctx.Err() != nil:
		return FaultSilent, "it takes the connection, and does not answer"
	case err != nil:
		return FaultOf(err)
	case slices.ContainsFunc(is.Errors, func(text string) bool { return strings.Contains(text, "NOSPACE") }):
		return FaultNoSpace, "it is out of quota (NOSPACE), and takes no writes"
	case is.Leader == 0:
		return FaultNoLeader, "it knows no leader: it does not reach more than half of the members"
	}
	return "", ""
}

// shakeWithin is for how long a member is given to refuse the agent's certificate, which TLS 1.3 says after the
// handshake.
const shakeWithin = 200 * time.Millisecond

func (e *Etcd) shake(ctx context.Context, conn net.Conn, host string) error {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c := e.config.Load().TLS; c != nil {
		config = c.Clone()
	}
	config.ServerName = cmp.Or(config.ServerName, host)
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return err
	}
	if err := secured.SetReadDeadline(time.Now().Add(shakeWithin)); err != nil {
		return err
	}
	if _, err := secured.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}
