package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// Bounds of the way to etcd.
const (
	dialWithin = 5 * time.Second
	pingEvery  = 5 * time.Second // a connection on which nothing answers is ended; calls leave it sooner, see ask
	// refusalsMost is how often one call may be refused for its token. etcd's client authenticates again and repeats
	// the call, which mends a token that etcd has forgotten at the first time. It would do so a hundred times.
	refusalsMost = 4
)

// Dial makes a client of etcd's members. It connects when it is used. tlsConfig is for addresses with https.
func Dial(endpoints []string, user, password string, tlsConfig *tls.Config) *Etcd {
	e := &Etcd{making: make(turn, 1)}
	e.config.Store(&clientv3.Config{Endpoints: endpoints, Username: user, Password: password,
		TLS: tlsConfig, DialTimeout: dialWithin, DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingEvery,
		Logger: zap.NewNop(), DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(refuse, e.signIn,
			e.signInElsewhere),
			grpc.WithDisableServiceConfig(), grpc.WithDefaultServiceConfig(chooses)}})
	return e
}

// refusals counts how often one call was refused for its token.
type refusals struct{ atomic.Int32 }

type refusalsKey struct{}

// counting has the call of a context end once it was refused for its token too often.
func counting(ctx context.Context) context.Context {
	return context.WithValue(ctx, refusalsKey{}, new(refusals))
}

// refusedError is the error of a call that was refused for its token too often. It hides which of etcd's errors that
// was from etcd's client, which would repeat the call, and which knows its errors by their text, too.
type refusedError struct{ last error }

func (r refusedError) Error() string {
	return fmt.Sprintf("%d tokens were refused in turn: %v", refusalsMost, r.last)
}

// refuse ends a call that was refused for its token too often. Without it the caller's time runs out first, and tokens
// that etcd never accepts would look like an etcd that does not answer.
func refuse(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err == nil {
		return nil
	}
	n, _ := ctx.Value(refusalsKey{}).(*refusals)
	if is := rpctypes.Error(err); n != nil && tokenRefused(is) && n.Add(1) >= refusalsMost {
		return refusedError{is}
	}
	return err
}

// renewing marks the calls of a renewal.
type renewing struct{}

// signIn lets a renewal use the token that the last sign-in has brought. etcd's client signs in before each stream, and
// a renewal is one. To check a password costs etcd a tenth of a second of a processor and an entry of its log, so that
// some hundreds of agents would keep it busy. etcd refuses a token that it has forgotten, also in the reads that come
// with each renewal, and those sign in again.
func (e *Etcd) signIn(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	answer, ok := reply.(*etcdserverpb.AuthenticateResponse)
	if !ok {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	if token := e.token.Load(); token != nil && ctx.Value(renewing{}) != nil {
		answer.Token = *token
		return nil
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err == nil {
		e.token.Store(&answer.Token)
	}
	return err
}

// tokenRefused reports whether etcd has refused a call for its token.
func tokenRefused(err error) bool {
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		errors.Is(err, rpctypes.ErrUserEmpty)
}

// Use has all calls from now on use a renewed password and renewed certificates. Calls under way end with an error that
// may pass.
func (e *Etcd) Use(password string, tlsConfig *tls.Config) {
	next := *e.config.Load()
	next.Password, next.TLS = password, tlsConfig
	e.config.Store(&next)
	e.token.Store(nil)
	if c := e.client.Swap(nil); c != nil {
		c.Close()
	}
}

// forgetToken has the next call ask for another token, where there is a password. A token names an index of etcd's log:
// a member that has applied less waits until it has applied that much. One that was restored from a backup may never,
// and then each call with the token hangs, also that which asks for another one.
func (e *Etcd) forgetToken() {
	if e.config.Load().Username == "" {
		return
	}
	if c := e.client.Swap(nil); c != nil {
		c.Close()
	}
}

// Close ends the connections.
func (e *Etcd) Close() error {
	if c := e.client.Load(); c != nil {
		return c.Close()
	}
	return nil
}
