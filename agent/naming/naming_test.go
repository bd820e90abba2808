package naming

import "testing"

func TestTextBearsTheName(t *testing.T) {
	for in, want := range map[string]string{
		"`usher status` says more":                     "`X status` says more",
		"run usher license install FILE --key -":       "run X license install FILE --key -",
		`"usher upstream token" and usher vendor bind`: `"X upstream token" and X vendor bind`,
		"\\fBusher run\\fP, usher support-bundle":      "\\fBusher run\\fP, X support-bundle",
		"`usher --help` lists the commands":            "`X --help` lists the commands",
		"systemctl restart usher@acme.service":         "systemctl restart X@acme.service",
		"/etc/usher/usher.yaml and /etc/usher/acme.d":  "/etc/X/X.yaml and /etc/X/acme.d",
		"/run/usher/usher.sock, /var/lib/usher":        "/run/X/X.sock, /var/lib/X",
		"fleet.prefix  /usher/":                        "fleet.prefix  /X/",
		"add yourself to the group usher":              "add yourself to the group X",
		"Usher stands beside a product.":               "X stands beside a product.",
		// What keeps its name: the licence system, variables, metrics, the project, and what is none of ours.
		"--trust usher=2026-a.pub":             "--trust usher=2026-a.pub",
		"USHER_SOCKET names its socket":        "USHER_SOCKET names its socket",
		"usher_license_state{state=\"valid\"}": "usher_license_state{state=\"valid\"}",
		"the licence system usher, usher/1":    "the licence system usher, usher/1",
		"github.com/usher-agent/usher":         "github.com/usher-agent/usher",
		"the ushers run":                       "the ushers run",
		"/home/usher status":                   "/home/usher status",
	} {
		for _, name := range []string{"acme-usher", "usher-acme", "acmed"} {
			want := replaceX(want, name)
			if got := put(in, name); got != want {
				t.Errorf("%q becomes %q, want %q", in, got, want)
			} else if again := put(got, name); again != got {
				t.Errorf("%q becomes %q when it is named twice", in, again)
			}
		}
	}
	if Text("`usher status`") != "`usher status`" {
		t.Error("the project's own name is replaced")
	}
}

func replaceX(s, name string) (out string) {
	for _, r := range s {
		if r == 'X' {
			out += name
		} else {
			out += string(r)
		}
	}
	return out
}
