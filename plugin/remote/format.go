package remote

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/pluginpb"
)

type formatServer struct {
	pluginpb.UnimplementedFormatServer
	format plugin.Format
}

func (s formatServer) Recognise(_ context.Context, in *pluginpb.RecogniseRequest) (*pluginpb.RecogniseReply, error) {
	return &pluginpb.RecogniseReply{Recognised: s.format.Recognise(in.GetDocument())}, nil
}

func (s formatServer) Verify(_ context.Context, in *pluginpb.VerifyRequest) (*pluginpb.VerifyReply, error) {
	anchors, err := decodeAnchors(s.format.System(), in.GetAnchors())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	l, p := s.format.Verify(in.GetDocument(), anchors)
	out := &pluginpb.VerifyReply{}
	if l != nil {
		if out.License, err = EncodeLicense(l); err != nil {
			return nil, status.Error(codes.Internal, "the licence cannot be written: "+err.Error())
		}
	}
	if p != nil {
		out.Problem = &pluginpb.Problem{Code: string(p.Code), Reason: p.Reason, Hint: p.Hint, SystemCode: p.SystemCode}
	}
	return out, nil
}

// Client speaks with one plugin. It checks only that the answers can be read.
type Client struct {
	plugin   pluginpb.PluginClient
	format   pluginpb.FormatClient
	upstream pluginpb.UpstreamClient
}

// NewClient returns a client that speaks over a connection.
func NewClient(c grpc.ClientConnInterface) *Client {
	return &Client{pluginpb.NewPluginClient(c), pluginpb.NewFormatClient(c), pluginpb.NewUpstreamClient(c)}
}

// Description is what a plugin says of itself.
type Description struct {
	System, Version string
	Format          bool
	Upstream        *plugin.Capabilities // nil: it serves none
}

// Describe has the plugin describe itself.
func (c *Client) Describe(ctx context.Context, agentVersion string) (*Description, error) {
	d, err := c.plugin.Describe(ctx, &pluginpb.DescribeRequest{AgentVersion: agentVersion})
	if err != nil {
		return nil, err
	}
	out := &Description{System: d.GetSystem(), Version: d.GetVersion(), Format: d.GetFormat()}
	if u := d.GetUpstream(); u != nil {
		out.Upstream = &plugin.Capabilities{Activate: u.GetActivate(), Heartbeat: u.GetHeartbeat(),
			CheckIn: u.GetCheckIn(), Deactivate: u.GetDeactivate(), Budget: u.GetBudget()}
	}
	if err := plugin.CheckName(out.System); err != nil {
		return nil, err
	}
	if !out.Format && out.Upstream == nil {
		return nil, fmt.Errorf("it serves neither a format nor an upstream")
	}
	return out, nil
}

// Recognise asks whether a document is one of the plugin's system.
func (c *Client) Recognise(ctx context.Context, document []byte) (bool, error) {
	r, err := c.format.Recognise(ctx, &pluginpb.RecogniseRequest{Document: document})
	return r.GetRecognised(), err
}

// Verify has a document verified against the anchors of the system. An error says that there is no answer, or none that
// can be read.
func (c *Client) Verify(ctx context.Context, system string, document []byte,
	anchors []plugin.Anchor) (l *enforcer.License, p *enforcer.Problem, err error) {
	in := &pluginpb.VerifyRequest{Document: document}
	if in.Anchors, err = encodeAnchors(system, anchors); err != nil {
		return nil, nil, err
	}
	r, err := c.format.Verify(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	if len(r.GetLicense()) > 0 {
		if l, err = DecodeLicense(r.GetLicense()); err != nil {
			return nil, nil, fmt.Errorf("its licence cannot be read: %w", err)
		}
	}
	if q := r.GetProblem(); q != nil {
		p = &enforcer.Problem{System: system, Code: enforcer.Code(q.GetCode()), Reason: q.GetReason(),
			Hint: q.GetHint(), SystemCode: q.GetSystemCode()}
	}
	return l, p, nil
}
