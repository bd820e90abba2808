// Package ops is the TCP listener for operators' tools, with TLS and basic auth of Prometheus's exporter toolkit. Start
// reading at [Server].
package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
)

// Config is what a Server needs.
type Config struct {
	Listener  net.Listener
	WebConfig string // the exporter toolkit's web configuration file; empty: plain HTTP for everybody
	Handler   http.Handler
	Log       *slog.Logger // nil: nothing is logged
}

// drainWithin is how long calls under way may take when the server ends.
const drainWithin = 5 * time.Second

// Server answers operators' tools. Make one with New.
type Server struct {
	config Config
	http   *http.Server
}

// New checks the web configuration and returns a server that answers nothing before Run.
func New(c Config) (*Server, error) {
	if c.WebConfig != "" {
		if err := Check(c.WebConfig); err != nil {
			return nil, err
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{c, &http.Server{Handler: c.Handler, ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:  30 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug)}}, nil
}

// Check says what is wrong with a web configuration, or with the certificate that it names.
func Check(webConfig string) error {
	if err := web.Validate(webConfig); err != nil {
		return fmt.Errorf("ops.web_config %s: %w", webConfig, err)
	}
	return nil
}

// Run answers until ctx ends, and then closes the listener.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() {
		// The toolkit announces each listener; one line of ours is enough.
		served <- web.Serve(s.config.Listener, s.http, &web.FlagConfig{WebConfigFile: &s.config.WebConfig},
			slog.New(slog.DiscardHandler))
	}()
	s.config.Log.Info("operators' listener", "address", s.config.Listener.Addr().String(), "web_config",
		s.config.WebConfig)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWithin)
	defer cancel()
	if s.http.Shutdown(bounded) != nil {
		s.http.Close()
	}
	s.config.Listener.Close()
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
