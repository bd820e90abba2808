package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// noFiles are the keys that sound like a file's, and name none whose content is read and may be renewed.
var noFiles = map[string]string{
	"license.path":        "the licence, which is watched",
	"license.trust[].key": "the key itself",
	"socket.path":         "a socket",
	"state.dir":           "a folder",
	"state.runtime_dir":   "a folder",
}

// Every key that sounds like a file's says when a renewed file is taken.
func TestFilesAreTagged(t *testing.T) {
	tagged := FileKeys()
	sounds := regexp.MustCompile(
		`(file|path|config|cert|certificate|key|ca|token|secret|password|credentials|pem|dir)$`)
	for _, key := range Keys() {
		if sounds.MatchString(key) && noFiles[key] == "" && !slices.Contains(tagged, key) {
			t.Errorf("%s sounds like a file's key: give its field the tag file, or say here what it is", key)
		}
	}
	for key := range noFiles {
		if !slices.Contains(Keys(), key) || slices.Contains(tagged, key) {
			t.Errorf("%s is no key, or has the tag file", key)
		}
	}
	c := Default()
	c.Plugins = []Plugin{{Path: "/p"}}
	c.Upstream.CAFile = "/ca"
	for _, f := range c.NamedFiles() {
		if f.Renewal != OnUse && f.Renewal != OnReload && f.Renewal != OnRestart {
			t.Errorf("%s: there is no renewal %q", f.Key, f.Renewal)
		}
	}
	if got := c.NamedFiles(); len(got) != 2 || got[0] != (NamedFile{"plugins[0].path", "/p", OnRestart}) ||
		got[1] != (NamedFile{"upstream.ca_file", "/ca", OnUse}) {
		t.Errorf("the named files are %+v", got)
	}
}

// Only content that has changed is named.
func TestContents(t *testing.T) {
	c := Default()
	c.Upstream.CAFile = filepath.Join(t.TempDir(), "ca")
	write := func(s string) {
		if err := os.WriteFile(c.Upstream.CAFile, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	was := c.Contents()
	if got := was.Renewed(c.Contents(), c); len(got) != 0 {
		t.Errorf("nothing has changed: %+v", got)
	}
	write("b")
	if got := was.Renewed(c.Contents(), c); len(got) != 1 || got[0].Key != "upstream.ca_file" {
		t.Errorf("it has changed: %+v", got)
	}
}
