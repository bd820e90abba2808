// Package remote carries the contract of package plugin over gRPC: the server's side wraps a Format and an Upstream,
// and the client's side is one of each. Both the agent and the SDK use it. Nothing here starts a process.
package remote

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/pluginpb"
)

// Handshake tells a plugin that an agent has started it. It is no secret: it keeps people from starting plugins by hand
// and wondering.
var Handshake = goplugin.HandshakeConfig{MagicCookieKey: "USHER_PLUGIN",
	MagicCookieValue: "e7b0c9d2-usher-licence-system"}

// Version is the protocol's version. An agent names those that it speaks, and a plugin picks the highest that both
// speak.
const Version = 1

// MaxMessage is the size of a message above which neither side reads it: 4 MiB.
const MaxMessage = 4 << 20

// Name is the plugin's name within go-plugin.
const Name = "system"

// Set returns the services of an agent and a plugin in each version. The agent's have no system.
func Set(s *System) map[int]goplugin.PluginSet {
	return map[int]goplugin.PluginSet{Version: {Name: &grpcPlugin{system: s}}}
}

// ServerOptions bound what a server reads.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxConcurrentStreams(64)}
}

// DialOptions bound what a client reads.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage),
		grpc.MaxCallSendMsgSize(MaxMessage))}
}

// System is what one plugin serves: a Format, an Upstream, or both, of one system.
type System struct {
	Format   plugin.Format
	Upstream plugin.Upstream
	Version  string // the plugin's own
}

// Name returns the system's name, or why the services are not of one system.
func (s *System) Name() (string, error) {
	switch {
	case s.Format == nil && s.Upstream == nil:
		return "", fmt.Errorf("it serves neither a format nor an upstream")
	case s.Format != nil && s.Upstream != nil && s.Format.System() != s.Upstream.System():
		return "", fmt.Errorf("its format is of %q, and its upstream of %q", s.Format.System(), s.Upstream.System())
	case s.Format != nil:
		return s.Format.System(), plugin.CheckName(s.Format.System())
	default:
		return s.Upstream.System(), plugin.CheckName(s.Upstream.System())
	}
}

// Register makes a server serve the system.
func (s *System) Register(to grpc.ServiceRegistrar) error {
	name, err := s.Name()
	if err != nil {
		return err
	}
	d := &pluginpb.Description{System: name, Version: s.Version, Format: s.Format != nil}
	if s.Format != nil {
		pluginpb.RegisterFormatServer(to, formatServer{format: s.Format})
	}
	if s.Upstream != nil {
		c := s.Upstream.Capabilities()
		if _, ok := s.Upstream.(plugin.Budgeter); c.Budget != ok {
			return fmt.Errorf("its capabilities say budget=%t, and it is a Budgeter: %t", c.Budget, ok)
		}
		d.Upstream = &pluginpb.Capabilities{Activate: c.Activate, Heartbeat: c.Heartbeat, CheckIn: c.CheckIn,
			Deactivate: c.Deactivate, Budget: c.Budget}
		pluginpb.RegisterUpstreamServer(to, upstreamServer{upstream: s.Upstream})
	}
	pluginpb.RegisterPluginServer(to, describer{description: d})
	return nil
}

// grpcPlugin ties the services to go-plugin.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	system *System
}

func (p *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	return p.system.Register(s)
}

func (p *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return NewClient(c), nil
}

type describer struct {
	pluginpb.UnimplementedPluginServer
	description *pluginpb.Description
}

func (d describer) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.Description, error) {
	return d.description, nil
}

// encodeAnchors writes the anchors of one system; a plugin sees no others.
func encodeAnchors(system string, anchors []plugin.Anchor) ([]*pluginpb.Anchor, error) {
	var out []*pluginpb.Anchor
	for _, a := range anchors {
		if a.System != system {
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(a.Key)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", a.KeyID, err)
		}
		out = append(out, &pluginpb.Anchor{KeyId: a.KeyID, Algorithm: a.Algorithm, PublicKey: der,
			NotBefore: nanos(a.NotBefore), NotAfter: nanos(a.NotAfter),
			Revoked: a.Revoked, Environment: string(a.Environment)})
	}
	return out, nil
}

func decodeAnchors(system string, in []*pluginpb.Anchor) ([]plugin.Anchor, error) {
	var out []plugin.Anchor
	for _, a := range in {
		key, err := x509.ParsePKIXPublicKey(a.GetPublicKey())
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", a.GetKeyId(), err)
		}
		out = append(out, plugin.Anchor{System: system, KeyID: a.GetKeyId(), Algorithm: a.GetAlgorithm(), Key: key,
			NotBefore: instant(a.GetNotBefore()),
			NotAfter:  instant(a.GetNotAfter()), Revoked: a.GetRevoked(),
			Environment: enforcer.Environment(a.GetEnvironment())})
	}
	return out, nil
}

// nanos is an instant on the wire; a zero one is 0. An instant that an int64 cannot express (before 1678, after 2262)
// becomes its bound.
func nanos(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Year() < 1678:
		return -1 << 63
	case t.Year() > 2261:
		return 1<<63 - 1
	default:
		return cmp.Or(t.UnixNano(), 1) // 0 means none
	}
}

func instant(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
