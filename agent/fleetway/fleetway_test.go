package fleetway

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// taken takes note of what a client is told to use, and of what is told of it.
type taken struct {
	mu        sync.Mutex
	passwords []string
	faults    []error
}

func (c *taken) Use(password string, _ *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passwords = append(c.passwords, password)
}

func (c *taken) tell(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, err)
}

// all returns what it has noted.
func (c *taken) all() (passwords []string, faults []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passwords, c.faults
}

// A renewed file is used once it is good, and not before; what is refused is told, and the former stays.
func TestRenew(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "password")
		put := func(text string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("one\n")
		w := &Way{Endpoints: []string{"http://a:2379"}, User: "u", Password: File{"--fleet-password-file", file},
			Read: os.ReadFile}
		if got, way, err := w.Open(); got != "one" || way != nil || err != nil {
			t.Fatalf("%q, %v, %v", got, way, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		client := &taken{}
		go w.Renew(ctx, client, client.tell)
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		if used, faults := client.all(); len(used)+len(faults) != 0 {
			t.Errorf("nothing has changed: %v, %v", used, faults)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		synctest.Wait()
		if _, faults := client.all(); len(faults) != 1 || faults[0] == nil ||
			!strings.Contains(faults[0].Error(), "--fleet-password-file") {
			t.Errorf("a file that is gone: %v", faults)
		}
		put("two\n")
		time.Sleep(lookEvery)
		synctest.Wait()
		if used, faults := client.all(); len(used) != 1 || used[0] != "two" || faults[len(faults)-1] != nil {
			t.Errorf("%v, %v", used, faults)
		}
		cancel()
	})
}

// What is wrong with a file names its setting.
func TestOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for setting, w := range map[string]*Way{
		"fleet.ca_file":   {CA: File{"fleet.ca_file", file}},
		"fleet.cert_file": {Cert: File{"fleet.cert_file", file}, Key: File{"fleet.key_file", file}},
		"fleet.key_file":  {Cert: File{"fleet.cert_file", file}, Key: File{"fleet.key_file", file + "-"}},
	} {
		w.Endpoints, w.Read = []string{"http://a", "https://b"}, os.ReadFile
		if _, err := w.Dial(); err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("%s: %v", setting, err)
		}
	}
}
