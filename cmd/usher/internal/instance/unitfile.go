package instance

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/plugin/textual"
)

// unitFile reads the files of one unit, one after the other.
type unitFile struct {
	finder Finder
	unit   *Unit
	env    []string // words of Environment=
	files  []string // of EnvironmentFile=
	unset  []string
}

// read takes the section [Service] of a file.
func (u *unitFile) read(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%w; run it as a user that may read the unit", err)
	}
	section := ""
	for _, line := range logical(string(textual.Decode(b))) {
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Service]" {
			continue
		}
		u.set(strings.TrimSpace(key), strings.TrimSpace(value))
	}
	return nil
}

// logical returns the lines of a unit file without comments, with continued lines joined (systemd.syntax(7)).
func logical(text string) (out []string) {
	pending := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";") {
			continue // also within a continued line
		}
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			pending += rest + " "
			continue
		}
		if whole := strings.TrimSpace(pending + line); whole != "" {
			out = append(out, whole)
		}
		pending = ""
	}
	if whole := strings.TrimSpace(pending); whole != "" {
		out = append(out, whole)
	}
	return out
}

// set takes one setting. An empty one takes those before it back.
func (u *unitFile) set(key, value string) {
	list := func(to *[]string, words ...string) {
		if value == "" {
			*to = nil
			return
		}
		*to = append(*to, words...)
	}
	switch key {
	case "Environment":
		list(&u.env, words(u.specifiers(value))...)
	case "EnvironmentFile":
		list(&u.files, u.specifiers(value))
	case "UnsetEnvironment":
		list(&u.unset, words(u.specifiers(value))...)
	case "ExecStart":
		u.unit.Args = nil
		if args := words(u.specifiers(value)); len(args) > 0 {
			args[0] = strings.TrimLeft(args[0], "@-:+!|")
			u.unit.Args = args
		}
	case "User":
		u.unit.User = u.specifiers(value)
	case "Group":
		u.unit.Group = u.specifiers(value)
	case "SupplementaryGroups":
		list(&u.unit.Groups, strings.Fields(u.specifiers(value))...)
	case "StandardError", "StandardOutput":
		for _, kind := range []string{"append:", "file:", "truncate:"} {
			if file, ok := strings.CutPrefix(value, kind); ok && (key == "StandardError" || u.unit.Log == "") {
				u.unit.Log = u.specifiers(file)
			}
		}
	case "LimitNOFILE":
		u.unit.NoFile = value
	}
}

// done completes the unit.
func (u *unitFile) done() *Unit {
	env := map[string]string{}
	for _, word := range u.env {
		if k, v, ok := strings.Cut(word, "="); ok {
			env[k] = v
		}
	}
	for _, file := range u.files {
		path := strings.TrimPrefix(file, "-")
		b, err := os.ReadFile(u.finder.path(path))
		if err != nil {
			if !isGone(err) {
				u.unit.Unread = append(u.unit.Unread, path)
			}
			continue
		}
		maps.Copy(env, variables(string(textual.Decode(b))))
	}
	for _, word := range u.unset {
		k, v, pair := strings.Cut(word, "=")
		if !pair || env[k] == v {
			delete(env, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		u.unit.Env = append(u.unit.Env, k+"="+env[k])
	}
	for i, a := range u.unit.Args {
		u.unit.Args[i] = os.Expand(a, func(name string) string { return env[name] })
	}
	for i, a := range u.unit.Args {
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			u.unit.Config = v
		} else if a == "--config" && i+1 < len(u.unit.Args) {
			u.unit.Config = u.unit.Args[i+1]
		}
	}
	return u.unit
}

// variables reads a file of variables (systemd.exec(5), EnvironmentFile=).
func variables(text string) map[string]string {
	out := map[string]string{}
	for _, line := range logical(text) {
		k, v, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		v = strings.TrimSpace(v)
		if strings.ContainsAny(v, `"'`) {
			v = strings.Join(words(v), " ")
		}
		out[strings.TrimSpace(k)] = v
	}
	return out
}

// specifiers replaces %i and the like (systemd.unit(5)). One that is not known here stays.
func (u *unitFile) specifiers(s string) string {
	if !strings.ContainsRune(s, '%') {
		return s
	}
	host, _ := os.Hostname() // empty where there is none
	values := map[byte]string{'%': "%", 'i': u.unit.Name, 'I': unescape(u.unit.Name), 'n': u.unit.Service,
		'N': strings.TrimSuffix(u.unit.Service, ".service"), 'p': u.finder.program(), 'P': unescape(u.finder.program()),
		'j': unescape(u.unit.Name[strings.LastIndexByte(u.unit.Name, '-')+1:]), 't': "/run", 'S': "/var/lib",
		'C': "/var/cache", 'L': "/var/log", 'E': "/etc", 'T': "/tmp", 'V': "/var/tmp", 'H': host,
		'f': "/" + unescape(u.unit.Name), 'u': "root", 'U': "0", 'h': "/root",
		'l': strings.SplitN(host, ".", 2)[0]}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+1 < len(s) {
			if v, ok := values[s[i+1]]; ok {
				b.WriteString(v)
				i++
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// unescape undoes systemd-escape: - is a slash, and \x2d a character.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '-':
			b.WriteByte('/')
		case s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x':
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// words splits a text as systemd does: blanks part words, quotes hold them together, and a backslash escapes.
func words(s string) (out []string) {
	var word strings.Builder
	var quote byte
	has := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			has = true
			word.WriteByte(escaped(s[i]))
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, has = c, true
		case c == ' ' || c == '\t':
			if has {
				out = append(out, word.String())
				word.Reset()
				has = false
			}
		default:
			has = true
			word.WriteByte(c)
		}
	}
	if has {
		out = append(out, word.String())
	}
	return out
}

// escaped returns the character that a backslash and a letter stand for.
func escaped(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 's':
		return ' '
	default:
		return c
	}
}

// Path returns the file that the agent of a unit takes a path for: relative ones begin at /, as the agent's do.
func (u *Unit) Path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return "/" + p
}
