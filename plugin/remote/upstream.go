package remote

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/pluginpb"
)

type upstreamServer struct {
	pluginpb.UnimplementedUpstreamServer
	upstream plugin.Upstream
}

func (s upstreamServer) Activate(ctx context.Context, in *pluginpb.Request) (*pluginpb.Reply, error) {
	return answer(s.upstream.Activate(ctx, decodeRequest(in)))
}

func (s upstreamServer) Heartbeat(ctx context.Context, in *pluginpb.Request) (*pluginpb.Reply, error) {
	return answer(s.upstream.Heartbeat(ctx, decodeRequest(in)))
}

func (s upstreamServer) CheckIn(ctx context.Context, in *pluginpb.Request) (*pluginpb.Reply, error) {
	return answer(s.upstream.CheckIn(ctx, decodeRequest(in)))
}

func (s upstreamServer) Deactivate(ctx context.Context, in *pluginpb.Request) (*pluginpb.Reply, error) {
	return answer(s.upstream.Deactivate(ctx, decodeRequest(in)))
}

func (s upstreamServer) CheckOut(ctx context.Context, in *pluginpb.CheckOutRequest) (*pluginpb.BlockReply, error) {
	b, err := s.budgeter()
	if err != nil {
		return nil, err
	}
	return answerBlock(b.CheckOut(ctx,
		&plugin.CheckOut{Request: *decodeRequest(in.GetRequest()), Pool: in.GetPool(), Slots: in.GetSlots(),
			AtLeast: in.GetAtLeast(), For: time.Duration(in.GetFor()), Token: in.GetToken()}))
}

func (s upstreamServer) Extend(ctx context.Context, in *pluginpb.ExtendRequest) (*pluginpb.BlockReply, error) {
	b, err := s.budgeter()
	if err != nil {
		return nil, err
	}
	return answerBlock(b.Extend(ctx, &plugin.Extend{Request: *decodeRequest(in.GetRequest()), Block: in.GetBlock(),
		Slots: in.GetSlots(), For: time.Duration(in.GetFor())}))
}

func (s upstreamServer) Return(ctx context.Context, in *pluginpb.ReturnRequest) (*pluginpb.ReturnReply, error) {
	b, err := s.budgeter()
	if err != nil {
		return nil, err
	}
	return &pluginpb.ReturnReply{Error: encodeError(b.Return(ctx,
		&plugin.Return{Request: *decodeRequest(in.GetRequest()), Block: in.GetBlock()}))}, nil
}

func (s upstreamServer) budgeter() (plugin.Budgeter, error) {
	b, ok := s.upstream.(plugin.Budgeter)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "this upstream hands out no budget")
	}
	return b, nil
}

func answer(r *plugin.Reply, err error) (*pluginpb.Reply, error) {
	if err != nil {
		return &pluginpb.Reply{Error: encodeError(err)}, nil
	}
	if r == nil {
		return nil, status.Error(codes.Internal, "neither a reply nor an error")
	}
	return &pluginpb.Reply{Document: r.Document, NextHeartbeat: nanos(r.NextHeartbeat),
		NextCheckIn: nanos(r.NextCheckIn), Time: nanos(r.Time), State: r.State}, nil
}

func answerBlock(b *plugin.Block, err error) (*pluginpb.BlockReply, error) {
	if err != nil {
		return &pluginpb.BlockReply{Error: encodeError(err)}, nil
	}
	if b == nil {
		return nil, status.Error(codes.Internal, "neither a block nor an error")
	}
	return &pluginpb.BlockReply{Id: b.ID, Pool: b.Pool, Slots: b.Slots, For: int64(b.For), State: b.State,
		Wanted: b.Wanted}, nil
}

// encodeError writes an error; one that is no *plugin.Error is transient.
func encodeError(err error) *pluginpb.Error {
	if err == nil {
		return nil
	}
	e := AsError(err)
	return &pluginpb.Error{Class: string(e.Class), Code: string(e.Code), Reason: e.Reason, Hint: e.Hint,
		SystemCode: e.SystemCode, RetryAfter: int64(e.RetryAfter)}
}

// AsError returns an upstream's error as the *plugin.Error that it counts as.
func AsError(err error) *plugin.Error {
	if e := (*plugin.Error)(nil); errors.As(err, &e) {
		return e
	}
	return plugin.Transiently("%v", err)
}

func decodeError(e *pluginpb.Error) error {
	if e == nil {
		return nil
	}
	return &plugin.Error{Class: plugin.Class(e.GetClass()), Code: enforcer.Code(e.GetCode()), Reason: e.GetReason(),
		Hint: e.GetHint(), SystemCode: e.GetSystemCode(),
		RetryAfter: time.Duration(e.GetRetryAfter())}
}

func encodeRequest(r *plugin.Request) *pluginpb.Request {
	out := &pluginpb.Request{LicenseId: r.LicenseID, Document: r.Document, Product: r.Product, Version: r.Version,
		AgentKey:      r.AgentKey,
		CoresPhysical: r.Cores.Physical, CoresLogical: r.Cores.Logical, CoresEffective: r.Cores.Effective,
		Nonce: r.Nonce, State: r.State}
	for _, name := range slices.Sorted(maps.Keys(r.Components)) {
		if out.Components == nil {
			out.Components = map[string]*pluginpb.Values{}
		}
		out.Components[name] = &pluginpb.Values{Values: r.Components[name]}
	}
	for _, u := range r.Usage {
		out.Usage = append(out.Usage, &pluginpb.Usage{Pool: u.Pool, InUse: u.InUse, Peak: u.Peak, Denied: u.Denied})
	}
	for _, e := range r.Emergencies {
		out.Emergencies = append(out.Emergencies,
			&pluginpb.Emergency{Began: nanos(e.Began), Ends: nanos(e.Ends), Reason: e.Reason})
	}
	return out
}

func decodeRequest(in *pluginpb.Request) *plugin.Request {
	r := &plugin.Request{LicenseID: in.GetLicenseId(), Document: in.GetDocument(), Product: in.GetProduct(),
		Version: in.GetVersion(), AgentKey: in.GetAgentKey(),
		Cores: plugin.Cores{Physical: in.GetCoresPhysical(), Logical: in.GetCoresLogical(),
			Effective: in.GetCoresEffective()}, Nonce: in.GetNonce(), State: in.GetState()}
	r.Components = remake(in.GetComponents(), func(v *pluginpb.Values) []string { return v.GetValues() })
	for _, u := range in.GetUsage() {
		r.Usage = append(r.Usage,
			plugin.Usage{Pool: u.GetPool(), InUse: u.GetInUse(), Peak: u.GetPeak(), Denied: u.GetDenied()})
	}
	for _, e := range in.GetEmergencies() {
		r.Emergencies = append(r.Emergencies,
			plugin.Emergency{Began: instant(e.GetBegan()), Ends: instant(e.GetEnds()), Reason: e.GetReason()})
	}
	return r
}

// Call is one of the four calls that every upstream may have.
type Call string

// The calls.
const (
	Activate   Call = "activate"
	Heartbeat  Call = "heartbeat"
	CheckIn    Call = "check-in"
	Deactivate Call = "deactivate"
)

// Ask makes one of the four calls. The upstream's error is a *plugin.Error; any other error is the plugin's own
// failure.
func (c *Client) Ask(ctx context.Context, call Call, r *plugin.Request) (*plugin.Reply, error) {
	ask := map[Call]func(context.Context, *pluginpb.Request, ...grpc.CallOption) (*pluginpb.Reply, error){
		Activate: c.upstream.Activate, Heartbeat: c.upstream.Heartbeat, CheckIn: c.upstream.CheckIn,
		Deactivate: c.upstream.Deactivate}[call]
	out, err := ask(ctx, encodeRequest(r))
	if err == nil {
		err = decodeError(out.GetError())
	}
	if err != nil {
		return nil, err
	}
	return &plugin.Reply{Document: out.GetDocument(), NextHeartbeat: instant(out.GetNextHeartbeat()),
		NextCheckIn: instant(out.GetNextCheckIn()), Time: instant(out.GetTime()), State: out.GetState()}, nil
}

// CheckOut asks for a block; see Ask for its errors.
func (c *Client) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	return block(c.upstream.CheckOut(ctx, &pluginpb.CheckOutRequest{Request: encodeRequest(&r.Request), Pool: r.Pool,
		Slots: r.Slots, AtLeast: r.AtLeast, For: int64(r.For), Token: r.Token}))
}

// Extend asks for more of a block; see Ask for its errors.
func (c *Client) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	return block(c.upstream.Extend(ctx,
		&pluginpb.ExtendRequest{Request: encodeRequest(&r.Request), Block: r.Block, Slots: r.Slots, For: int64(r.For)}))
}

// Return returns a block; see Ask for its errors.
func (c *Client) Return(ctx context.Context, r *plugin.Return) error {
	out, err := c.upstream.Return(ctx, &pluginpb.ReturnRequest{Request: encodeRequest(&r.Request), Block: r.Block})
	if err != nil {
		return err
	}
	return decodeError(out.GetError())
}

func block(out *pluginpb.BlockReply, err error) (*plugin.Block, error) {
	if err == nil {
		err = decodeError(out.GetError())
	}
	if err != nil {
		return nil, err
	}
	return &plugin.Block{ID: out.GetId(), Pool: out.GetPool(), Slots: out.GetSlots(), For: time.Duration(out.GetFor()),
		State: out.GetState(), Wanted: out.GetWanted()}, nil
}
