// Package pluginpb is the messages between the agent and plugins that run as processes of their own, generated from
// plugin.proto by `make generate`. Package remote speaks it.
package pluginpb
