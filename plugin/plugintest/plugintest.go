// Package plugintest is the tests that every licence system must pass, built in or not:
//
//	func TestFormat(t *testing.T) {
//		s := plugintest.FormatSamples{Good: [][]byte{doc}, Anchors: anchors}
//		plugintest.Format(t, plugintest.Serve(t, sdk.System{Format: format{}}).Format(), s)
//	}
//
// [Serve] has the system answer over the same messages as a plugin's, within the test's process; [Start] starts a
// plugin's program as the agent does.
package plugintest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/external"
	"github.com/usher-agent/usher/plugin/remote"
)

// within is how long one answer may take on a busy machine.
const within = 30 * time.Second

// Remote is a system at the other end of a connection.
type Remote struct {
	client *remote.Client
	about  *remote.Description
}

// Serve has a system answer over gRPC, within this process, until the test ends.
func Serve(t testing.TB, s remote.System) *Remote {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(remote.ServerOptions()...)
	if err := s.Register(server); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:plugin",
		append(remote.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return l.DialContext(ctx)
			}))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-ended
	})
	r := &Remote{client: remote.NewClient(conn)}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if r.about, err = r.client.Describe(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	return r
}

// Format returns the system as a format.
func (r *Remote) Format() plugin.Format { return remoteFormat{r} }

// Upstream returns the system as an upstream.
func (r *Remote) Upstream() plugin.Budgeter { return remoteUpstream{r} }

type remoteFormat struct{ *Remote }

func (f remoteFormat) System() string { return f.about.System }

func (f remoteFormat) Recognise(document []byte) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	ok, err := f.client.Recognise(ctx, document)
	return ok && err == nil
}

func (f remoteFormat) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	l, p, err := f.client.Verify(ctx, f.System(), document, anchors)
	if err != nil {
		return nil, external.Away(f.System(), err)
	}
	return l, p
}

type remoteUpstream struct{ *Remote }

func (u remoteUpstream) System() string { return u.about.System }

func (u remoteUpstream) Capabilities() plugin.Capabilities {
	if u.about.Upstream == nil {
		return plugin.Capabilities{}
	}
	return *u.about.Upstream
}

func (u remoteUpstream) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.client.Ask(ctx, remote.Activate, r)
}

func (u remoteUpstream) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.client.Ask(ctx, remote.Heartbeat, r)
}

func (u remoteUpstream) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.client.Ask(ctx, remote.CheckIn, r)
}

func (u remoteUpstream) Deactivate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return u.client.Ask(ctx, remote.Deactivate, r)
}

func (u remoteUpstream) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	return u.client.CheckOut(ctx, r)
}

func (u remoteUpstream) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	return u.client.Extend(ctx, r)
}

func (u remoteUpstream) Return(ctx context.Context, r *plugin.Return) error {
	return u.client.Return(ctx, r)
}

// Start starts a plugin's program until the test ends, as the agent does, with the checksum of the present file.
func Start(t testing.TB, system, path string, args ...string) *external.Process {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "p") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	p, err := external.New(external.Config{Name: system, Path: path, Args: args, SHA256: sha256.Sum256(b), Dir: dir,
		Version: "test"})
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		os.RemoveAll(dir)
	})
	if _, err := p.Format().TryRecognise(nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// Format fails the test for each promise of [plugin.Format] that the format does not keep.
func Format(t testing.TB, f plugin.Format, s FormatSamples) {
	t.Helper()
	report(t, CheckFormat(f, s))
}

// Upstream fails the test for each promise of [plugin.Upstream] that the upstream does not keep.
func Upstream(t testing.TB, u plugin.Upstream, s UpstreamSamples) {
	t.Helper()
	report(t, CheckUpstream(u, s))
}

func report(t testing.TB, faults []error) {
	t.Helper()
	for _, err := range faults {
		t.Error(err)
	}
}

// faults collects the faults found.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

// intime runs f and reports whether it has returned in time and without a panic.
func (f *faults) intime(what string, run func()) bool {
	return f.inTimeOf(1, new(atomic.Int64), what, run)
}

// inTimeOf is intime for many answers, which run counts: each may take some times as long as one alone.
func (f *faults) inTimeOf(times int, answers *atomic.Int64, what string, run func()) bool {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("it panics: %v", r)
			}
		}()
		run()
		done <- nil
	}()
	var err error
	for before, ended := int64(-1), false; !ended; {
		select {
		case err = <-done:
			ended = true
		case <-time.After(time.Duration(times) * within):
			if now := answers.Load(); now != before {
				before = now
				continue
			}
			err, ended = errors.New("it hangs"), true
		}
	}
	if err != nil {
		f.add("%s: %w", what, err)
	}
	return err == nil
}
