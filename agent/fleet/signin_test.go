package fleet

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// door is members of etcd, the first of which to be asked for a token never answers.
type door struct {
	forgetful
	asked atomic.Int32
	err   error // of the others; nil: they give one
}

func (d *door) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	if d.asked.Add(1) == 1 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.forgetful.Authenticate(ctx, r)
}

// A user signs in at another member where the first that is asked takes the request and does not answer: a call needs
// not wait until the client gives up, and succeeds. What another member says of the user counts.
func TestSignInAtAMemberThatHangs(t *testing.T) {
	t.Parallel()
	for want, err := range map[Fault]error{"": nil, FaultAuth: rpctypes.ErrGRPCAuthFailed} {
		t.Run("says "+string(want), func(t *testing.T) {
			t.Parallel()
			members := &door{err: err}
			var at []string
			for range 3 {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				server := grpc.NewServer()
				pb.RegisterKVServer(server, members)
				pb.RegisterAuthServer(server, members)
				go server.Serve(l)
				t.Cleanup(server.Stop)
				at = append(at, "http://"+l.Addr().String())
			}
			e := Dial(at, "agent", "secret", nil)
			t.Cleanup(func() { e.Close() })
			ctx, cancel := context.WithTimeout(t.Context(), dialWithin) // after which the client gives up
			defer cancel()
			if _, err := e.connected(ctx); err == nil || want == "" {
				if err != nil || want != "" {
					t.Errorf("after %d requests: %v", members.asked.Load(), err)
				}
			} else if fault, reason := FaultOf(err); fault != want {
				t.Errorf("it is %s: %s", fault, reason)
			}
		})
	}
}
