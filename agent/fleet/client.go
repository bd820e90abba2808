package fleet

import (
	"crypto/tls"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Bounds of the way to etcd.
const (
	dialWithin = 5 * time.Second
	pingEvery  = 5 * time.Second // a member that does not answer for twice as long is left for another
)

// Dial makes a client of etcd's members. It connects when it is used. tlsConfig is for addresses with https.
func Dial(endpoints []string, user, password string, tlsConfig *tls.Config) *Etcd {
	e := &Etcd{making: make(turn, 1)}
	e.config.Store(&clientv3.Config{Endpoints: endpoints, Username: user, Password: password,
		TLS: tlsConfig, DialTimeout: dialWithin, DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingEvery,
		Logger: zap.NewNop()})
	return e
}

// Use has all calls from now on use a renewed password and renewed certificates. Calls under way end with an error that
// may pass.
func (e *Etcd) Use(password string, tlsConfig *tls.Config) {
	next := *e.config.Load()
	next.Password, next.TLS = password, tlsConfig
	e.config.Store(&next)
	if c := e.client.Swap(nil); c != nil {
		c.Close()
	}
}

// Close ends the connections.
func (e *Etcd) Close() error {
	if c := e.client.Load(); c != nil {
		return c.Close()
	}
	return nil
}
