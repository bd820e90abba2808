package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/enforcer"
)

// typedFields are the flags by which commands fill in fields of the API. Fields whose name is a word of its own, such
// as pool, are not among them: their flags have the same name.
var typedFields = map[string]string{"wait_seconds": "wait", "ttl_seconds": "ttl", "hold_off_seconds": "hold-off",
	"min_n": "min-n", "client_token": "client-token"}

var (
	fieldInBrackets = regexp.MustCompile(` \((\w+)\)`)
	fieldName       = regexp.MustCompile(`\b\w+\b`)
	// what the agent says of a number of seconds that is out of bounds
	outOfBounds = regexp.MustCompile(`\b(\w+_seconds is )([\d.]+)(?:(: give from )([\d.]+)( to )([\d.]+))?`)
	upTo        = regexp.MustCompile(`^(give up to )([\d.]+)$`)
)

// asTyped says in the words of a command what the agent has said in those of its API: it names the flags of the fields,
// and spans of time as people say them. A field that the command has no flag for is left out where it stands in
// brackets.
func asTyped(cmd *cobra.Command, text string) string {
	if cmd == nil {
		return text
	}
	span := func(seconds string) string {
		n, err := strconv.ParseFloat(seconds, 64)
		if err != nil {
			return seconds
		}
		return enforcer.Span(time.Duration(n * float64(time.Second)))
	}
	text = outOfBounds.ReplaceAllStringFunc(text, func(s string) string {
		p := outOfBounds.FindStringSubmatch(s)
		if p[3] == "" {
			return p[1] + span(p[2])
		}
		return p[1] + span(p[2]) + p[3] + span(p[4]) + p[5] + span(p[6])
	})
	if p := upTo.FindStringSubmatch(text); p != nil {
		text = p[1] + span(p[2])
	}
	flag := func(field string) string {
		if name := typedFields[field]; name != "" && cmd.Flags().Lookup(name) != nil {
			return "--" + name
		}
		return ""
	}
	text = fieldInBrackets.ReplaceAllStringFunc(text, func(s string) string {
		field := strings.Trim(s, " ()")
		if typedFields[field] == "" || flag(field) != "" {
			return s
		}
		return ""
	})
	return fieldName.ReplaceAllStringFunc(text, func(word string) string {
		if f := flag(word); f != "" {
			return f
		}
		return word
	})
}
