package fleet

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// forgetful is a member of etcd that refuses tokens: all of them, or the first ones.
type forgetful struct {
	pb.UnimplementedKVServer
	pb.UnimplementedAuthServer
	err   error
	until int32 // how many calls are refused; 0: all
	asked atomic.Int32
}

func (f *forgetful) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return &pb.AuthenticateResponse{Token: "token"}, nil
}

func (f *forgetful) Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error) {
	if n := f.asked.Add(1); f.until == 0 || n <= f.until {
		return nil, f.err
	}
	return &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: true}, nil
}

// A token that etcd never accepts is the user's fault after a few calls, and no silence of etcd after a hundred; one
// that etcd has forgotten is made again, and the call succeeds.
func TestTokensRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		user  string
		err   error
		until int32
	}{
		"a password whose tokens are no good": {user: "agent", err: rpctypes.ErrGRPCInvalidAuthToken},
		"a token of an old revision":          {user: "agent", err: rpctypes.ErrGRPCAuthOldRevision},
		"a token that is not seen":            {user: "agent", err: rpctypes.ErrGRPCUserEmpty},
		"no user":                             {err: rpctypes.ErrGRPCInvalidAuthToken},
		"a certificate as the user":           {err: rpctypes.ErrGRPCAuthOldRevision},
		"a token that is forgotten once":      {user: "agent", err: rpctypes.ErrGRPCInvalidAuthToken, until: 1},
		"users that change meanwhile": {user: "agent", err: rpctypes.ErrGRPCAuthOldRevision,
			until: refusalsMost - 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			member := &forgetful{err: c.err, until: c.until}
			server := grpc.NewServer()
			pb.RegisterKVServer(server, member)
			pb.RegisterAuthServer(server, member)
			go server.Serve(l)
			t.Cleanup(server.Stop)
			password := ""
			if c.user != "" {
				password = "secret"
			}
			e := Dial([]string{"http://" + l.Addr().String()}, c.user, password, nil)
			t.Cleanup(func() { e.Close() })
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = e.Txn(ctx, &Txn{Then: []Op{{Get: "/usher/c"}}})
			asked := member.asked.Load()
			if c.until > 0 {
				if err == nil || err == errStrange { // the member keeps no keys
					if asked != c.until+1 {
						t.Errorf("it was asked %d times", asked)
					}
					return
				}
				t.Fatal(err)
			}
			fault, reason := FaultOf(err)
			if fault != FaultAuth || asked > refusalsMost {
				t.Errorf("after %d calls it is %s: %s", asked, fault, reason)
			}
		})
	}
}

// tokens is a member of etcd that counts who signs in, and may refuse one renewal for its token.
type tokens struct {
	pb.UnimplementedAuthServer
	pb.UnimplementedLeaseServer
	signed atomic.Int32
	refuse atomic.Bool
}

func (s *tokens) Authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return &pb.AuthenticateResponse{Token: fmt.Sprint("token.", s.signed.Add(1))}, nil
}

func (s *tokens) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	asked, err := stream.Recv()
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	if s.refuse.CompareAndSwap(true, false) || len(md.Get(rpctypes.TokenFieldNameGRPC)) != 1 {
		return rpctypes.ErrGRPCInvalidAuthToken
	}
	return stream.Send(&pb.LeaseKeepAliveResponse{ID: asked.ID, TTL: 30})
}

// A renewal costs etcd no sign-in, whose work would keep it busy where many agents renew, unless the token is refused.
func TestRenewalsSignInOnce(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	member := &tokens{}
	server := grpc.NewServer()
	pb.RegisterAuthServer(server, member)
	pb.RegisterLeaseServer(server, member)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	e := Dial([]string{"http://" + l.Addr().String()}, "agent", "secret", nil)
	t.Cleanup(func() { e.Close() })
	renew := func(times int) {
		t.Helper()
		for range times {
			if _, _, err := e.Renew(t.Context(), 7); err != nil {
				t.Fatal(err)
			}
		}
	}
	renew(5)
	if n := member.signed.Load(); n != 1 {
		t.Errorf("5 renewals made %d sign-ins", n)
	}
	member.refuse.Store(true)
	if _, _, err := e.Renew(t.Context(), 7); !tokenRefused(err) {
		t.Errorf("a refused renewal says %v", err)
	}
	renew(5)
	if n := member.signed.Load(); n != 2 {
		t.Errorf("after a refusal there were %d sign-ins", n)
	}
	e.Use("renewed", nil)
	renew(5)
	if n := member.signed.Load(); n != 3 {
		t.Errorf("with a renewed password there were %d sign-ins", n)
	}
}
