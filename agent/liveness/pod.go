package liveness

import (
	"bytes"
	"strings"
)

// maxCgroups bounds how many bytes of a process's cgroups are read.
const maxCgroups = 64 << 10

// parsePod returns the UID of the Kubernetes pod that the lines of a process's cgroups (cgroups(7), /proc/PID/cgroup)
// put it in; empty: in none that is known, or in more than one.
func parsePod(cgroups []byte) (pod string) {
	for line := range bytes.Lines(cgroups) {
		_, rest, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), ":")
		_, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		switch uid := podOfPath(path); {
		case uid == "":
		case pod != "" && pod != uid:
			return ""
		default:
			pod = uid
		}
	}
	return pod
}

// podOfPath reads one path as the kubelet makes it (kubernetes, pkg/kubelet/cm, cgroup_manager_linux.go), with either
// of its cgroup drivers, below the root, below the kubelet's own root or, for the colon form, below the service of the
// container runtime:
//
//	/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid, with _>.slice/cri-containerd-<id>.scope
//	/kubepods/burstable/pod<uid>/<id>
//	/system.slice/containerd.service/kubepods-burstable-pod<uid, with _>.slice:cri-containerd:<id>
//
// Where the agent is in a cgroup namespace of its own, the path of a process outside of it begins with /.. for each
// level up, and leaves out the common part. A process may make cgroups below its own, so podOfPath believes no part
// from the first on that neither the kubelet nor the runtime has made.
func podOfPath(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	relative := false
	for len(parts) > 0 && parts[0] == ".." {
		parts, relative = parts[1:], true
	}
	if len(parts) > 0 && (parts[0] == "kubelet" || parts[0] == "kubelet.slice") {
		parts = parts[1:]
	}
	if len(parts) > 2 && parts[0] == "system.slice" && runtimeServices[parts[1]] {
		name, _, ok := strings.Cut(parts[2], ":")
		if !ok {
			return ""
		}
		return podOfSlice(name)
	}
	within := relative
	for _, part := range parts {
		name := strings.TrimPrefix(part, "kubelet-") // the slices of a kubelet with a root of its own
		switch {
		case name == "kubepods", name == "kubepods.slice":
			within = true
		case !within:
			return ""
		case name == "burstable", name == "besteffort", name == "guaranteed", name == "kubepods-burstable.slice",
			name == "kubepods-besteffort.slice":
		case strings.HasPrefix(name, "pod"):
			return podUID(strings.TrimPrefix(name, "pod"))
		default:
			return podOfSlice(name)
		}
	}
	return ""
}

// runtimeServices are the services below which container runtimes, with slices in their cgroups' names, put containers.
var runtimeServices = map[string]bool{"containerd.service": true, "crio.service": true, "docker.service": true,
	"k3s.service":       true,
	"k3s-agent.service": true, "rke2-server.service": true, "rke2-agent.service": true}

// podOfSlice reads a pod's slice: kubepods, its quality of service unless that is guaranteed, and pod and its UID,
// joined by -.
func podOfSlice(name string) string {
	name, slice := strings.CutSuffix(name, ".slice")
	name, pods := strings.CutPrefix(name, "kubepods-")
	if !slice || !pods {
		return ""
	}
	for _, class := range []string{"burstable-", "besteffort-"} {
		name = strings.TrimPrefix(name, class)
	}
	uid, pod := strings.CutPrefix(name, "pod")
	if !pod {
		return ""
	}
	return podUID(uid)
}

// podUID returns a pod's UID in its usual form: a UUID or, of a pod from a file of its node, 32 hex digits; empty: it
// is none.
func podUID(s string) string {
	s = strings.ReplaceAll(s, "_", "-")
	if len(s) != 36 && len(s) != 32 {
		return ""
	}
	for i, c := range []byte(s) {
		dash := len(s) == 36 && (i == 8 || i == 13 || i == 18 || i == 23)
		if dash != (c == '-') || !dash && !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return ""
		}
	}
	return s
}
