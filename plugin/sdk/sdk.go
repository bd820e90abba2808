// Package sdk is for authors of licence systems that are programs of their own; they import it beside packages plugin
// and enforcer:
//
//	func main() { sdk.Serve(sdk.System{Format: format{}, Version: "1.0"}) }
//
// The agent starts the program, speaks with it over a private socket, and ends it. The program's standard error goes to
// the agent's log, ten lines a second at most. docs/plugins.md tells the whole story, docs/examples has one to copy,
// and package plugintest has the tests that a system must pass.
package sdk

import (
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/usher-agent/usher/plugin/remote"
)

// System is what a plugin serves: a Format, an Upstream, or both, of one licence system.
type System = remote.System

// Serve serves the system until the agent ends it or ends itself: the program's standard input ends with the agent,
// however that ends. It exits with 1 for a system that cannot be served, and where no agent has started the program.
func Serve(s System) {
	if _, err := s.Name(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	if os.Getenv(remote.Handshake.MagicCookieKey) == remote.Handshake.MagicCookieValue {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	goplugin.Serve(&goplugin.ServeConfig{HandshakeConfig: remote.Handshake, VersionedPlugins: remote.Set(&s),
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(o, remote.ServerOptions()...)...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr})})
}
