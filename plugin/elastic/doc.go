// Package elastic knows the licences of the Elastic Stack and of Elastic's orchestrators (ECE, ECK).
//
// Two kinds of licence share one JSON shape and one signature envelope: a stack licence is what Elasticsearch installs,
// an orchestration licence what Elastic Cloud Enterprise and Elastic Cloud on Kubernetes do. What the signature covers
// is rebuilt from the members in an order of the kind's own, so that it survives clients which reorder a file.
//
// Sources: the API reference of ECE (PUT /platform/license); the public sources of Elasticsearch (x-pack core, package
// license), ECK (pkg/controller/common/license) and cloud-sdk-go.
package elastic

// System is the name of the licence system.
const System = "elastic"

// The kinds of licences, which are the schemes that an anchor may be limited to.
const (
	KindStack         = "stack"         // of Elasticsearch
	KindOrchestration = "orchestration" // of ECE and ECK
)

// The pools of a licence. Products acquire them by these names.
const (
	PoolUnits     = "resource_units" // max_resource_units
	PoolInstances = "instances"      // max_instances
	PoolNodes     = "nodes"          // max_nodes
)

// How much memory a resource unit and an instance stand for, in MiB: the parts that leases may hold of them. An
// orchestrator rounds up the sum of the memory, and not each deployment's.
const (
	unitMiB     = 64 << 10
	instanceMiB = unitMiB / 2
)
