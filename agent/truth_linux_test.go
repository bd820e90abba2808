package agent_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// exposition scrapes an agent as it is served on its socket.
func exposition(t *testing.T, socket string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
	res, err := c.Get("http://usher/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A site server that dies is a warning with the reason, in the licence's state and in the metrics, until it answers
// again. A configuration that was good at the start counts as reloaded well from the start.
func TestDeadSiteServerIsTold(t *testing.T) {
	t.Parallel()
	s := openSiteServerAs(t, 50, 3*time.Second, true)
	h := s.agents(1)[0]
	h.take(1)
	state := func() (*wire.License, string) {
		l, err := h.License(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range l.Warnings {
			if w.Code == "SITE_SERVER_FAILING" {
				return l, w.Detail
			}
		}
		return l, ""
	}
	l, told := state()
	if told != "" || l.SiteServer == nil || l.SiteServer.State != "ok" {
		t.Fatalf("while it answers: %q, %+v", told, l.SiteServer)
	}
	if x := exposition(t, h.path("s")); !strings.Contains(x, "usher_config_last_reload_successful 1\n") {
		t.Error("the configuration that the agent started with counts as bad")
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); {
			if time.Now().After(deadline) {
				l, told := state()
				t.Fatalf("%s: %q, %+v", what, told, l.SiteServer)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	s.kill()
	until("the server is dead", func() bool {
		l, told := state()
		return strings.Contains(told, "of the site fail since") && strings.Contains(told, "refused") &&
			l.SiteServer.State == "retrying" && l.SiteServer.Since != nil
	})
	if x := exposition(t, h.path("s")); !strings.Contains(x, `usher_license_warning{code="SITE_SERVER_FAILING"} 1`) {
		t.Error("the metrics do not tell of it")
	}
	s.run()
	until("the server is back", func() bool { _, told := state(); return told == "" })
}
