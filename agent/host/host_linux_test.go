package host

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// tree writes a host's files below a folder and returns it. A value that begins with "->" is a link.
func tree(t testing.TB, files map[string]string, more ...map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, m := range more {
		files = maps.Clone(files)
		maps.Copy(files, m)
	}
	for name, text := range files {
		write(t, filepath.Join(root, name), text)
	}
	return root
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if to, ok := strings.CutPrefix(text, "->"); ok {
		err = os.Symlink(to, path)
	} else {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// metal is a host of 4 cores with 2 threads each, its root on a logical volume of an NVMe disk's partition.
var metal = map[string]string{
	"etc/machine-id":                "0123456789abcdef0123456789abcdef\n",
	"sys/class/dmi/id/product_uuid": "4C4C4544-0042-3510-8052-B4C04F4D4D32\n",
	"sys/class/dmi/id/board_serial": "To Be Filled By O.E.M.\n",
	"sys/class/dmi/id/sys_vendor":   "Dell Inc.\n",
	"proc/self/mountinfo": "22 1 253:0 / / rw,relatime shared:1 - ext4 " +
		"/dev/mapper/root rw\n",
	"proc/self/cgroup": "0::/system.slice/usher.service\n",
	"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: " +
		"6\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R)  Gold\nstepping\t: 7\nflags\t\t: fpu vme\n",
	"sys/dev/block/253:0":                              "->../../devices/virtual/block/dm-0",
	"sys/devices/virtual/block/dm-0/dm/name":           "root",
	"sys/devices/virtual/block/dm-0/slaves/nvme0n1p2":  "->../../../../pci/nvme/nvme0n1/nvme0n1p2",
	"sys/devices/pci/nvme/nvme0n1/nvme0n1p2/partition": "2\n",
	"sys/devices/pci/nvme/nvme0n1/device/serial":       "S4EVNX0R123456\n",
	"sys/class/net/eth0/address":                       "3c:ec:ef:12:34:56\n",
	"sys/class/net/eth0/addr_assign_type":              "0\n",
	"sys/class/net/eth0/device/vendor":                 "0x8086\n",
	"sys/class/net/docker0/address":                    "02:42:ac:11:00:02\n",
	"sys/class/net/wlan0/address":                      "aa:bb:cc:00:11:22\n",
	"sys/class/net/wlan0/addr_assign_type":             "1\n",
	"sys/class/net/wlan0/device/vendor":                "0x8086\n",
	"sys/devices/system/cpu/online":                    "0-7\n",
	"sys/fs/cgroup/system.slice/usher.service/cpu.max": "max 100000\n",
	"sys/fs/cgroup/system.slice/cpuset.cpus.effective": "0-7\n",
}

func init() {
	for i, c := range []string{"0", "0", "1", "1", "2", "2", "3", "3"} {
		dir := "sys/devices/system/cpu/cpu" + string(rune('0'+i)) + "/topology/"
		metal[dir+"physical_package_id"], metal[dir+"core_id"], metal[dir+"die_id"] = "0", c, "0"
	}
}

func (r Report) component(t testing.TB, name string) Component {
	t.Helper()
	for _, c := range r.Components {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no component %s", name)
	return Component{}
}

func TestBareMetal(t *testing.T) {
	root := tree(t, metal)
	r := Measure(t.Context(), Config{Product: "acme", Root: root, Extra: map[string]string{"cluster": "uid-1"}})
	if r.Physical != 4 || r.Logical != 8 || r.Effective != 8 || r.Virtual != "" || r.Container != "" {
		t.Errorf("got %+v", r)
	}
	for name, value := range map[string]string{"machine-id": "0123456789abcdef0123456789abcdef",
		"product-uuid": "4c4c4544-0042-3510-8052-b4c04f4d4d32",
		"disk-serial":  "s4evnx0r123456", "mac": "3c:ec:ef:12:34:56",
		"cpu": "genuineintel|6|85|7|intel(r) xeon(r) gold", "cluster": "uid-1"} {
		c := r.component(t, name)
		if len(c.Values) != 1 || c.Values[0] != keyed("acme", name, value) || c.Absent != "" || c.Note != "" {
			t.Errorf("%s: got %+v", name, c)
		}
	}
	if c := r.component(t, "board-serial"); c.Absent != "the maker has put no number there" {
		t.Errorf("got %+v", c)
	}
	f := r.Facts()
	if len(f.Components) != 5 || len(f.Configured["cluster"]) != 1 || f.Absent["board-serial"] == "" ||
		f.Physical != 4 {
		t.Errorf("got %+v", f)
	}
	// Two vendors cannot join the components that they get.
	other := Measure(t.Context(), Config{Product: "other", Root: root})
	for i, c := range other.Components {
		if len(c.Values) > 0 && c.Values[0] == r.Components[i].Values[0] {
			t.Errorf("%s is the same for two products", c.Name)
		}
	}
	for _, c := range r.Components {
		for _, v := range c.Values {
			if len(v) != 64 {
				t.Errorf("%s leaves raw: %q", c.Name, v)
			}
		}
	}
}

func TestUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("root reads everything; the wording alone is checked")
	}
	if got, want := reason("/sys/x", &os.PathError{Op: "open", Path: "/sys/x", Err: os.ErrPermission}),
		"/sys/x is readable for root only"; got != want {
		t.Errorf("got %q", got)
	}
	r := Measure(t.Context(), Config{Product: "acme", Root: t.TempDir()})
	for _, c := range r.Components {
		if len(c.Values) > 0 || c.Absent == "" {
			t.Errorf("on an empty host: %+v", c)
		}
	}
	if s := r.Short(); s != "" {
		t.Errorf("nothing identifies the host, and its code is %s", s)
	}
}

func TestContainersAndQuotas(t *testing.T) {
	for _, test := range []struct {
		name      string
		files     map[string]string
		container string
		effective float64
	}{
		{"v2 quota", map[string]string{"sys/fs/cgroup/system.slice/usher.service/cpu.max": "250000 100000\n"}, "", 2.5},
		{"v2 quota above", map[string]string{"sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n"}, "", 0.5},
		{"v2 cpuset", map[string]string{"sys/fs/cgroup/system.slice/cpuset.cpus.effective": "0-2\n"}, "", 3},
		{"v2 cpuset and quota", map[string]string{"sys/fs/cgroup/system.slice/cpuset.cpus.effective": "0-2\n",
			"sys/fs/cgroup/system.slice/cpu.max": "400000 100000\n"}, "", 3},
		{"v1 quota", map[string]string{"proc/self/cgroup": "4:cpu,cpuacct:/a/b\n3:cpuset:/\n",
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us":  "150000\n",
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, "", 1.5},
		{"v1 no quota", map[string]string{"proc/self/cgroup": "4:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, "", 8},
		{"v1 cpuset", map[string]string{"proc/self/cgroup": "3:cpuset:/x\n",
			"sys/fs/cgroup/cpuset/x/cpuset.cpus": "1,3-4\n"}, "", 3},
		{"docker", map[string]string{".dockerenv": "", "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/cpu.max": "100000 100000\n"}, "docker", 1},
		{"pod", map[string]string{"proc/self/cgroup": "0::/kubepods/burstable/pod1/abc\n"}, "kubernetes", 8},
		{"systemd-nspawn", map[string]string{"proc/1/environ": "A=b\x00container=systemd-nspawn\x00"}, "systemd-nspawn",
			8},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Measure(t.Context(), Config{Product: "acme", Root: tree(t, metal, test.files)})
			if r.Effective != test.effective || r.Container != test.container || r.Physical != 4 {
				t.Errorf("effective %v, want %v; container %q; physical %d", r.Effective, test.effective, r.Container,
					r.Physical)
			}
			if note := r.component(t, "machine-id").Note; (note != "") != (test.container != "") {
				t.Errorf("the machine id's note is %q", note)
			}
		})
	}
}

func TestVirtual(t *testing.T) {
	for vendor, want := range map[string]string{"QEMU": "kvm", "VMware, Inc.": "vmware", "Dell Inc.": "",
		"Amazon EC2": "amazon-ec2"} {
		r := Measure(t.Context(),
			Config{Root: tree(t, metal, map[string]string{"sys/class/dmi/id/sys_vendor": vendor})})
		if r.Virtual != want {
			t.Errorf("%s is %q, want %q", vendor, r.Virtual, want)
		}
	}
	r := Measure(t.Context(),
		Config{Root: tree(t, metal, map[string]string{"proc/cpuinfo": "processor : 0\nflags : fpu hypervisor\n"})})
	if r.Virtual != "unknown" {
		t.Errorf("got %q", r.Virtual)
	}
}

func TestOverlayRoot(t *testing.T) {
	r := Measure(t.Context(), Config{Root: tree(t, metal,
		map[string]string{"proc/self/mountinfo": "1 0 0:50 / / rw - overlay overlay rw\n"})})
	if c := r.component(t, "disk-serial"); c.Absent != "the root file system (overlay) lies on no disk of this host" {
		t.Errorf("got %+v", c)
	}
}

// Everybody can measure the host that the test runs on.
func TestThisHost(t *testing.T) {
	r := Measure(t.Context(), Config{Product: "acme"})
	if r.Logical < 1 || r.Physical < 1 || r.Effective <= 0 || len(r.Components) < 7 {
		t.Errorf("got %+v", r)
	}
	again := Measure(t.Context(), Config{Product: "acme"})
	if r.Short() != again.Short() || !r.equal(again) {
		t.Error("a second look sees another host")
	}
}

func TestWatcher(t *testing.T) {
	root := tree(t, metal)
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex // that the bubble waits puts no earlier look before a later change
		var told []Report
		w := NewWatcher(WatchConfig{Config: Config{Product: "acme", Root: root}, OnChange: func(r Report) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r)
		}})
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		look := func(d time.Duration) []Report {
			<-time.After(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(told)
		}
		seen := look(time.Minute)
		if len(seen) != 0 {
			t.Fatalf("nothing has changed, and %d changes are told", len(seen))
		}
		write(t, filepath.Join(root, "sys/fs/cgroup/system.slice/cpu.max"), "200000 100000\n")
		seen = look(11 * time.Second)
		if len(seen) != 1 || seen[0].Effective != 2 {
			t.Fatalf("a quota: %+v", seen)
		}
		if err := os.RemoveAll(filepath.Join(root, "sys/class/net/eth0")); err != nil {
			t.Fatal(err)
		}
		seen = look(5 * time.Minute)
		if len(seen) != 2 || len(seen[1].component(t, "mac").Values) != 0 {
			t.Fatalf("an undocked card: %+v", seen)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Which core a processor is of is read once, and again when others are online. Nothing else of a look depends on how
// many processors the host has.
func TestCoresAreCountedOnce(t *testing.T) {
	root := tree(t, metal)
	p, c := placesOf(root), new(counter)
	count := func(physical, logical int) {
		t.Helper()
		if is, threads, _ := c.count(t.Context(), p); is != physical || threads != logical {
			t.Errorf("%d cores and %d threads, want %d and %d", is, threads, physical, logical)
		}
	}
	cpu := filepath.Join(root, "sys/devices/system/cpu")
	count(4, 8)
	write(t, filepath.Join(cpu, "cpu7/topology/core_id"), "4\n")
	count(4, 8)
	for _, n := range []string{"cpu6", "cpu7"} { // as the kernel takes away what it says of one that is offline
		if err := os.RemoveAll(filepath.Join(cpu, n)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(cpu, "online"), "0-5\n")
	count(3, 6)
	for n := range 6 {
		if err := os.RemoveAll(filepath.Join(cpu, fmt.Sprint("cpu", n), "topology")); err != nil {
			t.Fatal(err)
		}
	}
	count(3, 6)
}

// What the watcher has counted with all else counts from then on, too: cores of another host under the same number of
// threads are told of once.
func TestWatcherCountsAllAnew(t *testing.T) {
	root := tree(t, metal)
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var told []int
		w := NewWatcher(WatchConfig{Config: Config{Product: "acme", Root: root}, OnChange: func(r Report) {
			told = append(told, r.Physical)
		}})
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		<-time.After(11 * time.Second)
		write(t, filepath.Join(root, "sys/devices/system/cpu/cpu7/topology/core_id"), "4\n")
		<-time.After(2*fullEvery + time.Second)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || !slices.Equal(told, []int{5}) {
			t.Errorf("told of %v cores, %v; want 5 once", told, err)
		}
	})
}

// The watcher looks when the beat says.
func TestWatcherKeepsTheBeat(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		beats := 0
		w := NewWatcher(WatchConfig{Config: Config{Product: "acme", Root: tree(t, metal)}, Every: time.Second,
			Beat: func(every time.Duration) time.Duration {
				if beats++; every != time.Second {
					t.Errorf("asked for a beat of %s", every)
				}
				return time.Hour
			}, OnChange: func(Report) {}})
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		<-time.After(150 * time.Minute)
		cancel()
		if err := <-done; err != nil || beats != 3 {
			t.Errorf("in two and a half hours %d beats of an hour, %v", beats, err)
		}
	})
}

func TestCountList(t *testing.T) {
	for s, want := range map[string]int{"": 0, "0": 1, "0-3": 4, "0-3,8": 5, "1,3-4,7\n": 4} {
		if n, err := countList(s); err != nil || n != want {
			t.Errorf("%q is %d, %v", s, n, err)
		}
	}
	for _, s := range []string{"x", "3-1", "1,1", "-1", "0-99999999", "1-", ","} {
		if n, err := countList(s); err == nil {
			t.Errorf("%q is %d", s, n)
		}
	}
}

func FuzzCountList(f *testing.F) {
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := countList(s); err == nil && (n < 0 || n > maxCPU+1) {
			t.Fatalf("%q is %d", s, n)
		}
	})
}

// A container that is given the host's /sys is still held to its own quota, and is still a container.
func TestOwnLimitsWithHostMounts(t *testing.T) {
	own := tree(t, map[string]string{"proc/self/cgroup": "0::/\n", "proc/1/environ": "container=lxc\x00",
		"sys/fs/cgroup/cpu.max": "150000 100000\n"})
	p := placesOf(tree(t, metal))
	p.ownProc, p.ownSys = filepath.Join(own, "proc"), filepath.Join(own, "sys")
	physical, logical, effective := new(counter).count(t.Context(), p)
	if physical != 4 || logical != 8 || effective != 1.5 {
		t.Errorf("got %d, %d, %v", physical, logical, effective)
	}
	if _, container := surroundings(t.Context(), p); container != "lxc" {
		t.Errorf("the container is %q", container)
	}
}

// Where HOST_ETC has no machine-id, the container's own does not pass for the host's.
func TestMachineIDOfHostEtc(t *testing.T) {
	p := placesOf(tree(t, map[string]string{"var/lib/dbus/machine-id": "fedcba9876543210fedcba9876543210\n"}))
	if got := machineID(p); len(got.values) != 1 {
		t.Errorf("without HOST_ETC: %+v", got)
	}
	p.hostEtc = true
	if got := machineID(p); len(got.values) != 0 || got.absent == "" {
		t.Errorf("with HOST_ETC: %+v", got)
	}
}

func TestRootDisk(t *testing.T) {
	btrfs := func(source string) string { return "1 0 0:31 /root / rw - btrfs " + source + " rw\n" }
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a partition": {map[string]string{"proc/self/mountinfo": "1 0 259:2 / / rw - ext4 /dev/root rw\n",
			"sys/dev/block/259:2": "->../../devices/pci/nvme/nvme0n1/nvme0n1p2"}, "S4EVNX0R123456"},
		"btrfs on a partition": {map[string]string{"proc/self/mountinfo": btrfs("/dev/nvme0n1p2"),
			"sys/class/block/nvme0n1p2": "->../../devices/pci/nvme/nvme0n1/nvme0n1p2"}, "S4EVNX0R123456"},
		"btrfs on a logical volume": {map[string]string{"proc/self/mountinfo": btrfs("/dev/mapper/root"),
			"sys/class/block/dm-0": "->../../devices/virtual/block/dm-0"}, "S4EVNX0R123456"},
		"another volume": {map[string]string{"proc/self/mountinfo": btrfs("/dev/mapper/other"),
			"sys/class/block/dm-0": "->../../devices/virtual/block/dm-0"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := rootDisk(placesOf(tree(t, metal, test.files)))
			if strings.Join(got.values, " ") != test.want || (test.want == "") != (got.absent != "") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestEndorsementKey(t *testing.T) {
	const pubek = "Algorithm: 00 00 00 01\nModulus length: 256\nModulus:\nA1 B2 C3\nD4 E5 F6\n"
	for name, test := range map[string]struct {
		files        map[string]string
		want, absent string
	}{
		"none":  {nil, "", "there is no "},
		"1.2":   {map[string]string{"sys/class/tpm/tpm0/device/pubek": pubek}, "A1B2C3D4E5F6", ""},
		"2.0":   {map[string]string{"sys/class/tpm/tpm0/tpm_version_major": "2\n"}, "", "TPM 2.0"},
		"owned": {map[string]string{"sys/class/tpm/tpm0/pubek": ""}, "", "holds no key"},
	} {
		t.Run(name, func(t *testing.T) {
			got := endorsement(placesOf(tree(t, map[string]string{"etc/x": ""}, test.files)))
			if strings.Join(got.values, " ") != test.want || !strings.Contains(got.absent, test.absent) ||
				(test.want == "") != (got.absent != "") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// However often the watcher looks at the cores, it looks at everything every five minutes.
func TestWatcherLooksAtAllInTime(t *testing.T) {
	for _, every := range []time.Duration{time.Second, time.Minute, 2 * time.Minute, time.Hour} {
		t.Run(every.String(), func(t *testing.T) {
			root := tree(t, metal)
			bubble.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var seen int
				w := NewWatcher(WatchConfig{Config: Config{Product: "acme", Root: root}, Every: every,
					OnChange: func(Report) {
						seen++
					}})
				done := make(chan error)
				go func() { done <- w.Run(ctx) }()
				synctest.Wait()
				if err := os.RemoveAll(filepath.Join(root, "sys/class/net/eth0")); err != nil {
					t.Fatal(err)
				}
				<-time.After(5*time.Minute + time.Millisecond)
				synctest.Wait()
				if seen != 1 {
					t.Errorf("an undocked card is told of %d times", seen)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Components from the configuration have names of their own: they are marked, and the name of a measured one states
// nothing. All names of measured components are known.
func TestConfiguredComponents(t *testing.T) {
	r := Measure(t.Context(), Config{Product: "acme", Root: tree(t, metal), Reserved: []string{"toy-fingerprint"},
		Extra: map[string]string{"machine-id": "forged", "tpm-ek": "forged", "toy-fingerprint": "forged",
			"cluster": "uid-1"}})
	f, forged := r.Facts(), 0
	for _, c := range r.Components {
		switch {
		case c.Configured && (enforcer.IsMeasured(c.Name) || c.Name == "toy-fingerprint"):
			if forged++; len(c.Values) > 0 || !strings.Contains(c.Absent, "give yours another name") {
				t.Errorf("%+v", c)
			}
		case c.Configured != (c.Name == "cluster") || !c.Configured && !enforcer.IsMeasured(c.Name):
			t.Errorf("%+v", c)
		}
	}
	want := []string{keyed("acme", "machine-id", "0123456789abcdef0123456789abcdef")}
	if forged != 3 || !slices.Equal(f.Components["machine-id"], want) || r.Fingerprint != want[0] ||
		len(f.Configured) != 1 || f.Absent["tpm-ek"] == "" || strings.Contains(f.Absent["tpm-ek"], "host.components") {
		t.Errorf("%d forged, fingerprint %s, %+v", forged, r.Fingerprint, f)
	}
}
