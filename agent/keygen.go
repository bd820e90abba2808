package agent

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
)

// keygenUpstream is the way to the Keygen account: the proxies and CAs of every upstream, and no client certificate.
func (a *Agent) keygenUpstream() (plugin.Upstream, error) {
	c := a.config.Upstream
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.IdleConnTimeout, t.MaxResponseHeaderBytes = 1, 30*time.Second, 64<<10
	cas, err := upstreamCAs(a.config)
	if err != nil {
		return nil, err
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cas}
	token := ""
	if c.Keygen.TokenFile != "" {
		b, err := a.config.ReadFile(c.Keygen.TokenFile, maxNamed)
		if err != nil {
			return nil, fmt.Errorf("upstream.keygen.token_file: %w", err)
		}
		if token = strings.TrimSpace(string(b)); token == "" || strings.ContainsAny(token, " \r\n\t") {
			return nil, fmt.Errorf("upstream.keygen.token_file %s: it does not hold one token", c.Keygen.TokenFile)
		}
	}
	u, err := keygen.NewClient(keygen.Config{Account: c.Keygen.Account, URL: c.Keygen.URL, Environment: c.Keygen.Environment, Token: token, HTTP: t, Now: a.desk.time,
		Anchors: a.court.believed, Secrets: a.court.opened})
	if err != nil {
		return nil, fmt.Errorf("upstream.keygen: %w", err)
	}
	return u, nil
}
