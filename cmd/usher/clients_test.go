package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client"
)

// The clients look where the packages' units have the socket, under any name, unless USHER_SOCKET says otherwise.
func TestClientsFindTheAgent(t *testing.T) {
	unit := ""
	for line := range strings.Lines(read(t, "../../configs/usher@.service")) {
		if _, path, ok := strings.Cut(strings.TrimSpace(line), "Environment=USHER_SOCKET_PATH="); ok {
			unit = path
		}
	}
	python := func(name, instance string) string {
		out, err := exec.Command("python3", "-c", "import sys; sys.path.insert(0, '../../client/python')\n"+
			"import usher; print(usher.socket_of(sys.argv[1], sys.argv[2]))", name, instance).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	_, err := exec.LookPath("python3")
	for _, row := range []struct{ variable, name, instance, want string }{
		{"", "usher", "acme", strings.ReplaceAll(unit, "%i", "acme")},
		{"", "acme-usher", "acme", strings.ReplaceAll(strings.ReplaceAll(unit, "usher", "acme-usher"), "%i", "acme")},
		{"", naming.Program(), "", naming.Socket()},
		{" '/srv/s' \r\n", "acme-usher", "acme", "/srv/s"},
	} {
		t.Setenv("USHER_SOCKET", row.variable)
		if got := client.SocketOf(row.name, row.instance); got != row.want {
			t.Errorf("the client looks for %s@%s at %s, and it is at %s", row.name, row.instance, got, row.want)
		}
		if err != nil {
			continue // there is no python3
		}
		if got := python(row.name, row.instance); got != row.want {
			t.Errorf("the Python client looks for %s@%s at %s, and it is at %s", row.name, row.instance, got, row.want)
		}
	}
	t.Setenv("USHER_SOCKET", "")
	if got := client.New("").Socket(); got != client.SocketOf("usher", "") || got != client.DefaultSocket {
		t.Errorf("the default socket is %s", got)
	}
}
