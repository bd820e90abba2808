package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/plugin/textual"
)

// ServeConfig is where a registry listens.
type ServeConfig struct {
	Listener net.Listener // for agents
	CertFile string       // of its TLS, in PEM; empty: plain HTTP, for a proxy in front or a test
	KeyFile  string
	Mutual   bool         // agents must show a certificate of their own key
	Admin    string       // the path of the operators' socket (0600)
	Metrics  http.Handler // on MetricsListener alone
	// MetricsListener is where metrics are, over plain HTTP; nil: nowhere.
	MetricsListener net.Listener
	Log             *slog.Logger
}

// keyPair reads a certificate and its key.
func keyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(textual.PEM(cert), textual.PEM(key))
}

// Serve answers agents and operators until ctx ends.
func (g *Registry) Serve(ctx context.Context, c ServeConfig) error {
	agents := server(g.Handler(), c.Log)
	agents.RegisterOnShutdown(g.endWatches)
	if c.CertFile != "" {
		cert, err := keyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", c.CertFile, err)
		}
		agents.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
		// The key identifies the agent, and signs the request too; no CA vouches for agents.
		agents.TLSConfig.ClientAuth = tls.RequestClientCert
		if c.Mutual {
			agents.Handler = certified(agents.Handler)
		}
	}
	admin, err := adminSocket(c.Admin)
	if err != nil {
		return err
	}
	operators := server(g.AdminHandler(), c.Log)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if agents.TLSConfig != nil {
			return closed(agents.ServeTLS(c.Listener, "", ""))
		}
		return closed(agents.Serve(c.Listener))
	})
	group.Go(func() error { return closed(operators.Serve(admin)) })
	scraped := http.NewServeMux()
	metrics := server(scraped, c.Log)
	if c.MetricsListener != nil {
		scraped.Handle("GET /metrics", c.Metrics)
		group.Go(func() error { return closed(metrics.Serve(c.MetricsListener)) })
	}
	group.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return errors.Join(agents.Shutdown(end), operators.Shutdown(end), metrics.Shutdown(end))
	})
	return group.Wait()
}

// certified lets requests through that come with a certificate, and probes, which read nothing of any agent's.
func certified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := r.Method == http.MethodGet && (r.URL.Path == "/healthz" || r.URL.Path == "/metrics")
		if !probe && (r.TLS == nil || len(r.TLS.PeerCertificates) == 0) {
			http.Error(w, "this server asks agents for a certificate of their own key (--mutual-tls)",
				http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func server(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 30 * time.Second,
		IdleTimeout:  2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
}

func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// adminSocket listens for operators. The store's lock proves that no other registry has the folder, so a leftover
// socket belongs to nobody.
func adminSocket(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("operators' socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("operators' socket: %w", err)
	}
	// The folder is 0700, so nobody could connect before.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
