// Package fleet proves that hosts which share a licence through etcd never hold more than it grants together. Its test
// runs real agents and three members of etcd in network namespaces, takes slots and gives them back on each host,
// stops, kills and cuts off both, and checks the recorded history. docs/proof.md says what it sees.
package fleet
