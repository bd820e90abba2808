//go:build linux

package external

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/pluginpb"
	"github.com/usher-agent/usher/plugin/remote"
	"github.com/usher-agent/usher/plugin/sdk"
)

// TestMain makes this binary one of the plugins that the tests start: the first argument says how it behaves.
func TestMain(m *testing.M) {
	if os.Getenv(hostEnv) != "" {
		os.Exit(host())
	}
	if os.Getenv(remote.Handshake.MagicCookieKey) == "" {
		code := m.Run()
		if code == 0 {
			if err := goleak.Find(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
		os.Exit(code)
	}
	behave(os.Args[1])
}

// hostEnv makes this binary an agent that runs a plugin, says its number twice, and waits to be killed.
const hostEnv = "USHER_TEST_HOST"

func host() int {
	path, sum := self(nil)
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		return 1
	}
	os.Unsetenv(hostEnv)
	p, err := New(Config{Name: "test", Path: path, Args: []string{"raw"}, SHA256: sum, Dir: dir})
	if err != nil {
		return 1
	}
	go p.Run(context.Background())
	for p.PID() == 0 {
		<-time.After(time.Millisecond)
	}
	fmt.Println(p.PID())
	// Threads end with the goroutines that are locked to them.
	for range 200 {
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(done)
		}()
		<-done
	}
	if _, err := p.Format().TryRecognise([]byte("x")); err != nil {
		return 1
	}
	fmt.Println(p.PID())
	select {}
}

func behave(how string) {
	switch how {
	case "mute": // says nothing, and lives on
		select {}
	case "deaf": // says where it listens, and does not
		fmt.Println("1|1|unix|/nowhere|grpc|")
		select {}
	case "rubbish":
		fmt.Println(strings.Repeat("x", 1<<20))
		select {}
	case "dies":
		fmt.Fprintln(os.Stderr, "I cannot go on")
		os.Exit(7)
	case "old": // speaks a version that nobody knows any more
		goplugin.Serve(&goplugin.ServeConfig{HandshakeConfig: remote.Handshake,
			VersionedPlugins: map[int]goplugin.PluginSet{99: {remote.Name: &raw{}}},
			GRPCServer:       goplugin.DefaultGRPCServer})
	case "raw": // serves messages that the SDK would not write
		goplugin.Serve(&goplugin.ServeConfig{HandshakeConfig: remote.Handshake,
			VersionedPlugins: map[int]goplugin.PluginSet{1: {remote.Name: &raw{}}},
			GRPCServer:       goplugin.DefaultGRPCServer})
	case "stubborn": // does not end when it is asked to
		go sdk.Serve(sdk.System{Format: format{how}})
		select {}
	case "heir": // leaves its standard error to a child that lives on
		heir := exec.Command(os.Args[0], "mute")
		heir.Env = append(os.Environ(), remote.Handshake.MagicCookieKey+"=x")
		heir.Stdout, heir.Stderr = os.Stdout, os.Stderr
		if err := heir.Start(); err != nil {
			panic(err)
		}
		sdk.Serve(sdk.System{Format: format{how}})
	default:
		sdk.Serve(sdk.System{Format: format{how}, Upstream: upstreamOf{how}, Version: "1.2"})
	}
}

// format behaves as its name says once a document begins with the word.
type format struct{ how string }

func (format) System() string { return "test" }

func (f format) Recognise(d []byte) bool { return bytes.HasPrefix(d, []byte("TEST")) }

func (f format) Verify(d []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	switch word := string(bytes.TrimPrefix(d, []byte("TEST "))); word {
	case "crash":
		panic("what is this?")
	case "exit":
		os.Exit(3)
	case "hang":
		select {}
	case "flood":
		line := strings.Repeat("flood ", 1000) + "\n"
		for range 2000 {
			fmt.Fprint(os.Stderr, line)
		}
	case "huge":
		return nil, &enforcer.Problem{Code: enforcer.Malformed, Reason: strings.Repeat("x", 8<<20)}
	case "endless":
		return nil, &enforcer.Problem{Code: enforcer.Malformed, Reason: strings.Repeat("y\n\x1b[31m", 1<<18),
			Hint: "\xff\x00"}
	case "nothing":
		return nil, nil
	case "negative":
		return &enforcer.License{ID: "a", System: "test", Product: "p", KeyID: "k",
			Pools: map[string]enforcer.PoolTerm{"p": {Max: -7}}}, nil
	case "untrusted":
		return &enforcer.License{ID: "a", System: "test", Product: "p", KeyID: "another"}, nil
	case "usher":
		return &enforcer.License{ID: "a", System: "usher", Product: "p", KeyID: "k"}, nil
	case "environment":
		return nil, &enforcer.Problem{Code: enforcer.Malformed, Reason: "env " + strings.Join(os.Environ(), " ")}
	case "secret", "good":
	default:
		return nil, &enforcer.Problem{Code: enforcer.BadSignature, Reason: "no good"}
	}
	if len(anchors) != 1 || anchors[0].KeyID != "k" {
		return nil, &enforcer.Problem{Code: enforcer.UntrustedKey, Reason: fmt.Sprintf("%d anchors", len(anchors))}
	}
	return &enforcer.License{ID: "a", System: "test", Product: "p", KeyID: "k",
		Pools: map[string]enforcer.PoolTerm{"seats": {Max: 3}}}, nil
}

// raw serves licences that are no JSON, or more than they should be.
type raw struct {
	goplugin.NetRPCUnsupportedPlugin
	pluginpb.UnimplementedPluginServer
	pluginpb.UnimplementedFormatServer
}

func (r *raw) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pluginpb.RegisterPluginServer(s, r)
	pluginpb.RegisterFormatServer(s, r)
	return nil
}

func (r *raw) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("no client")
}

func (r *raw) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.Description, error) {
	return &pluginpb.Description{System: "test", Format: true}, nil
}

func (r *raw) Recognise(context.Context, *pluginpb.RecogniseRequest) (*pluginpb.RecogniseReply, error) {
	return &pluginpb.RecogniseReply{Recognised: true}, nil
}

func (r *raw) Verify(_ context.Context, in *pluginpb.VerifyRequest) (*pluginpb.VerifyReply, error) {
	return &pluginpb.VerifyReply{License: in.GetDocument()}, nil
}

type upstreamOf struct{ how string }

func (upstreamOf) System() string { return "test" }
func (upstreamOf) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true, Budget: true}
}

func (u upstreamOf) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	switch r.LicenseID {
	case "refused":
		return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.Suspended, Reason: "not paid",
			SystemCode: "E17"}
	case "later":
		return nil, &plugin.Error{Class: plugin.Transient, Reason: "busy", RetryAfter: time.Minute}
	case "bad refusal":
		return nil, &plugin.Error{Class: plugin.Refused, Code: "WHATEVER", Reason: "no\n\x00 more"}
	case "plain":
		return nil, errors.New("dial tcp: no route")
	case "far":
		return &plugin.Reply{NextCheckIn: time.Now().AddDate(200, 0, 0)}, nil
	case "hang":
		<-ctx.Done()
		select {} // it does not care
	case "exit":
		os.Exit(3)
	}
	return &plugin.Reply{State: append([]byte("after "), r.State...)}, nil
}

func (u upstreamOf) Heartbeat(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, nil
}
func (u upstreamOf) CheckIn(_ context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return &plugin.Reply{Document: make([]byte, len(r.State)*1024)}, nil
}
func (u upstreamOf) Deactivate(context.Context, *plugin.Request) (*plugin.Reply, error) {
	return nil, plugin.Transiently("never asked")
}
func (u upstreamOf) CheckOut(_ context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	b := &plugin.Block{ID: "b", Pool: r.Pool, Slots: r.Slots, For: r.For}
	if r.Token == "more" {
		b.Slots++
	}
	return b, nil
}
func (u upstreamOf) Extend(_ context.Context, r *plugin.Extend) (*plugin.Block, error) {
	return &plugin.Block{ID: r.Block, Pool: "seats", Slots: r.Slots, For: 2 * r.For}, nil
}
func (u upstreamOf) Return(context.Context, *plugin.Return) error { return nil }

// self is this binary's sum.
func self(testing.TB) (string, [sha256.Size]byte) {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return path, sha256.Sum256(b)
}

var anchors = []plugin.Anchor{{System: "test", KeyID: "k", Algorithm: "EdDSA",
	Key: ed25519.PublicKey(make([]byte, 32))},
	{System: "usher", KeyID: "k", Algorithm: "EdDSA", Key: ed25519.PublicKey(make([]byte, 32))}}
