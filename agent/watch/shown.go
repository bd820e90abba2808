package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/usher-agent/usher/plugin/textual"
)

// escaped is the form of a byte that is no UTF-8 in a name as it is shown.
var escaped = regexp.MustCompile(`\\x[0-9a-f]{2}`)

// shown returns how a file's name is written in answers: as it is or, where it has bytes that are no UTF-8, with those
// as \xe9 and a backslash doubled. No two names are shown alike.
func shown(name string) string {
	if utf8.ValidString(name) && !escaped.MatchString(name) {
		return name
	}
	return textual.Valid(strings.ReplaceAll(name, `\`, `\\`))
}

// called reports whether a file's name is what somebody means by a name: the name itself, as an answer writes it, or as
// a terminal shows that.
func called(name, by string) bool {
	return name == by || shown(name) == by || textual.Printable(shown(name)) == by
}

// Named returns which of some files' names is meant by a name; empty: none is. The name itself goes before what looks
// like it. Its error says that several look like it.
func Named(names []string, by string) (string, error) {
	if slices.Contains(names, by) {
		return by, nil
	}
	found := ""
	for _, name := range names {
		switch {
		case !called(name, by):
		case shown(name) == by:
			return name, nil
		case found != "":
			return "", fmt.Errorf("several files look like %s; name one as `usher license list --json` does", plain(by))
		default:
			found = name
		}
	}
	return found, nil
}

// there returns the file of a folder that is meant by a name. A name that there is none of is returned as it is.
func there(dir, by string) (string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return by, nil
	}
	if err != nil {
		return "", mendFolder(dir, err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return "", err
	}
	name, err := Named(slices.DeleteFunc(names, Ignored), by)
	if name == "" && err == nil {
		name = by
	}
	return name, err
}

// liesIn reports whether a file lies in a folder under this very name.
func liesIn(dir, name string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return slices.Contains(names, name) && !Ignored(name)
}
