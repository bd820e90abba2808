package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A power cut has damaged the journal of the host's last start: the doctor says that a start mends it, and it does.
func TestDoctorOfAJournalOfAnEarlierStart(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.sign("a.lic", "--bind", w.request(), "--strategy", "any")
	id := w.write("boot_id", "00000001-0000-4000-8000-000000000000\n")
	through := []string{"unshare", "--mount", "sh", "-c",
		`mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, id}
	if out, err := exec.Command(through[0], append(through[1:], "true")...).CombinedOutput(); err != nil {
		lacks(t, "no other start of the host can be shown to the agent here: %v: %s", err, out)
	}
	agent := w.command()
	cmd := exec.Command(through[0], append(through[1:], agent.Args...)...)
	cmd.Env = agent.Env
	w.start(cmd)
	w.acquire(1)
	w.acquire(1)
	w.kill(cmd)
	journal := w.path("run/leases.journal")
	b := []byte(read(w.T, journal))
	for i := len(b) / 2; i < len(b)/2+20; i++ {
		b[i] ^= 0x55
	}
	w.must(os.WriteFile(journal, b, 0o600))
	said := strings.Join(w.doctor(), "\n")
	for _, want := range []string{"warning JOURNAL_DAMAGED", "an earlier start of the host", "; start the agent"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "--repair") {
		t.Errorf("it wants a repair: %s", said)
	}
	w.run()
	if aside, _ := filepath.Glob(journal + ".damaged-*"); len(aside) != 1 {
		t.Errorf("the start has set %q aside", aside)
	}
}
