#!/bin/sh
# Makes the roles of etcd for a fleet: fleet-agent can do what an agent's work needs, fleet-operator can look at the
# fleet, drain a host and put one out. Run it as a user of etcd that may make roles, before or after authentication is
# turned on; etcdctl, 3.4 or later, takes its addresses and credentials from the ETCDCTL_… variables. Again does no
# harm.
#
#   roles.sh [PREFIX]      PREFIX is fleet.prefix, /usher/ by default
#
# docs/fleet.md says who gets which role.
set -eu
prefix=${1:-/usher/}

role() { etcdctl role get "$1" >/dev/null 2>&1 || etcdctl role add "$1" >/dev/null; }
below() { etcdctl role grant-permission --prefix=true "$1" "$2" "$prefix$3" >/dev/null; }
key() { etcdctl role grant-permission "$1" "$2" "$prefix$3" >/dev/null; }

# Of agents: members, meters, the pools of each, pools, words for others, answers; the store's identity, the longest
# fleet.ttl, a quarantine. What operators order is theirs to read.
role fleet-agent
for part in a/ m/ o/ p/ r/ u/; do below fleet-agent readwrite "$part"; done
for part in c l q; do key fleet-agent readwrite "$part"; done
below fleet-agent read e/

# Of operators: all to read; orders, and what an eviction takes away.
role fleet-operator
below fleet-operator read ""
for part in a/ e/ o/ p/ r/; do below fleet-operator readwrite "$part"; done

echo "the roles fleet-agent and fleet-operator are there, for the keys of $prefix"
