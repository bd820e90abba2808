package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v3/cpu"
	psutil "github.com/shirou/gopsutil/v3/host"
)

// components reads everything that identifies this host.
func components(ctx context.Context, p places, container string) []raw {
	out := []raw{
		machineID(p),
		firmware(p, "product-uuid", "product_uuid"),
		firmware(p, "board-serial", "board_serial"),
		rootDisk(p),
		nics(p),
		processor(ctx, p),
		endorsement(p),
	}
	if container != "" && !p.hostEtc {
		out[0].note = "the container's own: mount the host's /etc and set HOST_ETC, or bind to the agent's key"
	}
	return out
}

// machineID is machine-id(5).
func machineID(p places) raw {
	out := raw{name: "machine-id"}
	paths := []string{filepath.Join(p.etc, "machine-id")}
	if !p.hostEtc {
		// With HOST_ETC, the other path would be the container's own: its id would pass for the host's.
		paths = append(paths, filepath.Join(p.root, "var/lib/dbus/machine-id"))
	}
	for _, path := range paths {
		id, err := read(path)
		switch {
		case err != nil:
			if out.absent == "" {
				out.absent = reason(path, err)
			}
		case isFiller(id):
			out.absent = path + " holds no id"
		default:
			return raw{name: out.name, values: []string{id}}
		}
	}
	return out
}

// firmware reads a field of the firmware (SMBIOS) from sysfs.
func firmware(p places, name, file string) raw {
	path := filepath.Join(p.sys, "class/dmi/id", file)
	v, err := read(path)
	switch {
	case err != nil:
		return raw{name: name, absent: reason(path, err)}
	case isFiller(v):
		return raw{name: name, absent: "the maker has put no number there"}
	}
	return raw{name: name, values: []string{v}}
}

// rootDisk is the serial number of the disk that holds the root file system.
func rootDisk(p places) raw {
	out := raw{name: "disk-serial"}
	mounts, err := read(filepath.Join(p.proc, "self/mountinfo"))
	if err != nil {
		out.absent = reason(filepath.Join(p.proc, "self/mountinfo"), err)
		return out
	}
	var device, source string
	for line := range strings.Lines(mounts) {
		// proc_pid_mountinfo(5): id parent major:minor root mountpoint options … - type source options
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if len(f) > 5 && f[4] == "/" && dash > 0 && len(f) > dash+2 {
			device, source = f[2], f[dash+2]
		}
	}
	block, err := filepath.EvalSymlinks(filepath.Join(p.sys, "dev/block", device))
	if err != nil && strings.HasPrefix(source, "/dev/") {
		// btrfs has a device number of its own, which is not a disk's.
		block, err = filepath.EvalSymlinks(filepath.Join(p.sys, "class/block", blockName(p, source)))
	}
	if device == "" || err != nil {
		out.absent = fmt.Sprintf("the root file system (%s) lies on no disk of this host", source)
		return out
	}
	if v := diskSerial(block, 0); v != "" {
		out.values = []string{v}
	} else {
		out.absent = "the root disk " + filepath.Base(block) + " states no serial number"
	}
	return out
}

// blockName is the kernel's name for a device file. A logical volume's is in dm/name; its file has the volume's own.
func blockName(p places, source string) string {
	base := filepath.Base(source)
	names, _ := filepath.Glob(filepath.Join(p.sys, "class/block/dm-*/dm/name"))
	for _, file := range names {
		if v, err := read(file); err == nil && source == "/dev/mapper/"+v {
			return filepath.Base(filepath.Dir(filepath.Dir(file)))
		}
	}
	return base
}

// diskSerial looks for a block device's serial number: its own, its disk's when it is a partition, else those of the
// devices below it.
func diskSerial(block string, depth int) string {
	if depth > 8 {
		return ""
	}
	if _, err := os.Stat(filepath.Join(block, "partition")); err == nil {
		return diskSerial(filepath.Dir(block), depth+1)
	}
	for _, file := range []string{"serial", "device/serial", "wwid", "device/wwid"} {
		if v, err := read(filepath.Join(block, file)); err == nil && !isFiller(v) {
			return v
		}
	}
	slaves, _ := filepath.Glob(filepath.Join(block, "slaves", "*"))
	for _, s := range slaves {
		if real, err := filepath.EvalSymlinks(s); err == nil {
			if v := diskSerial(real, depth+1); v != "" {
				return v
			}
		}
	}
	return ""
}

// nics is the addresses of the network cards: interfaces with a device behind them, whose address is the card's own.
func nics(p places) raw {
	out := raw{name: "mac", absent: "there is no network card: only virtual interfaces"}
	links, _ := filepath.Glob(filepath.Join(p.sys, "class/net", "*"))
	for _, link := range links {
		if _, err := os.Stat(filepath.Join(link, "device")); err != nil {
			continue
		}
		if t, err := read(filepath.Join(link, "addr_assign_type")); err == nil && t != "0" {
			continue // random, stolen or set: not the card's own
		}
		if mac, err := read(filepath.Join(link, "address")); err == nil && !isFiller(mac) {
			out.values = append(out.values, mac)
		}
	}
	if len(out.values) > 0 {
		out.absent = ""
	}
	return out
}

// processor is the make of the processor, which many hosts share.
func processor(ctx context.Context, p places) raw {
	infos, err := cpu.InfoWithContext(p.context(ctx))
	file := filepath.Join(p.proc, "cpuinfo")
	if err != nil {
		return raw{name: "cpu", absent: reason(file, err)}
	}
	if len(infos) == 0 {
		return raw{name: "cpu", absent: file + " is missing, or lists no processor"}
	}
	i := infos[0]
	if i.VendorID == "" && i.ModelName == "" && i.Model == "" {
		return raw{name: "cpu", absent: "the processor does not say what it is"}
	}
	return raw{name: "cpu", values: []string{fmt.Sprintf("%s|%s|%s|%d|%s", i.VendorID, i.Family, i.Model, i.Stepping,
		strings.Join(strings.Fields(i.ModelName), " "))}}
}

// endorsement is the public endorsement key of a TPM 1.2, the modulus as the kernel prints it (tpm-sysfs.c, pubek). The
// kernel does not publish a TPM 2.0's key, and the agent does not open the TPM.
func endorsement(p places) raw {
	out := raw{name: "tpm-ek"}
	tpm := filepath.Join(p.sys, "class/tpm/tpm0")
	if _, err := os.Stat(tpm); err != nil {
		out.absent = reason(tpm, err)
		return out
	}
	for _, file := range []string{"pubek", "device/pubek"} {
		path := filepath.Join(tpm, file)
		text, err := read(path)
		if err != nil {
			if out.absent == "" || !errors.Is(err, fs.ErrNotExist) {
				out.absent = reason(path, err)
			}
			continue
		}
		if _, modulus, ok := strings.Cut(text, "Modulus:"); ok {
			if key := strings.Join(strings.Fields(modulus), ""); !isFiller(key) {
				return raw{name: out.name, values: []string{key}}
			}
		}
		out.absent = path + " holds no key"
	}
	if v, err := read(filepath.Join(tpm, "tpm_version_major")); err == nil && v == "2" {
		out.absent = "the kernel does not publish the key of a TPM 2.0, and the TPM is not opened"
	}
	return out
}

// hypervisors are the names of virtual machines in firmware: a part of sys_vendor or product_name, and the name for
// people.
var hypervisors = [][2]string{{"qemu", "kvm"}, {"kvm", "kvm"}, {"vmware", "vmware"}, {"virtualbox", "virtualbox"},
	{"innotek", "virtualbox"}, {"xen", "xen"},
	{"virtual machine", "hyper-v"}, {"amazon ec2", "amazon-ec2"}, {"google compute engine", "google-compute-engine"},
	{"google", "google-compute-engine"},
	{"parallels", "parallels"}, {"bochs", "bochs"}, {"openstack", "openstack"}, {"alibaba cloud", "alibaba-cloud"},
	{"digitalocean", "digitalocean"}, {"hetzner", "hetzner-cloud"},
	{"firecracker", "firecracker"}}

// surroundings says whether this is a virtual machine, and whether a container.
func surroundings(ctx context.Context, p places) (virtual, container string) {
	dmi := ""
	for _, f := range []string{"sys_vendor", "product_name"} {
		v, _ := read(filepath.Join(p.sys, "class/dmi/id", f))
		dmi += strings.ToLower(v) + "\n"
	}
	for _, h := range hypervisors {
		if strings.Contains(dmi, h[0]) {
			virtual = h[1]
			break
		}
	}
	if virtual == "" {
		info, _ := read(filepath.Join(p.proc, "cpuinfo"))
		for line := range strings.Lines(info) {
			if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
				if slices.Contains(strings.Fields(flags), "hypervisor") {
					virtual = "unknown"
				}
				break
			}
		}
	}
	if p.real && (virtual == "" || virtual == "unknown") {
		// gopsutil remembers its first finding, so it must not see a test's files.
		if system, role, err := psutil.VirtualizationWithContext(ctx); err == nil && role == "guest" &&
			slices.Contains([]string{"kvm", "xen", "vbox", "vmware", "hyperv", "bhyve"}, system) {
			virtual = system
		}
	}
	return virtual, containerOf(p)
}

// runtimes are the parts of a control group's path that name the runtime which made it.
var runtimes = [][2]string{{"kubepods", "kubernetes"}, {"docker", "docker"}, {"libpod", "podman"}, {"crio", "cri-o"},
	{"containerd", "containerd"}, {"lxc", "lxc"}}

func containerOf(p places) string {
	exists := func(name string) bool { _, err := os.Stat(filepath.Join(p.root, name)); return err == nil }
	if p.real && os.Getenv("KUBERNETES_SERVICE_HOST") != "" || exists("var/run/secrets/kubernetes.io") {
		return "kubernetes"
	}
	if exists(".dockerenv") {
		return "docker"
	}
	if exists("run/.containerenv") {
		return "podman"
	}
	// proc(5): systemd and its like set it for their children; readable for the same user only.
	if env, err := read(filepath.Join(p.ownProc, "1/environ")); err == nil {
		for kv := range strings.SplitSeq(env, "\x00") {
			if v, ok := strings.CutPrefix(kv, "container="); ok && v != "" {
				return v
			}
		}
	}
	groups, _ := read(filepath.Join(p.ownProc, "self/cgroup"))
	for _, r := range runtimes {
		if strings.Contains(groups, r[0]) {
			return r[1]
		}
	}
	return ""
}
