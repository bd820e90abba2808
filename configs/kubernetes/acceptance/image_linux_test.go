package acceptance

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// image is what the Dockerfile makes: its user, environment and folders.
type image struct {
	uid, gid   int
	env        []string
	entrypoint string
	folders    map[string]os.FileMode // of its user
}

// readImage reads the Dockerfile.
func readImage(t *testing.T) image {
	t.Helper()
	b, err := os.ReadFile("../../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	last := string(b)[strings.LastIndex(string(b), "\nFROM "):]
	one := func(pattern string) string {
		m := regexp.MustCompile(`(?m)^` + pattern + `$`).FindStringSubmatch(last)
		if m == nil {
			t.Fatalf("the Dockerfile has no line %s", pattern)
		}
		return m[1]
	}
	i := image{env: strings.Fields(one(`ENV (.*)`)), entrypoint: one(`ENTRYPOINT \["([^"]*)"\]`),
		folders: map[string]os.FileMode{}}
	uid, gid, _ := strings.Cut(one(`USER (.*)`), ":")
	if i.uid, err = strconv.Atoi(uid); err != nil {
		t.Fatal("USER is no number, so runAsNonRoot cannot be shown")
	}
	if i.gid, err = strconv.Atoi(gid); err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`(?m)^RUN mkdir -p (.*?) && chmod 0700 (\S+)$`).FindStringSubmatch(string(b))
	if made == nil {
		t.Fatal("the Dockerfile makes no folders")
	}
	for f := range strings.FieldsSeq(made[1]) {
		mode := os.FileMode(0o755)
		if f == made[2] {
			mode = 0o700
		}
		i.folders[strings.TrimPrefix(f, "/out")] = mode
	}
	return i
}

// root makes the root folder of a container of an image, with the places of its mounts.
func (n *node) root(path, named string, mounts []mount) {
	n.t.Helper()
	for _, f := range []string{"proc", "sys", "dev", "etc", "tmp", "usr/bin"} {
		n.must(os.MkdirAll(filepath.Join(path, f), 0o755))
	}
	if strings.HasPrefix(named, "usher:") {
		for f, mode := range n.image.folders {
			n.must(os.MkdirAll(filepath.Join(path, f), 0o755))
			n.must(os.Chmod(filepath.Join(path, f), mode))
			n.must(os.Chown(filepath.Join(path, f), n.image.uid, n.image.gid))
		}
	}
	for _, m := range mounts {
		to := filepath.Join(path, m.To)
		if fi, err := os.Stat(m.From); err == nil && fi.IsDir() {
			n.must(os.MkdirAll(to, 0o755))
			continue
		}
		n.must(os.MkdirAll(filepath.Dir(to), 0o755))
		n.must(os.WriteFile(to, nil, 0o644))
	}
}

func groupOf(fi os.FileInfo) int { return int(fi.Sys().(*syscall.Stat_t).Gid) }
