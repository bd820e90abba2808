package doctor

import "slices"

// Code is one fault that the doctor can find.
type Code struct {
	Code  string
	Cause string // in general: a clause
}

// codeOK is the code of a finding that nothing is wrong.
const codeOK = "OK"

// Codes are all faults, causes before what follows from them. docs/doctor.md has the mend of each.
var Codes = []Code{
	{"CONFIG_UNREADABLE", "the configuration file cannot be read"},
	{"CONFIG_RELATIVE", "paths of the configuration begin at the folder that the agent was started in"},
	{"CONFIG_INVALID", "the configuration has a fault"},
	{"TRUST_BROKEN", "a key of license.trust cannot be used"},
	{"TRUST_NONE", "no key is trusted"},
	{"FILE_UNREADABLE", "the agent may not read a file that the configuration names"},
	{"SOCKET_ELSEWHERE", "an exported variable leads to another socket than the configuration"},
	{"STATE_FULL", "there is no room for the agent's files"},
	{"STATE_READ_ONLY", "the agent's folder lies on a file system that is mounted read-only"},
	{"STATE_NETWORK", "the agent's folder lies on a network file system"},
	{"STATE_OWNER", "the agent's folder, or a file in it, belongs to another user"},
	{"STATE_MODE", "others can write to the agent's folder, or to one on the way to it"},
	{"STATE_MISSING", "the agent's folder is not there, and the agent cannot make it"},
	{"SECOND_AGENT", "another agent uses the folder"},
	{"SOCKET_FOLDER", "the agent cannot make its socket in the folder"},
	{"SOCKET_GROUP", "the group of the socket does not exist, or the agent is no member"},
	{"SOCKET_TAKEN", "something else has the name of the socket"},
	{"ADDRESS_IN_USE", "another program has an address of the configuration"},
	{"PLUGIN_MISSING", "a plugin's file is not there"},
	{"PLUGIN_CHANGED", "a plugin's file is not the one that the configuration names"},
	{"PLUGIN_UNFIT", "a plugin's file cannot be run safely"},
	{"JOURNAL_DAMAGED", "a journal is damaged"},
	{"STATE_CHANGED", "somebody else changed the agent's state"},
	{"DESCRIPTORS_LOW", "the agent may open too few files"},
	{"SOCKET_STALE", "the agent that made the socket is gone"},
	{"AGENT_SILENT", "the agent takes calls and does not answer"},
	{"CALLER_DENIED", "the configuration does not let the caller in"},
	{"SOCKET_CLOSED", "the permissions of the socket or of a folder do not let the caller in"},
	{"AGENT_AWAY", "no agent runs"},
	{"AGENT_UNREADY", "a vital part of the agent is not well"},
	{"CLOCK_PAST", "the clock is far in the past"},
	{"CLOCK_AHEAD", "the clock is ahead of every proof"},
	{"CLOCK_BEHIND", "the clock is behind what is proved"},
	{"HOST_NO_ID", "the host has no machine-id"},
	{"UPSTREAM_NONE", "the licence demands an upstream, and none is configured"},
	{"UPSTREAM_PROXY", "the proxy before the upstream does not work"},
	{"UPSTREAM_DNS", "the upstream's name cannot be resolved"},
	{"UPSTREAM_CONNECT", "nobody answers at the upstream's address"},
	{"UPSTREAM_CA", "the upstream's certificate is from an unknown authority"},
	{"UPSTREAM_CERT_EXPIRED", "the upstream's certificate is out of its time"},
	{"UPSTREAM_CERT_NAME", "the upstream's certificate is for another name"},
	{"UPSTREAM_TLS", "TLS with the upstream fails"},
	{"UPSTREAM_DENIED", "the upstream does not accept the credentials"},
	{"UPSTREAM_FAILING", "the upstream answers with an error"},
	{"UPSTREAM_REFUSES", "the agent's calls to the upstream fail"},
	{"FLEET_DNS", "the name of a member of etcd cannot be resolved"},
	{"FLEET_CONNECT", "nobody listens at the address of a member of etcd"},
	{"FLEET_SILENT", "a member of etcd does not answer"},
	{"FLEET_CA", "the certificate of a member of etcd is from an unknown authority"},
	{"FLEET_CERT_EXPIRED", "the certificate of a member of etcd is out of its time"},
	{"FLEET_CERT_NAME", "the certificate of a member of etcd is for another name"},
	{"FLEET_CLIENT_CERT", "a member of etcd does not take the agent's certificate"},
	{"FLEET_TLS", "TLS with a member of etcd fails"},
	{"FLEET_AUTH", "etcd does not accept the user or the password"},
	{"FLEET_DENIED", "etcd does not let the user use the fleet's keys"},
	{"FLEET_NO_LEADER", "etcd has no leader"},
	{"FLEET_NO_SPACE", "etcd is out of quota"},
	{"FLEET_FAILING", "etcd answers with an error"},
	{"FLEET_SLOW", "etcd's writes take long"},
	{"FLEET_CLONE", "another host is in the fleet with this agent's key"},
	{"FLEET_EVICTED", "an operator has put this host out of the fleet"},
	{"FLEET_FENCED", "the agent's fence has passed, and it grants nothing of the fleet"},
	{"FLEET_QUARANTINE", "nobody in the fleet gets more slots, because etcd may be an old copy"},
	{"FLEET_DRAINED", "an operator has this host give its idle slots back"},
	{"FLEET_TERMS", "another host's licence has a lower limit, which holds for all"},
	{"LICENSE_UNREADABLE", "the agent cannot read a licence file"},
	{"LICENSE_MISSING", "there is no licence"},
	{"LICENSE_KEY", "the licence is not signed by a trusted key"},
	{"LICENSE_PRODUCT", "the licence is for another product"},
	{"LICENSE_HOST", "the licence is for another host"},
	{"LICENSE_REFUSED", "the vendor has suspended or revoked the licence"},
	{"LICENSE_OVERDUE", "the contact that the licence demands is overdue"},
	{"LICENSE_EXPIRED", "the licence has expired"},
	{"LICENSE_NOT_YET", "the licence is not valid yet"},
	{"LICENSE_INVALID", "the licence does not count for another reason"},
	{"LICENSE_GRACE", "the licence's grace runs"},
	{"LICENSE_ENDS_SOON", "the licence ends soon"},
	{"RELOAD_FAILED", "the last reload failed"},
	{"RESTART_PENDING", "a changed key waits for a restart"},
	{"DRAINING", "the agent was told to grant nothing new"},
	{"POOL_SHARE", "this agent has lost its share of a site's pool"},
	{"POOL_FULL", "all slots of a pool are in use, or all draws of a meter are drawn"},
	{"DESCRIPTORS_USED", "the agent has used up its open files"},
	{"NOTIFY_EXHAUSTED", "the kernel has no more watches for the agent's user"},
	{"SECRET_OPEN", "others can read a secret that the configuration names"},
	{"KERNEL_OLD", "the kernel does not report the death of processes"},
	{"STATE_LOW", "there is little room for the agent's files"},
	{"HOST_FEW", "few components identify this host"},
	{"LICENSE_WARNING", "the licence has another warning"},
	{"VERSION_DIFFERS", "the agent is of another version than this command"},
	{"NOT_LOOKED_AT", "this user may not look"},
}

// upstreamFaults are what keeps an agent from its upstream.
var upstreamFaults = []string{"UPSTREAM_NONE", "UPSTREAM_PROXY", "UPSTREAM_DNS", "UPSTREAM_CONNECT", "UPSTREAM_CA",
	"UPSTREAM_CERT_EXPIRED", "UPSTREAM_CERT_NAME", "UPSTREAM_TLS", "UPSTREAM_DENIED", "UPSTREAM_FAILING",
	"UPSTREAM_REFUSES"}

// fleetFaults are what keeps an agent from its etcd, and fleetStates what keeps it out of its fleet.
var (
	fleetFaults = []string{"FLEET_DNS", "FLEET_CONNECT", "FLEET_SILENT", "FLEET_CA", "FLEET_CERT_EXPIRED",
		"FLEET_CERT_NAME", "FLEET_CLIENT_CERT", "FLEET_TLS", "FLEET_AUTH", "FLEET_DENIED", "FLEET_NO_LEADER",
		"FLEET_NO_SPACE", "FLEET_FAILING"}
	fleetStates = []string{"FLEET_CLONE", "FLEET_EVICTED", "FLEET_QUARANTINE", "FLEET_DRAINED"}
)

// clockFaults are what makes dates come too early or too late. slowFaults are those of a clock that shows too little.
var (
	clockFaults = []string{"CLOCK_PAST", "CLOCK_AHEAD", "CLOCK_BEHIND"}
	slowFaults  = []string{"CLOCK_PAST", "CLOCK_BEHIND"}
)

// explained says of a fault which others explain it: these come first, and are as bad.
var explained = map[string][]string{
	"LICENSE_OVERDUE":       slices.Concat(upstreamFaults, clockFaults),
	"LICENSE_EXPIRED":       clockFaults,
	"LICENSE_NOT_YET":       slowFaults,
	"LICENSE_INVALID":       clockFaults,
	"LICENSE_HOST":          {"HOST_NO_ID", "HOST_FEW"},
	"LICENSE_MISSING":       {"LICENSE_UNREADABLE"},
	"LICENSE_KEY":           {"TRUST_NONE"},
	"POOL_SHARE":            slices.Concat(upstreamFaults, fleetFaults, fleetStates),
	"FLEET_FENCED":          fleetFaults,
	"FLEET_CERT_EXPIRED":    clockFaults,
	"UPSTREAM_CERT_EXPIRED": clockFaults,
	"UPSTREAM_REFUSES":      slices.Concat(upstreamFaults[:len(upstreamFaults)-1], clockFaults),
	"AGENT_SILENT":          {"DESCRIPTORS_USED"},
	"AGENT_UNREADY":         {"STATE_LOW"},
}
