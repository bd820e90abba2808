package catalog

import (
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/brainframe"
	"github.com/usher-agent/usher/plugin/elastic"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/ucloud"
	"github.com/usher-agent/usher/plugin/usher"
)

// Systems returns the built-in systems, one line each. The first one with a production anchor tells the agent's time.
func Systems() []plugin.System {
	return lend([]plugin.System{
		usher.Provide(),
		keygen.Provide(),
		awslm.Provide(),
		elastic.Provide(),
		brainframe.Provide(),
		ucloud.Provide(),
	})
}
