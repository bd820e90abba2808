package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/client/wire"
)

// vendor signs licences.
type vendor struct {
	t   *testing.T
	dir string
}

func newVendor(t *testing.T) *vendor {
	t.Helper()
	v := &vendor{t: t, dir: t.TempDir()}
	v.usher("vendor", "keygen", "--kid", "acme-2026", "--out", v.dir)
	return v
}

// usher runs the command outside of all pods.
func (v *vendor) usher(args ...string) string {
	v.t.Helper()
	cmd := exec.Command(filepath.Join(built, "usher"), args...)
	cmd.Env = append(os.Environ(), "USHER_SOCKET=/nowhere")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		v.t.Fatalf("usher %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// licence is a document with more terms.
func (v *vendor) licence(id string, more ...string) []byte {
	v.t.Helper()
	file := filepath.Join(v.t.TempDir(), id+".lic")
	v.usher(append([]string{"vendor", "sign", "--key", filepath.Join(v.dir, "acme-2026.key"), "--product",
		"acme-render",
		"--licensee", "You", "--id", id, "--out", file}, more...)...)
	return []byte(read(v.t, file))
}

// public is the vendor's public key.
func (v *vendor) public() string { return read(v.t, filepath.Join(v.dir, "acme-2026.pub")) }

// pools asks the agent of a pod for its pool.
func (p *pod) pool() wire.Pool {
	p.t.Helper()
	out, err := p.exec("usher", "/usr/bin/usher", "pools", "--json")
	if err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	var in struct{ Pools []wire.Pool }
	if err := json.Unmarshal([]byte(out), &in); err != nil || len(in.Pools) != 1 {
		return wire.Pool{}
	}
	return in.Pools[0]
}

// holds waits until the pod's agent has so many slots in use.
func (p *pod) holds(n int64) {
	p.t.Helper()
	p.until(fmt.Sprintf("%d slots are in use", n), p.process("usher"), func() bool { return p.pool().InUse == n })
}

// leases asks the agent of a pod for its leases.
func (p *pod) leases() []wire.Lease {
	p.t.Helper()
	out, err := p.exec("usher", "/usr/bin/usher", "leases", "--json")
	var in struct{ Leases []wire.Lease }
	if err == nil {
		err = json.Unmarshal([]byte(out), &in)
	}
	if err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	return in.Leases
}

// endsWell ends a pod, and sees that its product had the agent to the last.
func (p *pod) endsWell() {
	p.t.Helper()
	p.terminate()
	if said := p.process("product").said(); !strings.Contains(said, "ended well") {
		p.t.Errorf("the product at its end: %s", said)
	}
	for _, x := range p.running {
		if code := x.cmd.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("%s ends with %d", x.spec.Name, code)
		}
	}
}

// A newcomer's first pod: the product starts once the agent answers, its slot is free when it is killed although the
// agent does not see it, a Secret's change is in force, a crash of the agent ends nothing, and at the end of the pod
// the product has its agent to the last.
func TestSidecar(t *testing.T) {
	c := newNewcomer(t)
	c.sign("acme.lic", "acme-1", "--limit", "streams=2", "--scope", "host", "--expires", "30d")
	c.sign("renewed.lic", "acme-1", "--limit", "streams=5", "--scope", "host", "--expires", "60d")
	c.walk("An agent in each pod", 0)
	p := c.run("acme", &c.applied().pod.Spec)
	p.holds(1)
	if said := c.execs(p); !strings.Contains(said, "Licence valid") {
		t.Errorf("status says %s", said)
	}
	if all := p.leases(); len(all) != 1 || all[0].Holder == nil || all[0].Holder.PID != 0 {
		t.Errorf("the agent sees the product, which is in another PID namespace: %+v", all)
	}
	c.must(p.process("product").cmd.Process.Kill())
	p.holds(0)
	p.again("product")
	p.holds(1)
	c.walk("An agent in each pod", 1)
	p.until("the Secret's change is in force", p.process("usher"), func() bool {
		l := p.pool().Limit
		return l != nil && *l == 5
	})
	was := p.leases()
	p.again("usher")
	p.until("the product has shown its lease again", p.process("usher"), func() bool {
		all := p.leases()
		return len(all) == 1 && all[0].ID == was[0].ID && all[0].State == "held"
	})
	p.endsWell()
}

// Without a licence everything starts; the licence is in force when its Secret comes.
func TestSidecarStartsWithoutALicence(t *testing.T) {
	c := newNewcomer(t)
	c.sign("acme.lic", "acme-1", "--limit", "streams=2", "--scope", "host")
	c.walk("An agent in each pod", 0)
	licence := c.files["secret/usher-licence"]
	delete(c.files, "secret/usher-licence")
	p := c.run("acme", &c.applied().pod.Spec)
	product := p.process("product")
	p.until("the product is told", product, func() bool {
		return strings.Contains(product.said(), "there is no licence")
	})
	c.set("secret/usher-licence", licence)
	p.holds(1)
	// A key that is withdrawn from the configuration counts no longer, and nothing restarts.
	config := c.files["configmap/usher-config"]
	c.set("configmap/usher-config", map[string][]byte{"usher.yaml": []byte("product: acme-render\n")})
	p.until("the key counts no longer", p.process("usher"), func() bool {
		out, _ := p.exec("usher", "/usr/bin/usher", "status")
		return strings.Contains(out, "UNTRUSTED_KEY")
	})
	c.set("configmap/usher-config", config)
	p.until("the key counts again", p.process("usher"), func() bool {
		_, err := p.exec("usher", "/usr/bin/usher", "status")
		return err == nil
	})
	p.endsWell()
}

// A licence that is bound to a key made beforehand is good in each new pod.
func TestAgentKeyOutlivesThePod(t *testing.T) {
	c := newNewcomer(t)
	thumb := strings.TrimSpace(c.walk("A licence bound to the agent's key", 0))
	c.sign("acme.lic", "acme-1", "--limit", "streams=2", "--agent-key", thumb)
	c.walk("An agent in each pod", 0)
	file := filepath.Join(c.dir, "mine/sidecar/kustomization.yaml")
	write(t, file, strings.Replace(read(t, file), "# - ../components/agent-key", "- ../components/agent-key", 1))
	spec := c.applied().pod.Spec
	for _, name := range []string{"acme-x1", "acme-x2"} {
		p := c.run(name, &spec)
		p.holds(1)
		p.endsWell()
	}
}

// An agent on a node: other pods hold its slots, a roll-out of the agent ends no lease although the holder does not
// call, and the fingerprint is the node's.
func TestNode(t *testing.T) {
	c := newNewcomer(t)
	host := filepath.Join(c.node.dir, "host")
	write(t, filepath.Join(host, "etc/machine-id"), "6f1c7a526d1f4c568e435a8d1f5a7c11\n")
	c.must(os.MkdirAll(filepath.Join(host, "sys"), 0o755))
	c.must(unix.Mount("/sys", filepath.Join(host, "sys"), "", unix.MS_BIND|unix.MS_REC, ""))
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(host, "sys"), unix.MNT_DETACH) })
	c.sign("acme.lic", "acme-1", "--limit", "streams=3", "--scope", "host")
	c.walk("An agent on each node", 0)
	daemons := c.applied().pod.Spec
	agent := c.run("usher-node-x1", &daemons)
	var request wire.Fingerprint
	c.must(json.Unmarshal([]byte(c.execs(agent)), &request))
	for _, k := range request.Components {
		if k.Name == "machine-id" && (k.Note != "" || len(k.Values) != 1) {
			t.Errorf("the machine-id is not the node's: %+v", k)
		}
	}

	dir := filepath.Join(c.dir, "mine/product")
	write(t, filepath.Join(dir, "kustomization.yaml"),
		"resources: [product.yaml]\ncomponents: [../components/node-socket]\n")
	write(t, filepath.Join(dir, "product.yaml"), strings.Replace(read(t, "../sidecar/product.yaml"), "usher-sidecar",
		"usher-node", 1))
	spec := build(t, dir).workloads[0].pod.Spec
	p := c.run("acme", &spec)
	agent.holds(1)
	product := p.process("product").cmd.Process
	c.must(product.Signal(syscall.SIGSTOP))
	was := agent.leases()
	agent.terminate()
	agent = c.run("usher-node-x2", &daemons)
	all := agent.leases()
	if len(all) != 1 || all[0].ID != was[0].ID || all[0].State != "held" || all[0].Holder.PID == 0 {
		t.Errorf("after the roll-out: %+v", all)
	}
	c.must(product.Signal(syscall.SIGCONT))
	p.endsWell()
	agent.holds(0)
	// The state is the agent's alone, whoever made its folder.
	fi, err := os.Stat(filepath.Join(host, "var/lib/usher/acme-render"))
	if err != nil || fi.Mode().Perm() != 0o700 || fi.Sys().(*syscall.Stat_t).Uid != agentUser {
		t.Errorf("the state: %v, %v", fi, err)
	}
}

// A site server and the agents of several pods share the slots of one licence. A pod that ends gives its share back,
// and a new pod of the server goes on with the claim of the old one.
func TestSite(t *testing.T) {
	c := newNewcomer(t)
	if _, err := exec.LookPath("openssl"); err != nil {
		lacks(t, "the page makes a certificate with openssl, which is not here")
	}
	c.hosts = []string{"usher-site"}
	c.walk("A site server and many pods", 0)
	servers := c.applied().pod.Spec
	servers.Containers[0].Args = append(servers.Containers[0].Args, "--block-ttl=6s") // a new pod settles for so long
	server := c.run("usher-site-0", &servers)
	key, _, _ := strings.Cut(c.execs(server), "\n")
	c.sign("acme.lic", "acme-1", "--limit", "streams=4", "--scope", "site", "--site-server", key)
	c.walk("A site server and many pods", 1)
	w := c.applied()
	if w.replicas != 5 {
		t.Errorf("%d pods share the slots", w.replicas)
	}
	var pods []*pod
	for _, name := range []string{"acme-x1", "acme-x2"} {
		p := c.run(name, &w.pod.Spec)
		p.holds(1)
		pods = append(pods, p)
	}
	if said := c.execs(server); strings.Count(said, "streams") < 2 {
		t.Errorf("the server has given: %s", said)
	}
	// A new pod of the server, with the volume of the old one and the group of all in it.
	server.terminate()
	c.run("usher-site-0", &servers)
	pods[0].endsWell()
	pods[1].until("the other pod has all slots", pods[1].process("usher"), func() bool {
		out, err := pods[1].exec("usher", "/usr/bin/usher", "acquire", "--pool", "streams", "--n", "3", "--ttl", "1s")
		return err == nil && out != ""
	})
	pods[1].endsWell()
}
