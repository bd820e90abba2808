package acceptance

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// patience is how long anything may take on a busy machine.
const patience = 60 * time.Second

// pod is a pod that runs.
type pod struct {
	*node
	name    string
	spec    *corev1.PodSpec
	volumes map[string]mount // by name
	running []*process       // in the order of their starts
}

// process is a container that runs.
type process struct {
	spec    *corev1.Container
	cmd     *exec.Cmd
	env     []string
	sidecar bool
	log     string
	ended   chan struct{} // closed when it has
}

// run runs a pod: its volumes, its init containers in turn, each sidecar until its startup probe succeeds, and its
// containers.
func (n *node) run(name string, spec *corev1.PodSpec) *pod {
	n.t.Helper()
	p := &pod{node: n, name: name, spec: spec, volumes: map[string]mount{}}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		from, readOnly := n.volume(name, spec, v)
		p.volumes[v.Name] = mount{From: from, ReadOnly: readOnly}
	}
	n.t.Cleanup(p.kill)
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		x := p.start(c)
		if x.sidecar = c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways; x.sidecar {
			p.running = append(p.running, x)
			p.started(x)
			continue
		}
		p.until("init container "+c.Name+" ends", x, x.over)
		if code := x.cmd.ProcessState.ExitCode(); code != 0 {
			n.t.Fatalf("init container %s ended with %d:\n%s", c.Name, code, x.said())
		}
	}
	for i := range spec.Containers {
		x := p.start(&spec.Containers[i])
		p.running = append(p.running, x)
		p.started(x)
	}
	return p
}

// start starts a container.
func (p *pod) start(c *corev1.Container) *process {
	p.t.Helper()
	dir := filepath.Join(p.dir, "pods", p.name, fmt.Sprintf("%s-%d", c.Name, time.Now().UnixNano()))
	p.must(os.MkdirAll(filepath.Dir(dir), 0o755))
	x := &process{spec: c, ended: make(chan struct{}), log: dir + ".log"}
	k := p.describe(c, dir)
	x.env = k.Env
	p.root(k.Root, c.Image, k.Mounts)
	spec, err := json.Marshal(k)
	p.must(err)
	log, err := os.Create(x.log)
	p.must(err)
	defer log.Close()
	x.cmd = exec.Command("/proc/self/exe")
	x.cmd.Env = []string{containerEnv + "=" + string(spec)}
	x.cmd.Stdout, x.cmd.Stderr = log, log
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if !p.spec.HostPID {
		x.cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	}
	p.must(x.cmd.Start())
	go func() {
		defer close(x.ended)
		_ = x.cmd.Wait()
	}()
	return x
}

// describe says what the runtime is to do for a container.
func (p *pod) describe(c *corev1.Container, dir string) container {
	p.t.Helper()
	k := container{Root: dir, UID: 1000, GID: 0, ReadOnly: c.SecurityContext.ReadOnlyRootFilesystem != nil &&
		*c.SecurityContext.ReadOnlyRootFilesystem}
	program := "product"
	env := map[string]string{}
	k.Args = []string{"/usr/bin/product"}
	if strings.HasPrefix(c.Image, "usher:") {
		program, k.UID, k.GID = "usher", p.image.uid, p.image.gid
		for _, v := range p.image.env {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
		k.Args = append([]string{p.image.entrypoint}, c.Args...)
	}
	for _, v := range c.Env {
		env[v.Name] = v.Value
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		k.Env = append(k.Env, name+"="+env[name])
	}
	if u := c.SecurityContext.RunAsUser; u != nil {
		k.UID = int(*u)
	}
	if g := c.SecurityContext.RunAsGroup; g != nil {
		k.GID = int(*g)
	}
	if s := p.spec.SecurityContext; s != nil && s.FSGroup != nil {
		k.Groups = append(k.Groups, int(*s.FSGroup))
	}
	if caps := c.SecurityContext.Capabilities; caps != nil && slices.Contains(caps.Add, "CHOWN") {
		k.Keep = append(k.Keep, unix.CAP_CHOWN)
	}
	hosts := dir + ".hosts"
	p.must(os.WriteFile(hosts, []byte("127.0.0.1 localhost "+strings.Join(p.hosts, " ")+"\n"), 0o644))
	k.Mounts = []mount{{filepath.Join(built, program), "/usr/bin/" + program, true}, {"/sys", "/sys", true},
		{"/dev/null", "/dev/null", false}, {"/dev/urandom", "/dev/urandom", false}, {hosts, "/etc/hosts", true}}
	for _, m := range c.VolumeMounts {
		v := p.volumes[m.Name]
		if m.SubPath != "" {
			v.From = filepath.Join(v.From, m.SubPath)
		}
		k.Mounts = append(k.Mounts, mount{v.From, m.MountPath, v.ReadOnly || m.ReadOnly})
	}
	return k
}

func (x *process) over() bool {
	select {
	case <-x.ended:
		return true
	default:
		return false
	}
}

func (x *process) said() string {
	b, err := os.ReadFile(x.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// started waits for a container's startup probe.
func (p *pod) started(x *process) {
	p.t.Helper()
	if x.spec.StartupProbe == nil {
		return
	}
	p.until(x.spec.Name+" has started", x, func() bool {
		if x.over() {
			p.t.Fatalf("%s ended: %v\n%s", x.spec.Name, x.cmd.ProcessState, x.said())
		}
		return p.probe(x, x.spec.StartupProbe)
	})
}

// probe asks a container once.
func (p *pod) probe(x *process, probe *corev1.Probe) bool {
	p.t.Helper()
	if probe.Exec != nil {
		_, err := p.exec(x.spec.Name, probe.Exec.Command...)
		return err == nil
	}
	get := probe.HTTPGet
	i := slices.IndexFunc(x.spec.Ports, func(q corev1.ContainerPort) bool { return q.Name == get.Port.StrVal })
	if i < 0 {
		p.t.Fatalf("%s has no port %s", x.spec.Name, get.Port.StrVal)
	}
	// As the kubelet does, without looking at the certificate.
	asks := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	r, err := asks.Get(fmt.Sprintf("%s://127.0.0.1:%d%s", strings.ToLower(string(get.Scheme)),
		x.spec.Ports[i].ContainerPort, get.Path))
	if err != nil {
		return false
	}
	defer r.Body.Close()
	return r.StatusCode < 400
}

// exec runs a program in a container, as kubectl exec does, and returns its output.
func (p *pod) exec(name string, args ...string) (string, error) {
	p.t.Helper()
	x := p.process(name)
	k := p.describe(x.spec, x.log)
	enter := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(x.cmd.Process.Pid), "-p", "-m", "-r", "-w",
		"-G", strconv.Itoa(k.GID), "-S", strconv.Itoa(k.UID), "--"}, args...)...)
	enter.Env = x.env
	out, err := enter.CombinedOutput()
	return string(out), err
}

// process returns a container by its name.
func (p *pod) process(name string) *process {
	p.t.Helper()
	i := slices.IndexFunc(p.running, func(x *process) bool { return x.spec.Name == name })
	if i < 0 {
		p.t.Fatalf("pod %s has no container %s", p.name, name)
	}
	return p.running[i]
}

// terminate ends a pod as the kubelet does: its containers first, then its sidecars in the reverse order of their
// starts, all within the pod's grace period.
func (p *pod) terminate() {
	p.t.Helper()
	began := time.Now()
	grace := time.Duration(*p.spec.TerminationGracePeriodSeconds) * time.Second
	var products, sidecars []*process
	for _, x := range p.running {
		if x.sidecar {
			sidecars = append([]*process{x}, sidecars...)
		} else {
			products = append(products, x)
		}
	}
	for _, x := range products {
		p.must(x.cmd.Process.Signal(syscall.SIGTERM))
	}
	for _, x := range products {
		p.until(x.spec.Name+" ends", x, x.over)
	}
	for _, x := range sidecars {
		if x.over() {
			p.t.Errorf("sidecar %s ended before the product:\n%s", x.spec.Name, x.said())
			continue
		}
		p.must(x.cmd.Process.Signal(syscall.SIGTERM))
		p.until(x.spec.Name+" ends", x, x.over)
	}
	if took := time.Since(began); took > grace {
		p.t.Errorf("pod %s took %v to end, and its grace period is %v", p.name, took, grace)
	}
}

// again kills a container and starts it again, as the kubelet does after a crash.
func (p *pod) again(name string) {
	p.t.Helper()
	x := p.process(name)
	_ = x.cmd.Process.Kill()
	<-x.ended
	y := p.start(x.spec)
	y.sidecar = x.sidecar
	p.running[slices.Index(p.running, x)] = y
	p.started(y)
}

func (p *pod) kill() {
	for _, x := range p.running {
		_ = x.cmd.Process.Kill()
		<-x.ended
		if p.t.Failed() {
			p.t.Logf("%s/%s:\n%s", p.name, x.spec.Name, x.said())
		}
	}
}

// until waits for something about a container.
func (p *pod) until(what string, x *process, holds func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			p.t.Fatalf("never: %s\n%s", what, x.said())
		}
		select {
		case <-p.t.Context().Done():
			p.t.Fatal(p.t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
