package doctor

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// What is tried as another user is done as that user, and the process and its other threads stay who they are.
func TestAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if err := (account{uid: os.Geteuid() + 1, gids: []int{1}}).do(func() { t.Error("it was done") }); err == nil {
			t.Error("another user than root became a third one")
		}
		t.Skip("only root becomes another user")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/secret", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const stranger = 61234
	u := account{uid: stranger, gids: []int{stranger, stranger + 1}}
	var all sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) { // so that some of them find themselves on the process's first thread
		all.Go(func() {
			if err := u.do(func() {
				groups, err := unix.Getgroups()
				if err != nil || len(groups) != 2 || os.Geteuid() != stranger || os.Getegid() != stranger {
					t.Errorf("it is done as %d:%d %v", os.Geteuid(), os.Getegid(), groups)
				}
				if _, err := os.Open(dir + "/secret"); err == nil {
					t.Error("the stranger reads root's secret")
				}
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	fi, err := os.Stat("/proc/self")
	if err != nil || ownerOf(fi) != 0 || os.Geteuid() != 0 {
		t.Errorf("the process is another user's: %d, %d, %v", ownerOf(fi), os.Geteuid(), err)
	}
	if f, err := os.Open(dir + "/secret"); err != nil {
		t.Errorf("a thread that goes on is another user's: %v", err)
	} else {
		f.Close()
	}
}
