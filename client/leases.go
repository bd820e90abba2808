package client

import (
	"context"
	"iter"
	"net/url"
	"strconv"

	"github.com/usher-agent/usher/client/wire"
)

// LeaseFilter says which leases are listed. The zero value is all that the caller may see.
type LeaseFilter struct {
	Pool string  // of this pool only
	UID  *uint32 // of this user only; another's are for admins, and the agent must know pages
}

// leasePage is how many leases one call lists. An agent that knows no pages answers with all at once.
const leasePage = 1000

// EachLease lists the caller's leases, or everybody's for an admin, in the order in which they were acquired. It reads
// them from the agent a page at a time, and keeps one page. A lease that is held all the while is listed once, even if
// the agent restarts meanwhile. One that is acquired or ends meanwhile is listed once or not. The list ends with the
// first error.
func (c *Client) EachLease(ctx context.Context, f LeaseFilter) iter.Seq2[*wire.Lease, error] {
	return func(yield func(*wire.Lease, error) bool) {
		q := url.Values{"pool": {f.Pool}, "limit": {strconv.Itoa(leasePage)}}
		if f.UID != nil {
			q.Set("uid", strconv.FormatUint(uint64(*f.UID), 10))
		}
		for {
			page, err := get[wire.Leases](ctx, c, "/v1/leases?"+q.Encode())
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range page.Leases {
				if !yield(&page.Leases[i], nil) {
					return
				}
			}
			if page.Next == "" || page.Next == q.Get("after") {
				return
			}
			q.Set("after", page.Next)
		}
	}
}

// Leases returns the caller's leases, or everybody's for an admin. It is limited to one pool unless pool is empty.
// [Client.EachLease] keeps no more than a page of them.
func (c *Client) Leases(ctx context.Context, pool string) ([]wire.Lease, error) {
	out := []wire.Lease{}
	for l, err := range c.EachLease(ctx, LeaseFilter{Pool: pool}) {
		if err != nil {
			return nil, err
		}
		out = append(out, *l)
	}
	return out, nil
}
