// Package naming is what this build of the program is called on a host. A vendor may ship the agent under a name of its
// own (make package NAME=acme-usher): the command, its folders, its socket, its user and its units then bear that name,
// so that two vendors' agents never meet on one host. Texts of the code say usher, and [Text] puts the name in where
// they leave the program. Variables (USHER_…), metrics and the licence system usher keep their names: they are
// the protocol.
package naming

import (
	"bytes"
	"io"
	"regexp"
	"strings"
)

// Own is the name in texts of the code.
const Own = "usher"

// program is set by the linker: make build NAME=….
var program = Own

// Program returns the name of the command, of its user and group, and of its units.
func Program() string { return program }

// The paths that the program uses unless its configuration names others, by its name. They are files on Linux; on other
// systems, too, a configuration can name others.

// Config returns the path of the configuration file.
func Config() string { return "/etc/" + program + "/" + program + ".yaml" }

// LicenseFolder returns the path of the licence folder.
func LicenseFolder() string { return "/etc/" + program + "/license.d" }

// Socket returns the path of the local API's socket.
func Socket() string { return "/run/" + program + "/" + program + ".sock" }

// StateFolder returns the path of the folder for what outlives the host.
func StateFolder() string { return "/var/lib/" + program }

// RuntimeFolder returns the path of the folder for what the host's end empties.
func RuntimeFolder() string { return "/run/" + program }

// FleetPrefix returns what the names of a fleet's keys begin with.
func FleetPrefix() string { return "/" + program + "/" }

// Commands are the subcommands that texts name.
var Commands = []string{"acquire", "adjust", "agent", "check", "completion", "config", "demo", "doctor", "drain",
	"draw", "emergency", "events", "fingerprint", "fleet", "health", "help", "host", "import-options", "leases",
	"license", "man", "policies", "pools", "release", "reload", "renew", "report", "run", "status", "support-bundle",
	"top", "upstream", "vendor"}

// before is what stands before the name: no part of a longer word, path or name.
const before = `(^|[^A-Za-z0-9_./=-])`

// texts are the places where usher is the program's name. NAME stands for the own one.
var texts = []struct {
	pattern *regexp.Regexp
	by      string
}{
	// A command line, also as roff has it; a unit; and what is called after the program.
	{regexp.MustCompile(before + `usher((?:\\? )+(?:` + strings.Join(Commands, "|") + `)\b)`), "${1}NAME${2}"},
	{regexp.MustCompile(before + "usher([`\"']* (?:\\\\?-|…|COMMAND))"), "${1}NAME${2}"},
	{regexp.MustCompile("([`\"'])usher([`\"'])"), "${1}NAME${2}"},
	{
		regexp.MustCompile(before + `usher(@[A-Za-z0-9_.%-]*|\.service|\.socket|\.yaml|\\?-agent\\?-key)`),
		"${1}NAME${2}",
	},
	{regexp.MustCompile(`(/(?:etc|run|var/lib)/)usher/usher(\.yaml|\.sock)`), "${1}NAME/NAME${2}"},
	{regexp.MustCompile(`(/(?:etc|run|var/lib|usr/bin|usr/local/bin|usr/lib|usr/share/doc)/)usher\b`), "${1}NAME"},
	{regexp.MustCompile(`((?:user|group|User|Group)[ =])usher\b`), "${1}NAME"},
	{regexp.MustCompile("(^|[ =`\"'(\t]|\\\\fI)/usher/"), "${1}/NAME/"}, // the keys of a fleet
	// The program as a person speaks of it.
	{regexp.MustCompile(before + `Usher\b`), "${1}NAME"},
}

// Text returns a text with the program's name in place of usher, where it is a command, a path, a unit, a user or the
// program itself. Applied again, it changes nothing more.
func Text(s string) string {
	if program == Own {
		return s
	}
	return put(s, program)
}

func put(s, name string) string {
	if !strings.Contains(s, "sher") {
		return s
	}
	s = strings.ReplaceAll(s, name, "NAME\x00") // it may contain usher itself
	for _, t := range texts {
		s = t.pattern.ReplaceAllString(s, strings.ReplaceAll(t.by, "NAME", "NAME\x00"))
	}
	return strings.ReplaceAll(s, "NAME\x00", name)
}

// Bytes is [Text] for bytes. It may return b itself.
func Bytes(b []byte) []byte {
	if program == Own || !bytes.Contains(b, []byte("sher")) {
		return b
	}
	return []byte(put(string(b), program))
}

// Writer returns an output that writes texts with the program's name in them. A call of Write is a whole number of
// words.
func Writer(to io.Writer) io.Writer {
	if program == Own {
		return to
	}
	return writer{to}
}

type writer struct{ to io.Writer }

func (w writer) Write(p []byte) (int, error) {
	b := Bytes(p)
	n, err := w.to.Write(b)
	if n == len(b) {
		n = len(p)
	}
	return min(n, len(p)), err
}
