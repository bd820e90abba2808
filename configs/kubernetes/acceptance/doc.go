// Package acceptance tries the manifests of this folder: against the types of the Kubernetes API, and as a kubelet
// would run them, with the built agent, real processes, and the volumes, namespaces and probes that the manifests ask
// for.
package acceptance
