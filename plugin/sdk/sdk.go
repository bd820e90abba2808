// Package sdk is what the author of a licence system that is a program of its own imports, beside packages plugin and
// enforcer:
//
//	func main() { sdk.Serve(sdk.System{Format: format{}, Version: "1.0"}) }
//
// The agent starts the program, speaks with it over a socket of their own, and ends it. What the program writes to
// standard error is in the agent's log, ten lines a second at most. docs/plugins.md has the whole story, docs/examples
// one to copy, and package plugintest the tests that a system must pass.
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

// Serve serves the system until the agent ends it, or ends itself: the program's standard input ends with the agent,
// however that ends. A system that cannot be served, and a program that was not started by an agent, exit with 1.
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
