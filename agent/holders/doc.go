// Package holders knows by which processes leases live. It has the kernel tell when one dies, and its leases end then;
// after a restart it looks for the holders of the leases that were found again. It decides nothing of leases: what a
// death means is the enforcer's. Start reading at [Registry.Hold] and [Registry.Find].
package holders
