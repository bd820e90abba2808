package fleet

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
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
