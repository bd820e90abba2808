package config

import (
	"regexp"
	"strconv"
	"strings"
)

// lineOf finds the line in a message of the YAML library.
var lineOf = regexp.MustCompile(`^line (\d+): `)

// notYAML says where a text is no YAML, and what is likely wrong there.
func (d *decoder) notYAML(text, reason string) {
	m := lineOf.FindStringSubmatch(reason)
	if m == nil {
		d.fault(d.file, "", "it is not YAML: %s", reason)
		return
	}
	reason = strings.TrimPrefix(reason, m[0])
	n, _ := strconv.Atoi(m[1]) // the pattern has digits
	lines := strings.Split(text, "\n")
	n = min(n, len(lines))
	for n > 1 && strings.TrimSpace(lines[n-1]) == "" { // it is noticed at the end that something is open
		n--
	}
	for i := max(1, n-1); i <= n; i++ {
		if indent := lines[i-1][:len(lines[i-1])-len(strings.TrimLeft(lines[i-1], " \t"))]; strings.Contains(indent,
			"\t") {
			d.fault(d.file+":"+strconv.Itoa(i), "", "the line begins with a tab; YAML is indented by blanks alone")
			return
		}
	}
	hint := "is a quote or a bracket open, or does a value with a colon, # or @ lack its quotes?"
	if strings.Contains(reason, "mapping values are not allowed") ||
		strings.Contains(reason, "did not find expected key") ||
		strings.Contains(reason, "block mapping") {
		hint = "the keys of one section begin in one column: indent the line like those around it"
	}
	d.fault(d.file+":"+strconv.Itoa(n), "", "it is not YAML: %s; %s", reason, hint)
}
