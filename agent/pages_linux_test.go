package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// A list is read in pages. A lease that is held throughout is on one of them, whatever is acquired and ends meanwhile,
// and even if the agent restarts between two pages.
func TestLeasesArePaged(t *testing.T) {
	t.Parallel()
	const many = 1200 // more than a page
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 5000, nil))
	h.until("dropped", inForce("a"))
	acquire := func(r wire.AcquireRequest) string {
		r.Pool, r.TTLSeconds = "streams", 3600
		l, err := h.Acquire(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	throughout := map[string]int{}
	var passing []string
	for i := range many {
		id := acquire(wire.AcquireRequest{})
		if i%100 == 50 {
			passing = append(passing, id)
		} else {
			throughout[id] = 0
		}
	}
	n := 0
	for l, err := range h.EachLease(t.Context(), client.LeaseFilter{Pool: "streams"}) {
		if err != nil {
			t.Fatal(err)
		}
		throughout[l.ID]++
		if n++; n == 600 { // on the first page
			for _, id := range passing {
				if err := h.Release(t.Context(), id, false); err != nil {
					t.Fatal(err)
				}
			}
			acquire(wire.AcquireRequest{})
			h.stop()
			h.start()
			h.until("restarted", inForce("a"))
		}
	}
	for id, times := range throughout {
		if times != 1 && (times > 1 || h.holds(id)) {
			t.Errorf("lease %s is listed %d times", id, times)
		}
	}
	if all, err := h.Leases(t.Context(), "streams"); err != nil || len(all) != many-len(passing)+1 {
		t.Errorf("%d leases are listed: %v", len(all), err)
	}
	if none, err := h.Leases(t.Context(), "none"); err != nil || len(none) != 0 {
		t.Errorf("of no pool: %v, %v", none, err)
	}
	h.oldList(many - len(passing) + 1)
	h.badPages()
}

func (h *house) holds(id string) bool {
	_, err := h.Lease(h.t.Context(), id)
	return err == nil
}

// oldList wants all leases in one answer, as a client that knows no pages asks.
func (h *house) oldList(n int) {
	h.t.Helper()
	page := h.page("")
	if len(page.Leases) != n || page.Next != "" {
		h.t.Errorf("without a limit: %d leases of %d, next %q", len(page.Leases), n, page.Next)
	}
	for _, row := range []struct {
		query string
		n     int
		more  bool
	}{{"?limit=10", 10, true}, {"?limit=10&pool=none", 0, false}, {"?limit=10&uid=4000000000", 0, false},
		{"?uid=4000000000", 0, false}} {
		if page := h.page(row.query); len(page.Leases) != row.n || (page.Next != "") != row.more {
			h.t.Errorf("%s: %d leases, next %q", row.query, len(page.Leases), page.Next)
		}
	}
}

func (h *house) badPages() {
	h.t.Helper()
	for query, field := range map[string]string{"?limit=0": "limit", "?limit=1001": "limit", "?limit=x": "limit",
		"?after=x": "after", "?after=AAAA": "after", "?uid=-1": "uid", "?uid=root": "uid"} {
		res := h.get(query)
		var p wire.Problem
		if err := json.Unmarshal(res, &p); err != nil || p.Code != string(client.ErrBadRequest) || p.Field != field {
			h.t.Errorf("%s: %s", query, res)
		}
	}
}

func (h *house) page(query string) (page wire.Leases) {
	h.t.Helper()
	if err := json.Unmarshal(h.get(query), &page); err != nil {
		h.t.Fatal(err)
	}
	return page
}

func (h *house) get(query string) []byte {
	h.t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.path("s"))
	}}}
	defer c.CloseIdleConnections()
	res, err := c.Get("http://usher/v1/leases" + query)
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		h.t.Fatal(err)
	}
	return b
}
