package fleet

import (
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// signInElsewhere sends a user's sign-in to another member where one does not answer it, as Etcd does with calls:
// etcd's client signs in by itself, and would wait for the first member that it asks.
func (e *Etcd) signInElsewhere(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	to, ok := reply.(*pb.AuthenticateResponse)
	if !ok || e.Members() < 2 {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	opts = slices.DeleteFunc(slices.Clone(opts), answersInto)
	got, _, err := ask(ctx, e.Members(), &e.signIns, nil, func(ctx context.Context) (*pb.AuthenticateResponse, error) {
		var one pb.AuthenticateResponse
		if err := invoke(ctx, method, req, &one, cc, opts...); err != nil {
			return nil, signInError{err}
		}
		return &one, nil
	})
	if raw := (signInError{}); errors.As(err, &raw) {
		return raw.of // which etcd's client knows
	}
	if err != nil {
		return err
	}
	to.Header, to.Token = got.Header, got.Token
	return nil
}

// answersInto reports whether an option has gRPC write what it learns of one sending where all sendings would: etcd's
// client only logs it.
func answersInto(o grpc.CallOption) bool {
	switch o.(type) {
	case grpc.PeerCallOption, grpc.HeaderCallOption, grpc.TrailerCallOption:
		return true
	}
	return false
}

// signInError is gRPC's error of a sign-in. It unwraps to what etcd means by it.
type signInError struct{ of error }

func (s signInError) Error() string { return s.of.Error() }
func (s signInError) Unwrap() error { return rpctypes.Error(s.of) }
