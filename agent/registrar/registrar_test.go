package registrar_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/registrar"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// free returns an address of this host on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Metrics are on a listener of their own, and nowhere where none is named.
func TestMetricsListener(t *testing.T) {
	private, _, err := issue.MakeKey(t.TempDir(), "v1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, metrics := range []string{"", free(t)} {
		agents := free(t)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- registrar.Run(ctx, registrar.Config{Dir: t.TempDir(), Listen: agents, MetricsListen: metrics,
				Signer: signer, Log: slog.New(slog.DiscardHandler)})
		}()
		get := func(address, path string) string {
			for until := time.Now().Add(20 * time.Second); ; {
				res, err := http.Get("http://" + address + path)
				if err == nil {
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					return string(b)
				}
				select {
				case err := <-ended:
					t.Fatalf("the server ended: %v", err)
				case <-time.After(10 * time.Millisecond):
				}
				if time.Now().After(until) {
					t.Fatal(err)
				}
			}
		}
		if body := get(agents, "/metrics"); strings.Contains(body, "usher_upstream") {
			t.Errorf("anybody reads on the agents' listener: %s", body)
		}
		if metrics != "" {
			if body := get(metrics, "/metrics"); !strings.Contains(body, "usher_upstream_server_licenses") &&
				!strings.Contains(body, "usher_upstream_server_hosts") {
				t.Errorf("the listener of metrics says %s", body)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
