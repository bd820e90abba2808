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

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/usher-agent/usher/client/wire"
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
	// Members returns how many members there are.
	Members() int
}

// Members returns how many members the configuration names.
func (e *Etcd) Members() int { return len(e.config.Load().Endpoints) }

// explaining returns the fault that says why none of so many members can be asked: that of a member without a leader,
// or else the first. nil: some of them can be asked.
func explaining(faults []MemberFault, members int) *MemberFault {
	if len(faults) == 0 || len(faults) < members {
		return nil
	}
	for i := range faults {
		if faults[i].Fault == FaultNoLeader {
			return &faults[i]
		}
	}
	return &faults[0]
}

// Explain returns which fault an error of a store is, and says what is wrong in words. Where the store has not
// answered, it looks at each of its members.
func Explain(ctx context.Context, store Store, err error) (f Fault, reason string) {
	f, reason = FaultOf(err)
	d, ok := store.(Diagnoser)
	if f != FaultSilent || !ok {
		return f, reason
	}
	ctx, cancel := context.WithTimeout(ctx, diagnoseWithin)
	defer cancel()
	if m := explaining(d.Diagnose(ctx, ""), d.Members()); m != nil {
		return m.Fault, m.Endpoint + ": " + m.Reason
	}
	return f, reason
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
			if fault == FaultSilent {
				e.forgetToken()
			}
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
	} else if speaksTLS(ctx, conn) {
		return FaultTLS, "it speaks TLS there, and the address begins with http://"
	}
	is, err := e.status(ctx, endpoint)
	switch {
	case errors.Is(err, errUnchecked):
		return FaultNoLeader, err.Error()
	case err != nil && ctx.Err() != nil:
		return FaultSilent, "it takes the connection, and does not answer"
	case err != nil:
		return FaultOf(err)
	case outOfQuota(is):
		return FaultNoSpace, "it is out of quota (NOSPACE), and takes no writes"
	case is.Leader == 0:
		return FaultNoLeader, "it knows no leader: it does not reach more than half of the members"
	}
	return "", ""
}

func outOfQuota(is *clientv3.StatusResponse) bool {
	return slices.ContainsFunc(is.Errors, func(text string) bool { return strings.Contains(text, "NOSPACE") })
}

// sizesWithin bounds how long members are asked for their sizes.
const sizesWithin = time.Second

// Sizes returns how full each member is that answers soon, in the order of the configuration.
func (e *Etcd) Sizes(ctx context.Context) (out []wire.FleetSize) {
	ctx, cancel := context.WithTimeout(ctx, sizesWithin)
	defer cancel()
	endpoints := e.config.Load().Endpoints
	found := make([]*clientv3.StatusResponse, len(endpoints))
	var all sync.WaitGroup
	for i, at := range endpoints {
		all.Go(func() {
			if c, err := e.connected(ctx); err == nil {
				found[i], _ = c.Status(counting(ctx), at)
			}
		})
	}
	all.Wait()
	for i, is := range found {
		if is != nil {
			out = append(out, wire.FleetSize{Endpoint: endpoints[i], Bytes: is.DbSize, QuotaBytes: is.DbSizeQuota,
				NoSpace: outOfQuota(is)})
		}
	}
	return out
}

// errUnchecked is the error of a member that answers, and cannot check a password.
var errUnchecked = errors.New("it answers, and checks no user: it knows no leader, or waits for its disk")

// status asks a member how it is. It first asks without a user, because a member without a leader checks no password;
// etcd from 3.6 on answers to users alone.
func (e *Etcd) status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	config := *e.config.Load()
	named := config.Username != ""
	config.Endpoints, config.Username, config.Password = []string{endpoint}, "", ""
	anybody, err := clientv3.New(config)
	if err != nil {
		return nil, err
	}
	defer anybody.Close()
	is, err := anybody.Status(ctx, endpoint)
	if err == nil || !named {
		return is, err
	}
	if fault, _ := FaultOf(err); fault != FaultAuth && fault != FaultDenied {
		return nil, err
	}
	c, err := e.connected(ctx)
	if err == nil {
		is, err = c.Status(counting(ctx), endpoint)
	}
	if err != nil && ctx.Err() != nil {
		e.forgetToken()
		return nil, errUnchecked
	}
	return is, err
}

// speaksTLS reports whether a member answers as one that speaks TLS. The connection is of no further use.
func speaksTLS(ctx context.Context, conn net.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, shakeWithin)
	defer cancel()
	// Nothing is sent or believed, so that any certificate will do.
	err := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) // #nosec G402
	var alert tls.AlertError
	return err == nil || errors.As(err, &alert)
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
