package options

import (
	"strings"

	"github.com/usher-agent/usher/agent/config"
)

// counterpart says what there is here in the place of an option that is no rule about slots.
type counterpart struct{ reason, mend string }

var counterparts = map[string]counterpart{
	"NOLOG": {"without events.leases the log has no line for each checkout, and with it there is one for all of them",
		"denials are events, gathered by user; see usher events history"},
	"REPORTLOG": {"the agent records what is in use by itself, by hour, and by user where privacy.users says so",
		"usher report shows it; docs/usage.md says how long it is kept"},
	"DEBUGLOG": {"the agent logs to standard error, which systemd keeps",
		"journalctl -u usher shows it; for OUT and IN set events.leases: true, and see usher events --since 1h"},
	"ROTATE":          {"the agent keeps its records in bounded space by itself", "nothing is to be done"},
	"PURGE_REPORTLOG": {"the agent keeps its records in bounded space by itself", "nothing is to be done"},
	"AUTOMATIC_REREAD": {"a licence in the folder is in force at once, and there is no reread at midnight",
		"nothing is to be done"},
	"AUTO_ROLLOVER": {"a rule concerns a pool, whatever its licences are", "nothing is to be done"},
	"MAX_CONNECTIONS": {"connections are bounded for each user, not for all",
		"set limits.connections_per_uid"},
	"DAEMON_SELECT_TIMEOUT": {"the agent waits for the kernel's word and does not poll", "nothing is to be done"},
	"FQDN_MATCHING": {"match.host compares with this host's name as hostname prints it",
		"write the names as the hosts have them, or with *: build1*"},
	"ACTIVATION_LOWWATER":    {"activations are counted by the upstream", "set it there"},
	"ACTIVATION_EXPIRY_DAYS": {"activations are counted by the upstream", "set it there"},
	"NO_OLD_RLMUTIL": {"there is no older tool to keep away",
		"socket.admin says who may use the admin commands"},
	"CLIENT_CACHE": {"a client keeps no slots of its own", "linger keeps slots for their user after a release"},
	"TIMEZONE":     {"callers are on this host, in its time zone", "nothing is to be done"},
	"MIN_TIMEOUT":  {"it is a term of a licence in RLM, not an option", "set idle_timeout no shorter than that"},
	"EXPRESS_ON": {"a request does not pass those that wait: a large one would never get its slots",
		"give callers that want few slots a priority"},
	"ROAM_MAX_COUNT": {"here the slots that stay are stated, not those that may go",
		"set borrow_low_water to the pool's limit less this number"},
}

// entitlements says why those of FlexNet's trusted storage are not carried over.
var entitlements = counterpart{"fulfillment records of trusted storage have no counterpart",
	"use INCLUDE and EXCLUDE, or the _BORROW ones, for the feature"}

// others settles the options that are no rules about slots.
func (c *carrier) others() {
	for _, it := range c.items {
		o := it.option
		switch k := o.keyword; {
		case strings.HasSuffix(k, "_ENTITLEMENT"):
			c.no(o, entitlements.reason, entitlements.mend)
		case k == "EXPRESS" && o.on:
			c.no(o, counterparts["EXPRESS_ON"].reason, counterparts["EXPRESS_ON"].mend)
		case k == "EXPRESS":
			it.part = "the queue is always like that: the caller that has waited longest is first"
		case k == "ROAM_MAX_COUNT" && o.n == 0:
			if pools, ok := c.pool(o); ok {
				c.add(o, config.Policy{Pools: pools, NoBorrow: true})
			}
		default:
			if same, ok := counterparts[k]; ok {
				c.no(o, same.reason, same.mend)
			}
		}
	}
}
