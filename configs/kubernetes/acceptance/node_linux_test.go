package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// node stands for a node of a cluster and its kubelet, with the Secrets and ConfigMaps of one namespace.
type node struct {
	t       *testing.T
	dir     string
	files   map[string]map[string][]byte // "secret/NAME" or "configmap/NAME": by key
	volumes map[string]string            // folders of mounted Secrets and ConfigMaps, by the same and the pod
	hosts   []string                     // names that lead to this node, as a cluster's DNS says
	image   image
}

func newNode(t *testing.T) *node {
	t.Helper()
	if !isolated {
		t.Skip("a pod needs root, and namespaces that this sandbox does not give")
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		lacks(t, "there is no nsenter, which probes need")
	}
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, files: map[string]map[string][]byte{}, volumes: map[string]string{}}
	n.image = readImage(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.Remove(dir)
	})
	return n
}

// lacks skips a test for which the machine lacks something, which the one that builds releases must not.
func lacks(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// set makes or changes a Secret or ConfigMap; what is mounted follows, as the kubelet has it.
func (n *node) set(name string, content map[string][]byte) {
	n.t.Helper()
	n.files[name] = content
	for of, folder := range n.volumes {
		if strings.HasPrefix(of, name+"@") {
			n.fill(folder, content)
		}
	}
}

// fill writes a volume of a Secret or ConfigMap as the kubelet does: a folder for each version, the link ..data to it,
// and links to what is in that.
func (n *node) fill(folder string, content map[string][]byte) {
	n.t.Helper()
	was, _ := os.Readlink(filepath.Join(folder, "..data"))
	version := fmt.Sprintf("..%d", time.Now().UnixNano())
	n.must(os.Mkdir(filepath.Join(folder, version), 0o755))
	for name, b := range content {
		n.must(os.WriteFile(filepath.Join(folder, version, name), b, 0o644))
	}
	n.must(os.Symlink(version, filepath.Join(folder, "..data_tmp")))
	n.must(os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")))
	for name := range content {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name)); err != nil &&
			!os.IsExist(err) {
			n.t.Fatal(err)
		}
	}
	if was == "" {
		return
	}
	links, err := os.ReadDir(folder)
	n.must(err)
	for _, l := range links {
		if _, ok := content[l.Name()]; !ok && !strings.HasPrefix(l.Name(), "..") {
			n.must(os.Remove(filepath.Join(folder, l.Name())))
		}
	}
	n.must(os.RemoveAll(filepath.Join(folder, was)))
}

// volume makes a volume of a pod, and returns its folder or file, and whether the kubelet mounts it read-only whatever
// the manifest says.
func (n *node) volume(pod string, spec *corev1.PodSpec, v *corev1.Volume) (path string, readOnly bool) {
	n.t.Helper()
	path = filepath.Join(n.dir, "pods", pod, "volumes", v.Name)
	switch {
	case v.EmptyDir != nil:
		n.must(os.MkdirAll(path, 0o755))
		if v.EmptyDir.Medium == corev1.StorageMediumMemory {
			n.must(unix.Mount("tmpfs", path, "tmpfs", 0, "size="+v.EmptyDir.SizeLimit.String()[:len(
				v.EmptyDir.SizeLimit.String())-1])) // Mi and M are one to tmpfs
		}
		n.must(os.Chmod(path, 0o777))
		n.own(path, spec)
		return path, false
	case v.Secret != nil:
		return n.mounted("secret/"+v.Secret.SecretName, pod, path, v.Secret.Optional), true
	case v.ConfigMap != nil:
		return n.mounted("configmap/"+v.ConfigMap.Name, pod, path, v.ConfigMap.Optional), true
	case v.HostPath != nil:
		path = filepath.Join(n.dir, "host", v.HostPath.Path)
		switch kind := *v.HostPath.Type; kind {
		case corev1.HostPathDirectoryOrCreate:
			n.must(os.MkdirAll(path, 0o755))
		default:
			if fi, err := os.Stat(path); err != nil || fi.IsDir() != (kind == corev1.HostPathDirectory) {
				n.t.Fatalf("volume %s: the node has no %s %s: %v", v.Name, kind, v.HostPath.Path, err)
			}
		}
		return path, false
	case v.PersistentVolumeClaim != nil:
		path = filepath.Join(n.dir, "claims", v.PersistentVolumeClaim.ClaimName)
		n.must(os.MkdirAll(path, 0o755))
		n.own(path, spec)
		return path, false
	}
	n.t.Fatalf("volume %s is of a kind that this test does not know", v.Name)
	return "", false
}

// mounted makes the volume of a Secret or ConfigMap.
func (n *node) mounted(name, pod, path string, optional *bool) string {
	n.t.Helper()
	content, ok := n.files[name]
	if !ok && (optional == nil || !*optional) {
		n.t.Fatalf("pod %s: %s does not exist, so the pod would wait for it", pod, name)
	}
	if _, ok := n.volumes[name+"@"+pod]; ok {
		return path
	}
	n.must(os.MkdirAll(path, 0o755))
	n.volumes[name+"@"+pod] = path
	n.fill(path, content)
	return path
}

// own gives what is in a volume to the pod's fsGroup, as the kubelet does when it mounts it. OnRootMismatch: only where
// the volume itself is not the group's yet.
func (n *node) own(path string, spec *corev1.PodSpec) {
	n.t.Helper()
	if spec.SecurityContext == nil || spec.SecurityContext.FSGroup == nil {
		return
	}
	gid := int(*spec.SecurityContext.FSGroup)
	fi, err := os.Stat(path)
	n.must(err)
	policy := spec.SecurityContext.FSGroupChangePolicy
	if policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch && groupOf(fi) == gid &&
		fi.Mode()&os.ModeSetgid != 0 && fi.Mode().Perm()&0o070 == 0o070 {
		return
	}
	n.must(filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		mode := fi.Mode() | 0o660
		if d.IsDir() {
			mode |= 0o070 | os.ModeSetgid
		}
		if err := os.Lchown(p, -1, gid); err != nil {
			return err
		}
		return os.Chmod(p, mode)
	}))
}
