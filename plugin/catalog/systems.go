package catalog

import (
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/usher"
)

// Systems returns the built-in systems, one line each. The first of which an agent has a production anchor tells its
// time.
func Systems() []plugin.System {
	return []plugin.System{
		usher.Provide(),
		keygen.Provide(),
		awslm.Provide(),
	}
}
