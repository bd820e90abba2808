package clock

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A process in another time namespace, however deep, reads the host's clock, and says that it is the same.
func TestBootIsTheHosts(t *testing.T) {
	if os.Getenv("CLOCK_OF_A_NAMESPACE") != "" {
		ahead, known := Offset()
		os.Stdout.WriteString(
			"read " + strconv.FormatInt(int64(Boot()), 10) + " " + strconv.FormatInt(int64(Awake()), 10) + " " +
				ahead.String() + " " + strconv.FormatBool(known) + " " + Epoch() +
				"\n")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	enter := func(seconds string) []string {
		return []string{"unshare", "--time", "--monotonic", seconds, "--boottime", seconds}
	}
	if out, err := exec.Command("unshare", append(enter("100")[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no time namespace can be made here: %v: %s", err, out)
	}
	for _, test := range []struct {
		through []string
		ahead   time.Duration
	}{
		{nil, 0}, {enter("0"), 0}, {enter("100000"), 100_000 * time.Second}, {enter("-10"), -10 * time.Second},
		// in nested ones all offsets count from the host's clock
		{append(enter("1000"), enter("5000")...), 5000 * time.Second},
	} {
		before, awake := Boot(), Awake()
		args := append(append([]string{}, test.through...), self, "-test.run=^TestBootIsTheHosts$")
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CLOCK_OF_A_NAMESPACE=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		_, line, _ := bytes.Cut(out, []byte("read "))
		f := strings.Fields(string(line))
		if len(f) < 5 {
			t.Fatalf("%v says %s", args, out)
		}
		boot, _ := strconv.ParseInt(f[0], 10, 64)
		up, _ := strconv.ParseInt(f[1], 10, 64)
		if time.Duration(boot) < before || time.Duration(boot) > Boot() || time.Duration(up) < awake ||
			time.Duration(up) > Awake() {
			t.Errorf("%v reads %v, between %v and %v here", test.through, time.Duration(boot), before, Boot())
		}
		if f[2] != test.ahead.String() || f[3] != "true" || f[4] != BootID() {
			t.Errorf("%v is ahead by %s (%s) on start %s; want %v on %s", test.through, f[2], f[3], f[4], test.ahead,
				BootID())
		}
	}
}

// Where nothing tells the offset of the own time namespace, it passes neither for another's nor for none.
func TestOffsetThatIsNotKnown(t *testing.T) {
	const there = "monotonic           5         0\nboottime       100000         7\n"
	for name, test := range map[string]struct {
		own, children, pid, offsets string
		boot                        time.Duration
		known                       bool
	}{
		"the host's":          {initialTime, initialTime, "pid:[1]", "", 0, true},
		"the host's, others'": {initialTime, "time:[9]", "pid:[1]", there, 0, true},
		"another":             {"time:[9]", "time:[9]", "pid:[1]", there, 100_000*time.Second + 7, true},
		"behind": {"time:[9]", "time:[9]", "pid:[1]", "monotonic 0 0\nboottime -1 500000000\n",
			-500 * time.Millisecond, true},
		"Linux 5.6":                {"time:[9]", "time:[9]", "pid:[1]", "1 5 0\n7 9 0\n", 9 * time.Second, true},
		"no time namespaces":       {"", "", "pid:[1]", "", 0, true},
		"namespaces are hidden":    {"", "", "", "", 0, false},
		"the offsets of children":  {"time:[9]", "time:[10]", "pid:[1]", there, 0, false},
		"the children are hidden":  {"time:[9]", "", "pid:[1]", there, 0, false},
		"no offsets":               {"time:[9]", "time:[9]", "pid:[1]", "", 0, false},
		"offsets of one clock":     {"time:[9]", "time:[9]", "pid:[1]", "monotonic 0 0\n", 0, false},
		"offsets that are no text": {"time:[9]", "time:[9]", "pid:[1]", "monotonic 0 0\nboottime x 0\n", 0, false},
		"too much": {"time:[9]", "time:[9]", "pid:[1]",
			"monotonic 0 0\nboottime 9223372036854775807 0\n", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			proc := t.TempDir()
			if err := os.Mkdir(filepath.Join(proc, "ns"), 0o700); err != nil {
				t.Fatal(err)
			}
			for link, to := range map[string]string{"ns/time": test.own, "ns/time_for_children": test.children,
				"ns/pid": test.pid} {
				if to == "" {
					continue
				}
				if err := os.Symlink(to, filepath.Join(proc, link)); err != nil {
					t.Fatal(err)
				}
			}
			if test.offsets != "" {
				if err := os.WriteFile(filepath.Join(proc, "timens_offsets"), []byte(test.offsets), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o, err := offsetOf(proc)
			if o.boot != test.boot || o.known != test.known || (err == nil) != test.known {
				t.Errorf("it is %+v, %v", o, err)
			}
		})
	}
}
