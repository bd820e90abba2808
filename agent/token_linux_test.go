package agent_test

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// A client token means the same over HTTP and in a session: the same request gets the same lease or draw through
// either, first come, though the lifetime that neither states differs; one that states another is another.
func TestTokenMeansTheSameEverywhere(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 5, func(c *usher.Claims) {
		c.Meters = map[string]usher.Meter{"renders": {Max: new(int64(9)), Scope: "host"}}
	}))
	h.until("dropped", inForce("a"))
	l := h.dial()
	session := func(pool, token, more string) string {
		return l.ask(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"` + pool +
			`","client_token":"` + token + `"` + more + `}}`)
	}
	for _, pool := range []string{"streams", "renders"} {
		over, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: pool, ClientToken: "http first"})
		if err != nil {
			t.Fatal(err)
		}
		if got := session(pool, "http first", ""); !strings.Contains(got, over.ID) {
			t.Errorf("%s, over HTTP first: got %s, want lease %s", pool, got, over.ID)
		}
		in := lease(t, session(pool, "session first", ""))
		if got, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: pool, ClientToken: "session first"}); err !=
			nil || got.ID != in.ID {
			t.Errorf("%s, in a session first: got %+v, %v, want lease %s", pool, got, err, in.ID)
		}
		if got := session(pool, "http first", `,"n":2`); !strings.Contains(got, "token_reused") {
			t.Errorf("%s, another request: got %s", pool, got)
		}
	}
	if got := session("streams", "http first", `,"lifetime":"process"`); !strings.Contains(got, "token_reused") {
		t.Errorf("another lifetime: got %s", got)
	}
	if p, err := h.Pool(t.Context(), "renders"); err != nil || p.InUse != 2 {
		t.Errorf("drawn: %+v, %v", p, err)
	}
	h.inUse(2)
}
