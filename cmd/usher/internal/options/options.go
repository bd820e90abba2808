// Package options reads the options files of FlexNet Publisher and RLM and writes the policies that do the same.
//
// Parse reads a file. Its lines that cannot be right are faults, and then nothing is written. Carry turns what was read
// into rules: each line of the file becomes a rule, a part of one, or a remark that says why not and what to do
// instead. Write prints them as the policies of a configuration, each below the lines of the file that it stems from.
//
// What the options mean is as the vendors document them: the FlexNet Publisher License Administration Guide (chapter
// "Managing the Options File") and the RLM License Administration Manual (chapter "The ISV Options File").
package options

import (
	"errors"
	"fmt"
	"strings"

	"github.com/usher-agent/usher/plugin/textual"
)

// System is the licence system that an options file is for.
type System string

// The systems whose options files are read.
const (
	FlexNet System = "flexnet"
	RLM     System = "rlm"
)

// MaxFile is the largest options file that is read, in bytes.
const MaxFile = 1 << 20

// What a file may have at most: more becomes no configuration that can be read.
const (
	maxOptions = 10_000
	maxFaults  = 50 // that are told
)

// Fault is a line that cannot be right: the number of the line, the cause and the mend.
type Fault struct {
	File        string
	Line        int // 0: the whole file
	Cause, Mend string
}

// Error returns the sentence: "acme.opt:3: the cause; the mend".
func (f *Fault) Error() string {
	place := f.File
	if f.Line > 0 {
		place = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return place + ": " + f.Cause + "; " + f.Mend
}

// File is an options file that was read.
type File struct {
	Name    string // as in messages
	System  System
	Guessed bool // the system was found out from the file
	lines   []line
	options []option // those of lines that are one
}

// Parse reads an options file. Without a system it finds out whose file it is. The error joins a [Fault] for each line
// that cannot be right.
func Parse(name string, data []byte, from System) (*File, error) {
	if len(data) > MaxFile {
		return nil, &Fault{File: name, Cause: fmt.Sprintf("it is larger than %d bytes", MaxFile),
			Mend: "an options file is far smaller; name the right file"}
	}
	if what, _ := textual.Kind(data); what != "" && what != "empty" {
		return nil, &Fault{File: name, Cause: fmt.Sprintf("it is %s, not an options file", what),
			Mend: "name the options file, which the VENDOR or ISV line of the licence file names"}
	}
	f := &File{Name: name, System: from, lines: linesOf(latin1(textual.Decode(data)))}
	if from == "" {
		f.Guessed = true
		var fault *Fault
		if f.System, fault = guess(f.lines); fault != nil {
			fault.File = name
			return nil, fault
		}
	}
	var faults []error
	add := func(fault *Fault) {
		fault.File = name
		switch n := len(faults); {
		case n == maxFaults:
			faults = append(faults, &Fault{File: name, Cause: fmt.Sprintf("there are more than %d faults", maxFaults),
				Mend: "mend these first"})
		case n < maxFaults:
			faults = append(faults, fault)
		}
	}
	for i := range f.lines {
		l := &f.lines[i]
		if len(l.words) == 0 && l.fault == nil {
			continue
		}
		o, fault := f.System.read(l)
		if fault != nil {
			add(fault)
			continue
		}
		f.options = append(f.options, *o)
	}
	if len(f.options) > maxOptions {
		return nil, &Fault{File: name,
			Cause: fmt.Sprintf("it has %d options, and may have %d", len(f.options), maxOptions),
			Mend:  "put names into groups, so that fewer lines do"}
	}
	for _, fault := range undefined(f.System, f.options) {
		add(fault)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return f, nil
}

// guess finds out whose options file it is, from options that only one of the two has. A file without any is read as
// FlexNet's: what both have means the same in both.
func guess(lines []line) (System, *Fault) {
	first := map[System]*line{}
	for i := range lines {
		l := &lines[i]
		if len(l.words) == 0 {
			continue
		}
		_, flexnet := flexnetOptions[strings.ToUpper(l.words[0].text)]
		_, rlm := rlmOptions[strings.ToUpper(l.words[0].text)]
		switch {
		case flexnet == rlm:
			flexnet, rlm = shape(l)
		}
		if flexnet && first[FlexNet] == nil {
			first[FlexNet] = l
		}
		if rlm && first[RLM] == nil {
			first[RLM] = l
		}
	}
	flexnet, rlm := first[FlexNet], first[RLM]
	switch {
	case flexnet != nil && rlm != nil:
		return "", &Fault{Line: max(flexnet.first, rlm.first),
			Mend: "name the system with --from flexnet or --from rlm",
			Cause: fmt.Sprintf("line %d is an option of FlexNet (%s) and line %d one of RLM (%s)", flexnet.first,
				clip(flexnet.words[0].text), rlm.first, clip(rlm.words[0].text))}
	case rlm != nil:
		return RLM, nil
	default:
		return FlexNet, nil
	}
}

// shape tells the systems apart by the words behind an option that both have; both false: they tell nothing.
func shape(l *line) (flexnet, rlm bool) {
	if strings.EqualFold(l.words[0].text, "TIMEOUT") && len(l.words) > 1 {
		number := isNumber(l.words[1].text)
		return !number && len(l.words) == 3, number && (len(l.words) == 2 || !isNumber(l.words[2].text))
	}
	for _, w := range l.words[1:] {
		switch {
		case strings.EqualFold(w.text, "DISPLAY"), w.quoted:
			return true, false
		case strings.EqualFold(w.text, "INTERNET_GROUP"), strings.EqualFold(w.text, "NOPROJECT"),
			strings.HasPrefix(strings.ToLower(w.text), "id="):
			return false, true
		}
	}
	return false, false
}
