package client

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/usher-agent/usher/client/wire"
)

// Process is another process, which is to hold a lease. It is that process alone, also once its number is another's.
type Process struct {
	pid   int32
	pidfd int // -1: this system has none
}

// OpenProcess returns the process that has a number now, as this process sees it. It is [ErrBadRequest] when there is
// none. Call Close when done.
func OpenProcess(pid int) (*Process, error) {
	if pid < 1 || pid > 1<<31-1 {
		return nil, noProcess(pid)
	}
	fd, gone := pidfdOf(pid)
	if gone {
		return nil, noProcess(pid)
	}
	return &Process{int32(pid), fd}, nil
}

func noProcess(pid int) error {
	return &Error{Problem: wire.Problem{Code: string(ErrBadRequest), Field: "pid", Title: "Bad request",
		Detail: fmt.Sprintf("there is no process %d", pid), Hint: "name a process that runs"}}
}

// Close gives the process back; leases that it holds stay.
func (p *Process) Close() error {
	fd := p.pidfd
	p.pidfd = -1
	return closePIDFD(fd)
}

// AcquireFor asks for slots that another process holds until it ends; this one may end sooner. The process must be one
// of this user's, unless this user is root. The lease counts as that process's, wherever it counts by process, user or
// pod. [Client.Release] gives it back sooner.
//
// Besides the number the agent gets a pidfd (Linux 5.3), by which it holds on to the very process, in whatever PID
// namespace. Without pidfds the agent refuses.
func (c *Client) AcquireFor(ctx context.Context, p *Process, r wire.AcquireRequest) (*wire.Lease, error) {
	r.PID = p.pid
	one := New(c.socket) // a connection of its own, whose first bytes carry the pidfd
	one.within = c.within
	one.inVain.Store(c.inVain.Load())
	one.http.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dial(ctx, c.socket)
			if err != nil {
				return nil, err
			}
			return &first{UnixConn: conn, of: p}, nil
		}}
	out := new(wire.Lease)
	err := c.waiting(ctx, r.WaitSeconds, func(ctx context.Context) error {
		return one.do(ctx, "POST", "/v1/leases", r, out)
	})
	c.inVain.Store(one.inVain.Load())
	if err != nil {
		return nil, err
	}
	return out, nil
}
