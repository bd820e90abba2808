package agent_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// The API's document has the parameters of each route's query, and no other.
func TestOpenAPIQueries(t *testing.T) {
	t.Parallel()
	doc, _ := document(t)
	for _, r := range api.Routes() {
		var documented []string
		for _, p := range doc.Paths.Value(r.Path).GetOperation(r.Method).Parameters {
			if p.Value.In == "query" {
				documented = append(documented, p.Value.Name)
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(documented)), slices.Sorted(slices.Values(r.Query))) {
			t.Errorf("%s %s: documented are %v, and it reads %v", r.Method, r.Path, documented, r.Query)
		}
	}
}

// A query that a route does not read in full changes nothing: a misspelt dry run is no installation.
func TestQueryIsReadStrictly(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.path("s"))
	}}}
	t.Cleanup(c.CloseIdleConnections)
	document := string(h.sign("a", 8, nil))
	for _, row := range []struct{ call, field, hint string }{
		{"PUT /v1/license?dryrun=true", "dryrun", "has name, dry_run"},
		{"PUT /v1/license?DRY_RUN=true", "DRY_RUN", "has name, dry_run"},
		{"PUT /v1/license?dry_run", "dry_run", ""},
		{"PUT /v1/license?dry_run=", "dry_run", ""},
		{"PUT /v1/license?dry_run=false&dry_run=true", "dry_run", "once"},
		{"PUT /v1/license?dry_run=true;name=x", "", "%3B"},
		{"PUT /v1/license?dry_run=%zz", "", "%25"},
		{"DELETE /v1/leases/00112233445566778899aabbccddeeff?holdoff_seconds=9", "holdoff_seconds",
			"hold_off_seconds"},
		{"POST /v1/leases?dry_run=true", "dry_run", "has none"},
		{"GET /v1/usage?form=2027-01-01T00:00:00Z", "form", "since"},
	} {
		method, target, _ := strings.Cut(row.call, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "http://usher"+target, strings.NewReader(document))
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p wire.Problem
		err = json.NewDecoder(res.Body).Decode(&p)
		res.Body.Close()
		if err != nil || p.Code != string(client.ErrBadRequest) || p.Field != row.field ||
			!strings.Contains(p.Hint, row.hint) {
			t.Errorf("%s: %v, %+v", row.call, err, p)
		}
	}
	if l, err := h.License(t.Context()); err != nil || l.Code != "NOT_FOUND" {
		t.Errorf("a licence is in force: %+v, %v", l, err)
	}
}
