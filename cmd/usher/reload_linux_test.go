package main

import (
	"strings"
	"testing"
)

// The agent reloads by itself when its file changes. A `usher reload` after that still says that the change is in
// force, and does not leave its user to wonder why nothing has changed.
func TestReloadTellsOfTheOneBefore(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.sign("a.lic")
	w.run()
	reload := func() string { return w.usher(0, "reload", "--socket", w.path("s")) }
	if out := reload(); out != "nothing has changed\n" {
		t.Errorf("nothing was written, and it says %q", out)
	}
	good := read(w.T, w.path("u.yaml"))
	w.write("u.yaml", strings.Replace(good, "license: {", "license: {require_production: true, ", 1))
	const inForce = "license.require_production  in force\n"
	if out := reload(); out != inForce {
		t.Errorf("a key was written, and it says %q", out)
	}
	first, rest, _ := strings.Cut(reload(), "\n")
	if !strings.HasPrefix(first, "nothing has changed since the reload of 2") || rest != inForce {
		t.Errorf("the reload before took the key over, and it says %q %q", first, rest)
	}
}
