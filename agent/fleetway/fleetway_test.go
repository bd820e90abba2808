package fleetway

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// taken takes note of what a client is told to use.
type taken struct{ passwords []string }

func (c *taken) Use(password string, _ *tls.Config) { c.passwords = append(c.passwords, password) }

// A renewed file is used once it is good, and not before; what is refused is told, and the former stays.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		client, faults := &taken{}, []error{}
		go w.Renew(ctx, client, func(err error) { faults = append(faults, err) })
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		if len(client.passwords)+len(faults) != 0 {
			t.Errorf("nothing has changed: %v, %v", client.passwords, faults)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		synctest.Wait()
		if len(faults) != 1 || faults[0] == nil || !strings.Contains(faults[0].Error(), "--fleet-password-file") {
			t.Errorf("a file that is gone: %v", faults)
		}
		put("two\n")
		time.Sleep(lookEvery)
		synctest.Wait()
		if len(client.passwords) != 1 || client.passwords[0] != "two" || faults[len(faults)-1] != nil {
			t.Errorf("%v, %v", client.passwords, faults)
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
