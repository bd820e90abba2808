package doctor

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/plugin/textual"
)

// server is one address that the agent calls.
type server struct {
	name, key string
	at        *url.URL
	native    bool // it knows the agent by its key, so that a call without credentials is no fault
}

// reached reports whether the agent's own last call came through, whatever a call without its proofs is answered.
func (e *exam) reached() bool {
	return e.said != nil && e.said.Upstream != nil && e.said.Upstream.State == "ok"
}

// servers are the addresses that the configuration names.
func (e *exam) servers() (out []server) {
	add := func(name, key, address string, native bool) {
		u, err := url.Parse(address)
		if err == nil && u.Host != "" && !slices.ContainsFunc(out, func(s server) bool { return s.at.Host == u.Host }) {
			out = append(out, server{name + " " + u.Scheme + "://" + u.Host, key, u, native})
		}
	}
	up := e.cfg.Upstream
	add("upstream", "upstream.url", up.URL, true)
	add("site server", "upstream.pools_url", up.PoolsURL, true)
	for _, at := range up.PoolsURLs {
		add("site server", "upstream.pools_urls", at, true)
	}
	used := up.Systems.Used()
	for _, s := range e.cfg.Show() {
		section, ok := strings.CutPrefix(s.Key, "upstream.")
		section, _, below := strings.Cut(section, ".")
		if ok && below && slices.Contains(used, section) &&
			(strings.HasPrefix(s.Value, "https://") || strings.HasPrefix(s.Value, "http://")) {
			add(section, s.Key, s.Value, false)
		}
	}
	return out
}

// upstreams tries the way to each server, step by step, and names the step that fails.
func (e *exam) upstreams() {
	if e.cfg == nil {
		return
	}
	for _, s := range e.servers() {
		before := len(e.found)
		status := e.reach(s)
		if len(e.found) == before && status != "" {
			e.ok(s.name, "it answers (%s)", status)
		}
	}
}

// reach goes the way to a server. It returns the status of the answer; empty: there is none, and a finding says why.
func (e *exam) reach(s server) (status string) {
	ctx, cancel := e.within()
	defer cancel()
	proxy, err := e.proxies()(s.at)
	if err != nil {
		e.warn("UPSTREAM_PROXY", s.name, "mend the variable HTTPS_PROXY of the agent",
			"the proxy's address is wrong: %v",
			err)
		return ""
	}
	conn := e.dial(ctx, s, proxy)
	if conn == nil {
		return ""
	}
	defer func() { conn.Close() }()
	if until, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(until) // the calls below fail, then
	}
	if s.at.Scheme == "https" {
		t := tls.Client(conn, e.tls(s))
		if err := t.HandshakeContext(ctx); err != nil {
			e.handshake(s, err)
			return ""
		}
		conn = t
	}
	return e.question(ctx, s, conn, proxy != nil && s.at.Scheme == "http")
}

// proxies are the proxies of the agent's variables.
func (e *exam) proxies() func(*url.URL) (*url.URL, error) {
	get := func(names ...string) string {
		for _, n := range names {
			if v := e.variable(n); v != "" {
				return v
			}
		}
		return ""
	}
	c := httpproxy.Config{HTTPProxy: get("HTTP_PROXY", "http_proxy"), HTTPSProxy: get("HTTPS_PROXY", "https_proxy"),
		NoProxy: get("NO_PROXY", "no_proxy")}
	return c.ProxyFunc()
}

// dial connects to a server, through a proxy where there is one; nil: it cannot, and a finding says why.
func (e *exam) dial(ctx context.Context, s server, proxy *url.URL) net.Conn {
	to, code, who := s.at, "UPSTREAM_CONNECT", ""
	mend := "start the server, or open the way to it (firewall, routing); " + s.key + " names it"
	unresolved, mendName := "UPSTREAM_DNS", "check the name in "+s.key+", and the host's resolver (/etc/resolv.conf)"
	if proxy != nil {
		to, code, unresolved, who = proxy, "UPSTREAM_PROXY", "UPSTREAM_PROXY", "the proxy "+proxy.Redacted()+" "
		mend = "mend HTTPS_PROXY, or name the server in NO_PROXY, in the agent's environment"
		mendName = mend
	}
	if net.ParseIP(to.Hostname()) == nil {
		if _, err := net.DefaultResolver.LookupHost(ctx, to.Hostname()); err != nil {
			var dns *net.DNSError
			reason := err.Error()
			if errors.As(err, &dns) {
				reason = dns.Err
			}
			e.warn(unresolved, s.name, mendName, "the name %s cannot be resolved: %s", to.Hostname(), reason)
			return nil
		}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort(to))
	if err != nil {
		if proxy == nil {
			e.warn(code, s.name, mend, "nobody answers at %s: %s", hostPort(to), dialError(err))
		} else {
			e.warn(code, s.name, mend, "%sdoes not answer: %s", who, dialError(err))
		}
		return nil
	}
	if proxy == nil || s.at.Scheme == "http" {
		return conn
	}
	if proxy.Scheme != "http" {
		return conn // of another protocol, which is not tried here
	}
	if until, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(until) // the calls below fail, then
	}
	connect := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: hostPort(s.at)}, Host: hostPort(s.at),
		Header: http.Header{}}
	if proxy.User != nil {
		password, _ := proxy.User.Password() // empty where there is none
		connect.Header.Set("Proxy-Authorization", "Basic "+
			base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+password)))
	}
	err = connect.Write(conn)
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(bufio.NewReader(conn), connect)
	}
	switch {
	case err != nil:
		e.warn(code, s.name, mend, "%sdoes not answer as a proxy does: %v", who, err)
	case res.StatusCode != http.StatusOK:
		e.warn(code, s.name, mend, "%sdoes not lead to %s: %s", who, hostPort(s.at), res.Status)
	default:
		return conn
	}
	conn.Close()
	return nil
}

// hostPort returns the host and the port of an address.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// dialError is why a connection was not made, in a few words.
func dialError(err error) string {
	var network net.Error
	if errors.As(err, &network) && network.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return strings.TrimPrefix(op.Err.Error(), "connect: ")
	}
	return err.Error()
}

// tls is the agent's configuration of TLS on the way to a server.
func (e *exam) tls(s server) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.at.Hostname(), Time: e.Now}
	if path := e.cfg.Upstream.CAFile; path != "" {
		if pem, err := e.cfg.ReadFile(path, maxNamed); err == nil {
			pool, err := x509.SystemCertPool()
			if err != nil {
				pool = x509.NewCertPool()
			}
			pool.AppendCertsFromPEM(textual.PEM(pem))
			c.RootCAs = pool
		} else {
			e.bad("CONFIG_INVALID", "configuration", "put the CA's certificate there, in PEM", "upstream.ca_file: %v",
				err)
		}
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		key, err := identity.FileAt(e.cfg.Agent.KeyFile, e.cfg.State.Dir, e.cfg.ReadFile).Existing()
		if err != nil { // another key serves to see whether the server answers
			_, key, err = ed25519.GenerateKey(nil)
		}
		if err != nil {
			return nil, err
		}
		own, err := identity.Certificate(key, e.Now())
		if err != nil {
			return nil, err
		}
		return &own.Certificates[0], nil
	}
	return c
}

// maxNamed is the size in bytes of the largest CA file that is read.
const maxNamed = 1 << 20

// handshake says why TLS with a server fails.
func (e *exam) handshake(s server, err error) {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	ca := "upstream.ca_file"
	switch {
	case errors.As(err, &name):
		names := strings.Join(name.Certificate.DNSNames, ", ")
		for _, ip := range name.Certificate.IPAddresses {
			names = strings.TrimPrefix(names+", "+ip.String(), ", ")
		}
		e.warn("UPSTREAM_CERT_NAME", s.name, "call it by a name of its certificate in "+s.key+
			", or give it a certificate for "+s.at.Hostname(), "its certificate is for %s, and not for %s",
			dash(names), s.at.Hostname())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		cert, now := invalid.Cert, e.Now()
		if now.Before(cert.NotBefore) {
			e.warn("UPSTREAM_CERT_EXPIRED", s.name, "is this host's clock right? else give the server a good one",
				"its certificate is not valid before %s, and the clock says %s", stamp(cert.NotBefore), stamp(now))
			return
		}
		e.warn("UPSTREAM_CERT_EXPIRED", s.name, "renew the server's certificate; is this host's clock right?",
			"its certificate has expired at %s, and the clock says %s", stamp(cert.NotAfter), stamp(now))
	case errors.As(err, &unknown):
		issuer := ""
		if unknown.Cert != nil {
			issuer = " (" + unknown.Cert.Issuer.String() + ")"
		}
		e.warn("UPSTREAM_CA", s.name, "name the CA's certificate under "+ca+"; a proxy that opens TLS has a CA of its "+
			"own", "its certificate is from an authority that is not known here%s", issuer)
	case errors.As(err, &record):
		e.warn("UPSTREAM_TLS", s.name, "write http:// in "+s.key+" if that is meant, or name the port of TLS",
			"it does not speak TLS")
	default:
		e.warn("UPSTREAM_TLS", s.name, "try `openssl s_client -connect "+hostPort(s.at)+"`", "TLS fails: %v", err)
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// skew is how far two clocks may differ without a word.
const skew = 5 * time.Minute

// question asks a server, and judges its status and its clock.
func (e *exam) question(ctx context.Context, s server, conn net.Conn, absolute bool) string {
	at := s.at
	if at.Path == "" {
		at = at.JoinPath("/")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return ""
	}
	req.Header.Set("User-Agent", "usher-doctor")
	req.Close = true
	send := req.Write
	if absolute {
		send = req.WriteProxy
	}
	err = send(conn)
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(bufio.NewReader(conn), req)
	}
	if err != nil {
		if strings.Contains(err.Error(), "certificate") {
			e.warn("UPSTREAM_DENIED", s.name, "name one that it accepts under upstream.client_cert_file",
				"it does not accept the agent's certificate: %v", err)
			return ""
		}
		e.warn("UPSTREAM_FAILING", s.name, "look at the server's log",
			"it takes the connection and does not answer: %v",
			err)
		return ""
	}
	res.Body.Close()
	switch code := res.StatusCode; {
	case code >= 500:
		e.warn("UPSTREAM_FAILING", s.name, "look at the server's log; the agent tries again by itself",
			"it answers %s", res.Status)
	case s.native && !e.reached() && (code == http.StatusUnauthorized || code == http.StatusForbidden):
		e.warn("UPSTREAM_DENIED", s.name, "ask its operator; a proxy or gateway before it may want credentials",
			"it answers %s", res.Status)
	case code == http.StatusProxyAuthRequired:
		e.warn("UPSTREAM_PROXY", s.name, "put the user and the password into HTTPS_PROXY of the agent",
			"the proxy answers %s", res.Status)
	}
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		now := e.Now()
		switch ahead := now.Sub(date); {
		case ahead > skew:
			e.warn("CLOCK_AHEAD", "clock", "set the clock, if the server's is right",
				"the clock says %s, and that of the %s says %s", stamp(now), s.name, stamp(date))
		case ahead < -skew:
			e.warn("CLOCK_BEHIND", "clock", "set the clock, if the server's is right",
				"the clock says %s, and that of the %s says %s", stamp(now), s.name, stamp(date))
		}
	}
	return fmt.Sprint(res.Status)
}
