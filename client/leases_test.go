package client_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/usher-agent/usher/client"
)

// listAgent answers lists of the leases 0 to n-1, in pages of three, or all at once as an agent that knows no pages.
func listAgent(t *testing.T, n int, paged bool) (*client.Client, *[]string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	asked := &[]string{}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RawQuery)
		from, to, next := 0, n, ""
		if paged {
			fmt.Sscan(r.URL.Query().Get("after"), &from)
			if to = min(n, from+3); to < n {
				next = fmt.Sprintf(`,"next":"%d"`, to)
			}
		}
		if from == 6 && n == 7 {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"code":"forbidden","status":403,"title":"Forbidden","detail":"no longer an admin"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"leases":[`)
		for i := from; i < to; i++ {
			if i > from {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"id":"%d"}`, i)
		}
		fmt.Fprint(w, "]", next, "}")
	})}
	go s.Serve(l)
	c := client.New(filepath.Join(dir, "s"))
	t.Cleanup(func() {
		c.Close()
		s.Close()
		os.RemoveAll(dir)
	})
	return c, asked
}

// EachLease reads page after page; of an agent that knows no pages it reads the one answer. It reads no further than
// its caller does, and ends with the first error.
func TestEachLease(t *testing.T) {
	uid := uint32(7)
	for _, row := range []struct {
		n     int
		paged bool
		calls int
	}{{0, true, 1}, {3, true, 1}, {8, true, 3}, {8, false, 1}, {0, false, 1}} {
		c, asked := listAgent(t, row.n, row.paged)
		var got []string
		for l, err := range c.EachLease(t.Context(), client.LeaseFilter{Pool: "a&b", UID: &uid}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l.ID)
		}
		for i := range row.n {
			if len(got) != row.n || got[i] != fmt.Sprint(i) {
				t.Errorf("%+v: %v", row, got)
				break
			}
		}
		if len(*asked) != row.calls || (*asked)[0] != "limit=1000&pool=a%26b&uid=7" {
			t.Errorf("%+v: asked %q", row, *asked)
		}
		if all, err := c.Leases(t.Context(), ""); err != nil || len(all) != row.n || all == nil {
			t.Errorf("%+v: %v, %v", row, all, err)
		}
	}
	c, asked := listAgent(t, 8, true)
	for range c.EachLease(t.Context(), client.LeaseFilter{}) {
		break
	}
	if len(*asked) != 1 || slices.Contains(*asked, "after=3") {
		t.Errorf("asked %q for one lease", *asked)
	}
	c, _ = listAgent(t, 7, true)
	n, failed := 0, error(nil)
	for l, err := range c.EachLease(t.Context(), client.LeaseFilter{}) {
		if n++; err != nil {
			failed = err
			if l != nil {
				t.Error("a lease comes with an error")
			}
		}
	}
	if n != 7 || failed == nil {
		t.Errorf("%d turns, the last with %v", n, failed)
	}
	if all, err := c.Leases(t.Context(), ""); err == nil || all != nil {
		t.Errorf("a list that broke off: %v", all)
	}
}
