package instance

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// host is a folder that stands for /.
func host(t *testing.T, files map[string]string) Finder {
	t.Helper()
	root := t.TempDir()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		at := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(files[path]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Finder{Root: root}
}

// The unit that is shipped gives an instance its own paths, and the command finds all of them.
func TestShippedUnit(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../../configs/usher@.service")
	if err != nil {
		t.Fatal(err)
	}
	f := host(t, map[string]string{"/usr/lib/systemd/system/usher@.service": string(b),
		"/etc/usher/acme.env": "USHER_LOG_LEVEL=debug\n"})
	u, err := f.Find("acme")
	if err != nil {
		t.Fatal(err)
	}
	if u.Service != "usher@acme.service" || u.Config != "/etc/usher/acme.yaml" || u.User != "usher" {
		t.Errorf("the unit is %+v", u)
	}
	for name, want := range map[string]string{"USHER_STATE_DIR": "/var/lib/usher/acme",
		"USHER_STATE_RUNTIME_DIR": "/run/usher/acme", "USHER_SOCKET_PATH": "/run/usher/acme/usher.sock",
		"USHER_LICENSE_PATH": "/etc/usher/acme.d", "USHER_LOG_LEVEL": "debug"} {
		if got := u.Value(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// Drop-ins add, replace and take back as systemd has it: by name, /etc before /usr, the instance's before the
// template's, and an empty value takes back.
func TestDropIns(t *testing.T) {
	t.Parallel()
	f := host(t, map[string]string{
		"/usr/lib/systemd/system/usher@.service": "[Unit]\nEnvironment=NOT=HERE\n[Service]\n" +
			"ExecStart=-/usr/bin/usher agent --config=${WHERE}/%i.yaml\nEnvironment=A=1 'B=two words' \\\n  C=3\n" +
			"# Environment=D=4\nUser=usher\n",
		"/usr/lib/systemd/system/usher@.service.d/10-a.conf":  "[Service]\nEnvironment=A=template WHERE=/x\n",
		"/etc/systemd/system/usher@acme.service.d/10-a.conf":  "[Service]\nEnvironment=A=instance WHERE=/etc/%I\n",
		"/etc/systemd/system/usher@.service.d/20-b.conf":      "[Service]\nUser=other\nEnvironmentFile=-/etc/a.env\n",
		"/etc/systemd/system/usher@other.service.d/30-c.conf": "[Service]\nEnvironment=A=wrong\n",
		"/etc/a.env": "# comment\nF=\"quoted value\"\nG=plain value\nC=env\n",
		"/etc/systemd/system/service.d/90-z.conf": "[Service]\nUnsetEnvironment=B\n",
	})
	u, err := f.Find("acme")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"A=instance", "C=env", "F=quoted value", "G=plain value", "WHERE=/etc/acme"}
	if !slices.Equal(u.Env, want) || u.Config != "/etc/acme/acme.yaml" || u.User != "other" {
		t.Errorf("%q, configuration %s, user %s", u.Env, u.Config, u.User)
	}
	if u, err = f.Find("other"); err != nil || u.Value("A") != "wrong" {
		t.Errorf("the other instance: %+v, %v", u, err)
	}
}

// A drop-in that is removed while the unit is read counts no more.
func TestDropInThatIsGone(t *testing.T) {
	t.Parallel()
	f := host(t, map[string]string{"/usr/lib/systemd/system/usher@.service": "[Service]\nEnvironment=A=1\n",
		"/run/systemd/system/usher@acme.service.d/a.conf": "[Service]\nEnvironment=A=2\n"})
	gone := f.Root + "/run/systemd/system/usher@acme.service.d/b.conf"
	if err := os.Symlink(gone+".not", gone); err != nil {
		t.Fatal(err)
	}
	if u, err := f.Find("acme"); err != nil || u.Value("A") != "2" {
		t.Errorf("%+v, %v", u, err)
	}
}

// A unit that is not there is named with those that are, and so is one of several.
func TestWhichInstances(t *testing.T) {
	t.Parallel()
	f := host(t, nil)
	if _, err := f.Only(); !errors.Is(err, ErrNone) {
		t.Errorf("no unit: %v", err)
	}
	files := map[string]string{"/lib/systemd/system/usher@.service": "[Service]\nUser=usher\n"}
	files["/etc/systemd/system/multi-user.target.wants/usher@acme.service"] = ""
	f = host(t, files)
	if u, err := f.Only(); err != nil || u.Name != "acme" {
		t.Errorf("the only one: %+v, %v", u, err)
	}
	files["/run/systemd/units/invocation:usher@beta.service"] = "x"
	f = host(t, files)
	if _, err := f.Only(); err == nil || !strings.Contains(err.Error(), "acme, beta") {
		t.Errorf("of two: %v", err)
	}
	f = host(t, map[string]string{"/etc/systemd/system/usher@beta.service": "[Service]\n"})
	if _, err := f.Find("acme"); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "the instances are beta") {
		t.Errorf("of another name: %v", err)
	}
	if _, err := f.Find("../../etc"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a path: %v", err)
	}
	f = host(t, map[string]string{"/etc/systemd/system/usher@acme.service": ""})
	if _, err := f.Find("acme"); err == nil || !strings.Contains(err.Error(), "masked") {
		t.Errorf("a masked unit: %v", err)
	}
}

// A file of variables that this user cannot read is named, and one that is not there is none.
func TestUnreadVariables(t *testing.T) {
	t.Parallel()
	f := host(t, map[string]string{"/etc/systemd/system/usher.service": "[Service]\nEnvironmentFile=/etc/a.env\n" +
		"EnvironmentFile=-/etc/none.env\nExecStart=/usr/bin/usher agent --config /etc/%N.yaml\n", "/etc/a.env/x": ""})
	u, err := f.Find("")
	if err != nil || !slices.Equal(u.Unread, []string{"/etc/a.env"}) || u.Config != "/etc/usher.yaml" {
		t.Errorf("%+v, %v", u, err)
	}
}
