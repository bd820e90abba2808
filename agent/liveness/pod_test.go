package liveness

import (
	"strings"
	"testing"
)

const (
	podA = "0f2b5ab1-7c0d-4d8e-9a44-5b1e6c2a3f10"
	podB = "6c1d9e0a-3333-4b52-8f0e-aaaaaaaaaaaa"
)

var sliceA, sliceB = strings.ReplaceAll(podA, "-", "_"), strings.ReplaceAll(podB, "-", "_")

// A process is in the pod that the kubelet has put it in, whatever drivers and versions of cgroups there are, and in
// none where the process has named its cgroups itself.
func TestParsePod(t *testing.T) {
	for name, row := range map[string]struct{ cgroups, want string }{
		"v2, systemd, burstable": {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" +
			sliceA + ".slice/cri-containerd-aa.scope\n", podA},
		"v2, systemd, guaranteed": {"0::/kubepods.slice/kubepods-pod" + sliceA +
			".slice/crio-aa.scope/container\n", podA},
		"v2, systemd, kubelet's own root": {"0::/kubelet.slice/kubelet-kubepods.slice/" +
			"kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + sliceA +
			".slice/cri-containerd-aa.scope\n", podA},
		"v2, cgroupfs":                     {"0::/kubepods/burstable/pod" + podA + "/aa\n", podA},
		"v2, cgroupfs, kubelet's own root": {"0::/kubelet/kubepods/pod" + podA + "/aa\n", podA},
		"a pod that is a file of its node": {"0::/kubepods/besteffort/pod0123456789abcdef0123456789abcdef/aa\n",
			"0123456789abcdef0123456789abcdef"},
		"with colons": {"0::/system.slice/containerd.service/kubepods-burstable-pod" + sliceA +
			".slice:cri-containerd:aa\n", podA},
		"v1": {"12:cpu,cpuacct:/kubepods/burstable/pod" + podA +
			"/aa\n1:name=systemd:/kubepods/burstable/pod" + podA + "/aa\n0::/\n", podA},
		"from another cgroup namespace": {"0::/../../../kubepods-burstable.slice/kubepods-burstable-pod" + sliceA +
			".slice/cri-containerd-aa.scope\n", podA},
		"of the same class, from another": {"0::/../../kubepods-besteffort-pod" + sliceA +
			".slice/cri-containerd-aa.scope\n", podA},
		"cgroupfs, from another":           {"0::/../../pod" + podA + "/aa\n", podA},
		"cgroupfs, other class, another":   {"0::/../../../burstable/pod" + podA + "/aa\n", podA},
		"the agent's own pod, from within": {"0::/../cri-containerd-aa.scope\n", ""},
		"the agent's own container":        {"0::/\n", ""},
		"no pod":                           {"0::/system.slice/acme.service\n", ""},
		"nothing":                          {"", ""},
		"no lines of cgroups":              {"kubepods/pod" + podA + "\n::\n", ""},
		"a pod made below one's own": {"0::/kubepods.slice/kubepods-pod" + sliceA +
			".slice/cri-containerd-aa.scope/kubepods/burstable/pod" + podB + "/x\n", podA},
		"made by a user": {"0::/user.slice/user-1000.slice/user@1000.service/kubepods/burstable/pod" + podB + "/x\n",
			""},
		"made by a user, from another": {"0::/../../user.slice/user-1000.slice/user@1000.service/kubepods/pod" +
			podB + "/x\n", ""},
		"made by a service": {"0::/system.slice/acme.service/kubepods-burstable-pod" + sliceB +
			".slice:cri-containerd:aa\n", ""},
		"made below a runtime's service": {"0::/system.slice/containerd.service/x/kubepods-pod" + sliceB +
			".slice:cri-containerd:aa\n", ""},
		"made in a container next door":     {"0::/../cri-containerd-aa.scope/kubepods/pod" + podB + "/x\n", ""},
		"a name that only looks like a pod": {"0::/kubepods/burstable/pod" + podA + "x/aa\n", ""},
		"a UID with upper case":             {"0::/kubepods/burstable/pod" + strings.ToUpper(podA) + "/aa\n", ""},
		"a slice without its UID":           {"0::/kubepods.slice/kubepods-burstable-pod.slice/aa\n", ""},
		"two pods": {"2:cpu:/kubepods/pod" + podA + "/aa\n1:name=systemd:/kubepods/pod" +
			podB + "/aa\n", ""},
		"a long tail":                        {"0::/kubepods/pod" + podA + strings.Repeat("/x", 2000) + "\n", podA},
		"below the root of another, by name": {"0::/machine.slice/kubepods/pod" + podB + "/aa\n", ""},
	} {
		if got := parsePod([]byte(row.cgroups)); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

// Whatever a process's cgroups say, a pod is a UID of its usual form, and anything behind a pod's own part changes
// nothing.
func FuzzParsePod(f *testing.F) {
	f.Add("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + sliceA +
		".slice/cri-containerd-aa.scope")
	f.Add("1:name=systemd:/kubepods/burstable/pod" + podA + "/aa\n0::/../../pod" + podB)
	f.Add("0::/system.slice/k3s.service/kubepods-pod" + sliceB + ".slice:cri-containerd:aa")
	f.Fuzz(func(t *testing.T, s string) {
		got := parsePod([]byte(s))
		if got != "" && podUID(got) != got {
			t.Errorf("%q is no UID", got)
		}
		if got != "" && !strings.Contains(s, "\n") {
			if again := parsePod([]byte(s + "/kubepods/pod" + podB)); again != got {
				t.Errorf("%q, and with more below %q", got, again)
			}
		}
	})
}
