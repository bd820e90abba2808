package acceptance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// agentUser is the user of the image.
const agentUser = 10473

// workload is a manifest with pods.
type workload struct {
	name     string
	kind     string
	replicas int32
	selector map[string]string
	pod      corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim
}

// built manifests of a kustomization.
type manifests struct {
	workloads []workload
	services  []corev1.Service
	configs   []corev1.ConfigMap
}

// build does what `kubectl kustomize` does, and reads what comes of it as strictly as the API server can: no unknown
// field, none twice.
func build(t *testing.T, folder string) manifests {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	var m manifests
	for _, r := range all.Resources() {
		b, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		strictly := func(into any) {
			t.Helper()
			if err := yaml.UnmarshalStrict(b, into); err != nil {
				t.Errorf("%s: %s %s: %v", folder, r.GetKind(), r.GetName(), err)
			}
		}
		var w workload
		switch r.GetApiVersion() + " " + r.GetKind() {
		case "apps/v1 Deployment":
			var x appsv1.Deployment
			strictly(&x)
			w = workload{replicas: *x.Spec.Replicas, selector: x.Spec.Selector.MatchLabels, pod: x.Spec.Template}
		case "apps/v1 StatefulSet":
			var x appsv1.StatefulSet
			strictly(&x)
			w = workload{replicas: *x.Spec.Replicas, selector: x.Spec.Selector.MatchLabels, pod: x.Spec.Template,
				claims: x.Spec.VolumeClaimTemplates}
		case "apps/v1 DaemonSet":
			var x appsv1.DaemonSet
			strictly(&x)
			w = workload{replicas: 1, selector: x.Spec.Selector.MatchLabels, pod: x.Spec.Template}
		case "batch/v1 Job":
			var x batchv1.Job
			strictly(&x)
			w = workload{replicas: 1, selector: x.Spec.Template.Labels, pod: x.Spec.Template}
		case "v1 Service":
			m.services = append(m.services, corev1.Service{})
			strictly(&m.services[len(m.services)-1])
		case "v1 ConfigMap":
			m.configs = append(m.configs, corev1.ConfigMap{})
			strictly(&m.configs[len(m.configs)-1])
		default:
			t.Errorf("%s: this test does not know %s %s", folder, r.GetApiVersion(), r.GetKind())
		}
		if w.selector != nil {
			w.name, w.kind = r.GetName(), r.GetKind()
			for _, c := range w.claims { // as the controller does
				w.pod.Spec.Volumes = append(w.pod.Spec.Volumes, corev1.Volume{Name: c.Name,
					VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{
						ClaimName: c.Name + "-" + w.name + "-0"}}})
			}
			m.workloads = append(m.workloads, w)
		}
	}
	return m
}

// write writes a file of a kustomization of a test's own.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// copied copies the manifests into a folder of the test's own, as their user does.
func copied(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == "acceptance" {
			return errOr(err, filepath.SkipDir)
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		write(t, filepath.Join(dir, rel), string(b))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func errOr(err, or error) error {
	if err != nil {
		return err
	}
	return or
}

// folders are all that a user applies.
func folders(t *testing.T) map[string]manifests {
	t.Helper()
	dir := copied(t)
	// A product of each kind with init containers of its own, that takes all components.
	write(t, filepath.Join(dir, "own/kustomization.yaml"), `resources: [product.yaml]
components: [../components/sidecar, ../components/agent-key]
images: [{name: usher, newTag: v1.0.0}]
configMapGenerator: [{name: usher-config, files: [../sidecar/usher.yaml]}]
`)
	write(t, filepath.Join(dir, "own/usher.yaml"), "product: acme\n")
	write(t, filepath.Join(dir, "own/kustomization.yaml"), strings.ReplaceAll(
		read(t, filepath.Join(dir, "own/kustomization.yaml")), "../sidecar/usher.yaml", "usher.yaml"))
	spec := `
    spec:
      restartPolicy: Never
      initContainers: [{name: migrate, image: "acme:1"}]
      containers: [{name: other, image: "acme:1"}]
      volumes: [{name: mine, emptyDir: {}}]
`
	write(t, filepath.Join(dir, "own/product.yaml"), `apiVersion: batch/v1
kind: Job
metadata: {name: once, labels: {usher-sidecar: "true"}}
spec:
  template:
    metadata: {labels: {app: once}}`+spec+`---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each, labels: {usher-sidecar: "true"}}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}`+strings.ReplaceAll(spec, "      restartPolicy: Never\n", "")+`---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: kept, labels: {usher-sidecar: "true"}}
spec:
  serviceName: kept
  replicas: 1
  selector: {matchLabels: {app: kept}}
  template:
    metadata: {labels: {app: kept}}`+strings.ReplaceAll(spec, "      restartPolicy: Never\n", ""))
	out := map[string]manifests{}
	for _, f := range []string{"sidecar", "node", "site/server", "site/agents", "own"} {
		out[f] = build(t, filepath.Join(dir, f))
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The manifests are what the API takes, and each of our containers is as closed as it can be.
func TestManifests(t *testing.T) {
	for folder, m := range folders(t) {
		if len(m.workloads) == 0 {
			t.Errorf("%s has no workload", folder)
		}
		for _, w := range m.workloads {
			for k, v := range w.selector {
				if w.pod.Labels[k] != v {
					t.Errorf("%s: %s selects pods that it does not make: %s=%s", folder, w.name, k, v)
				}
			}
			ours := 0
			spec := w.pod.Spec
			for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
				mounts(t, folder, &spec, &c)
				if strings.HasPrefix(c.Image, "usher") {
					ours++
					closed(t, folder, &spec, &c)
				}
			}
			if ours == 0 {
				t.Errorf("%s: %s has no container of ours", folder, w.name)
			}
		}
		for _, s := range m.services {
			serves(t, folder, m, &s)
		}
	}
}

// mounts sees that a container's mounts have their volumes, and follow what changes.
func mounts(t *testing.T, folder string, spec *corev1.PodSpec, c *corev1.Container) {
	t.Helper()
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			t.Errorf("%s: %s mounts %s, and there is no such volume", folder, c.Name, m.Name)
			continue
		}
		if v := spec.Volumes[i]; (v.Secret != nil || v.ConfigMap != nil) && m.SubPath != "" {
			t.Errorf("%s: %s mounts a part of %s, which never changes then", folder, c.Name, m.Name)
		} else if (v.Secret != nil || v.ConfigMap != nil) && !m.ReadOnly {
			t.Errorf("%s: %s mounts %s as if it could write to it", folder, c.Name, m.Name)
		}
	}
}

// closed sees that a container of ours has the restrictions of the Pod Security Standard "restricted", and more.
func closed(t *testing.T, folder string, spec *corev1.PodSpec, c *corev1.Container) {
	t.Helper()
	lacks := func(what string, is bool) {
		t.Helper()
		if !is {
			t.Errorf("%s: container %s lacks %s", folder, c.Name, what)
		}
	}
	s := c.SecurityContext
	if s == nil {
		t.Errorf("%s: container %s has no securityContext", folder, c.Name)
		return
	}
	isTrue := func(b *bool) bool { return b != nil && *b }
	lacks("a tag of its image", strings.Contains(c.Image, ":"))
	lacks("readOnlyRootFilesystem", isTrue(s.ReadOnlyRootFilesystem))
	lacks("allowPrivilegeEscalation: false", s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation)
	lacks("a seccomp profile",
		s.SeccompProfile != nil && s.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault)
	lacks("capabilities dropped",
		s.Capabilities != nil && slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}))
	lacks("requests", !c.Resources.Requests.Memory().IsZero() && !c.Resources.Requests.Cpu().IsZero())
	lacks("a memory limit", !c.Resources.Limits.Memory().IsZero())
	if folder == "node" && c.Name == "folders" { // gives folders away, and does nothing else
		lacks("only CAP_CHOWN", slices.Equal(s.Capabilities.Add, []corev1.Capability{"CHOWN"}))
		return
	}
	lacks("no capability", len(s.Capabilities.Add) == 0)
	lacks("runAsNonRoot", isTrue(s.RunAsNonRoot))
	lacks("the image's user", s.RunAsUser != nil && *s.RunAsUser == agentUser && s.RunAsGroup != nil &&
		*s.RunAsGroup == agentUser)
	if c.Name != "usher-folders" {
		lacks("probes", c.StartupProbe != nil && c.LivenessProbe != nil)
		for _, e := range c.Env {
			if e.Name == "GOMEMLIMIT" {
				limit, err := resource.ParseQuantity(strings.TrimSuffix(e.Value, "B"))
				lacks("a GOMEMLIMIT below its limit", err == nil && limit.Cmp(*c.Resources.Limits.Memory()) < 0)
			}
		}
	}
	if spec.HostPID && folder != "node" {
		t.Errorf("%s: it sees the node's processes", folder)
	}
}

// serves sees that a service leads to a port of pods.
func serves(t *testing.T, folder string, m manifests, s *corev1.Service) {
	t.Helper()
	for _, w := range m.workloads {
		for k, v := range s.Spec.Selector {
			if w.pod.Labels[k] != v {
				t.Errorf("%s: service %s selects no pod of %s", folder, s.Name, w.name)
			}
		}
		for _, port := range s.Spec.Ports {
			if !slices.ContainsFunc(w.pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool {
				return p.Name == port.TargetPort.StrVal && p.ContainerPort == port.Port
			}) {
				t.Errorf("%s: service %s leads to no port of %s", folder, s.Name, w.name)
			}
		}
	}
}

// The agent's folders come first, then the agent, a native sidecar, and then what the product has of its own: whatever
// a kustomization changes.
func TestSidecarComesFirst(t *testing.T) {
	for folder, m := range folders(t) {
		for _, w := range m.workloads {
			if folder == "node" || folder == "site/server" {
				continue
			}
			var names []string
			for _, c := range w.pod.Spec.InitContainers {
				names = append(names, c.Name)
			}
			want := []string{"usher-folders", "usher"}
			if folder == "own" {
				want = append(want, "migrate")
			}
			if !slices.Equal(names, want) {
				t.Errorf("%s: the init containers of %s are %v, want %v", folder, w.name, names, want)
				continue
			}
			r := w.pod.Spec.InitContainers[1].RestartPolicy
			if r == nil || *r != corev1.ContainerRestartPolicyAlways {
				t.Errorf("%s: the agent of %s is no native sidecar", folder, w.name)
			}
			for _, c := range w.pod.Spec.Containers {
				if strings.HasPrefix(c.Image, "usher") {
					t.Errorf("%s: %s has an agent that would keep a Job from ending", folder, w.name)
				}
			}
		}
	}
}
