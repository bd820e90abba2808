package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/usher-agent/usher/plugin"
)

// Fault says in one word why the store cannot be asked.
type Fault string

// The faults.
const (
	FaultDNS        Fault = "dns"         // a member's name cannot be resolved
	FaultRefused    Fault = "refused"     // nobody listens at a member's address
	FaultSilent     Fault = "silent"      // no answer in time
	FaultCA         Fault = "tls_ca"      // a member's certificate is from an unknown authority
	FaultExpired    Fault = "tls_expired" // a member's certificate is out of its time
	FaultName       Fault = "tls_name"    // a member's certificate is for another name
	FaultClientCert Fault = "tls_client"  // a member does not take the agent's certificate
	FaultTLS        Fault = "tls"         // another fault of TLS
	FaultAuth       Fault = "auth"        // the user or the password is not the store's
	FaultDenied     Fault = "denied"      // the user may not use the keys
	FaultNoLeader   Fault = "no_leader"   // the store has no leader, or no quorum
	FaultNoSpace    Fault = "no_space"    // the store is out of its quota, and takes no writes
	FaultSlow       Fault = "slow"        // the store's writes take long
	FaultOther      Fault = "other"
)

// Faults are all of them.
var Faults = []Fault{FaultDNS, FaultRefused, FaultSilent, FaultCA, FaultExpired, FaultName, FaultClientCert, FaultTLS,
	FaultAuth, FaultDenied, FaultNoLeader, FaultNoSpace, FaultSlow, FaultOther}

// mends are what to do about a fault.
var mends = map[Fault]string{
	FaultDNS:     "check the name under fleet.endpoints, and the host's resolver",
	FaultRefused: "start that member of etcd, or correct its address under fleet.endpoints",
	FaultSilent:  "check the members of fleet.endpoints, their disks and the way there",
	FaultCA:      "name the authority of etcd's certificates under fleet.ca_file",
	FaultExpired: "renew the certificate of that member of etcd; check this host's clock, too",
	FaultName:    "name the member under fleet.endpoints by a name that its certificate has",
	FaultClientCert: "name a certificate of the agent under fleet.cert_file, or renew it; etcd's --trusted-ca-file " +
		"must have its authority",
	FaultTLS:    "does the member speak TLS there? http:// is for an etcd without",
	FaultAuth:   "check fleet.user and fleet.password_file",
	FaultDenied: "give the user the role that docs/fleet.md has, for the keys of fleet.prefix",
	FaultNoLeader: "see `etcdctl endpoint status --cluster`: more than half of the members must run and reach " +
		"each other",
	FaultNoSpace: "compact etcd with `--physical` and defragment it, then disarm the alarm: `etcdctl alarm disarm`",
	FaultSlow:    "give etcd a disk of its own that syncs fast; see etcd_disk_wal_fsync_duration_seconds",
	FaultOther:   "see the log of etcd",
}

// Mend returns what to do about a fault.
func (f Fault) Mend() string { return mends[f] }

// FaultOf returns which fault an error of the store is, and says what is wrong in words.
func FaultOf(err error) (f Fault, reason string) {
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		return FaultAuth, "etcd does not accept the user: " + err.Error()
	case errors.Is(err, rpctypes.ErrNoSpace):
		return FaultNoSpace, "etcd is out of quota (NOSPACE), and takes no writes"
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return FaultDenied, "etcd does not let the user use the fleet's keys: " + err.Error()
	case errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserEmpty),
		errors.Is(err, rpctypes.ErrInvalidAuthToken), errors.Is(err, rpctypes.ErrAuthOldRevision),
		errors.Is(err, rpctypes.ErrAuthNotEnabled), errors.Is(err, rpctypes.ErrUserNotFound):
		return FaultAuth, "etcd does not accept the user: " + err.Error()
	case errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail),
		errors.Is(err, rpctypes.ErrTimeoutDueToConnectionLost), errors.Is(err, rpctypes.ErrLeaderChanged),
		errors.Is(err, rpctypes.ErrTimeout):
		return FaultNoLeader, "etcd has no leader: " + err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return FaultSilent, "etcd has not answered in time"
	}
	return faultOfWay(err)
}

// mayBeDone reports whether a change whose answer is this error may have been done, or be done later: etcd has not said
// that it refuses it.
func mayBeDone(err error) bool {
	var is rpctypes.EtcdError
	if errors.Is(err, errUnsure) || !errors.As(err, &is) {
		return true
	}
	switch is.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal, codes.Aborted:
		return true
	}
	return false
}

// faultOfWay is FaultOf for an error on the way to a member.
func faultOfWay(err error) (Fault, string) {
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var alert tls.AlertError
	var header tls.RecordHeaderError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns):
		return FaultDNS, fmt.Sprintf("%s cannot be resolved: %s", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return FaultRefused, "nobody listens there: " + err.Error()
	case errors.As(err, &authority):
		return FaultCA, "its certificate is from an unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return FaultExpired, "its certificate is out of its time: " + invalid.Error()
	case errors.As(err, &name):
		return FaultName, name.Error()
	case errors.As(err, &alert):
		return FaultClientCert, "it does not take the agent's certificate: " + alert.Error()
	case errors.As(err, &header):
		return FaultTLS, "it does not speak TLS there"
	case errors.As(err, &timeout) && timeout.Timeout():
		return FaultSilent, "it has not answered in time"
	}
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message() // without the words of gRPC
	}
	for _, f := range Faults { // an error of gRPC has the cause in words alone
		for _, word := range wayWords[f] {
			if !strings.Contains(text, word) {
				continue
			}
			if slices.Contains(lateWords, word) {
				text = "etcd has not answered in time"
			}
			return f, text
		}
	}
	return FaultOther, "etcd cannot be asked: " + text
}

// lateWords are what gRPC says of a member that does not answer in time.
var lateWords = []string{"i/o timeout", "deadline exceeded", "keepalive ping failed"}

// wayWords are what gRPC says of the way to a member.
var wayWords = map[Fault][]string{
	FaultDNS:        {"no such host", "server misbehaving"},
	FaultRefused:    {"connection refused"},
	FaultCA:         {"signed by unknown authority"},
	FaultExpired:    {"certificate has expired or is not yet valid"},
	FaultName:       {"certificate is valid for", "doesn't contain any IP SANs", "not valid for any names"},
	FaultClientCert: {"remote error: tls: bad certificate", "tls: certificate required", "remote error: tls: expired"},
	FaultSilent:     append([]string{"no route to host", "network is unreachable"}, lateWords...),
	FaultTLS:        {"first record does not look like a TLS handshake"},
}

// transient returns an error of the store as the contract has it. That no member answers has its cause where that is
// known.
func (f *Fleet) transient(err error) *plugin.Error {
	fault, reason := FaultOf(err)
	if m := f.explains.Load(); m != nil && fault == FaultSilent {
		fault, reason = m.Fault, m.Endpoint+": "+m.Reason
	}
	return &plugin.Error{Class: plugin.Transient, Reason: reason, Hint: fault.Mend()}
}
