package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// rangeError says what a flag takes, where a value is out of its range.
type rangeError string

func (e rangeError) Error() string { return string(e) }

// numberFlag is a flag of a whole number from least to most. An unset flag has the value of its variable.
type numberFlag[N int | int64] struct {
	to          *N
	least, most N
}

// numberVar defines a flag of a whole number from least to most.
func numberVar[N int | int64](f *pflag.FlagSet, to *N, name string, value, least, most N, usage string) {
	*to = value
	f.Var(&numberFlag[N]{to, least, most}, name, usage)
}

func (n *numberFlag[N]) String() string {
	if n.to == nil {
		return "0"
	}
	return strconv.FormatInt(int64(*n.to), 10)
}

func (n *numberFlag[N]) Set(s string) error {
	v, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return err
	case err != nil, v < int64(n.least), v > int64(n.most):
		return rangeError(fmt.Sprintf("out of range: give a whole number from %d to %d", n.least, n.most))
	}
	*n.to = N(v)
	return nil
}

func (*numberFlag[N]) Type() string { return "int" }

// spanFlag is a flag of a span of time, from least on.
type spanFlag struct {
	to    *time.Duration
	least time.Duration
}

// spanVar defines a flag of a span of time of at least least.
func spanVar(f *pflag.FlagSet, to *time.Duration, name string, value, least time.Duration, usage string) {
	*to = value
	f.Var(&spanFlag{to, least}, name, usage)
}

func (d *spanFlag) String() string {
	if d.to == nil || *d.to == 0 {
		return "0"
	}
	return config.Duration(*d.to).String()
}

func (d *spanFlag) Set(s string) error {
	v, err := parseSpan(s, d.least)
	if err == nil {
		*d.to = v
	}
	return err
}

func (*spanFlag) Type() string { return "duration" }

// parseSpan reads a span of time that a flag states, of at least least.
func parseSpan(s string, least time.Duration) (time.Duration, error) {
	v, err := config.ParseDuration(s)
	switch {
	case err != nil:
		return 0, rangeError("not a span of time such as 90s, 12h, 30d or P30D")
	case v < least:
		return 0, rangeError(fmt.Sprintf("out of range: give at least %s", config.Duration(least)))
	}
	return v, nil
}

// spanOf is parseSpan of a flag whose text is read later; its error names the flag.
func spanOf(flag, s string, least time.Duration) (time.Duration, error) {
	v, err := parseSpan(s, least)
	if err != nil {
		return 0, usage("--%s: %q is %w", flag, s, err)
	}
	return v, nil
}

// hostsFlag is a flag of how many hosts a licence may be activated on: a number of at least 1, or any. Unset it is 0.
type hostsFlag struct{ to *int64 }

func (h *hostsFlag) String() string {
	switch {
	case h.to == nil || *h.to == 0:
		return ""
	case *h.to == registry.AnyNumber:
		return "any"
	}
	return strconv.FormatInt(*h.to, 10)
}

func (h *hostsFlag) Set(s string) error {
	if s == "any" {
		*h.to = registry.AnyNumber
		return nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 1 {
		return rangeError("neither a number of hosts, of at least 1, nor any")
	}
	*h.to = v
	return nil
}

func (*hostsFlag) Type() string { return "hosts" }

// onceFlag is a flag of one value. A second one that differs is refused: a command that took the last one alone would
// silently leave out what its caller has asked for, such as slots of a second pool.
type onceFlag struct {
	pflag.Value
	mend   string
	stated *string
}

// statedOnce has each flag of a command, and of those below it, refuse a second value, but for lists, and for the
// flags of all commands, which an alias of a shell may state and its user otherwise.
func statedOnce(cmd *cobra.Command) {
	once := func(f *pflag.Flag) {
		_, list := f.Value.(pflag.SliceValue)
		if _, already := f.Value.(*onceFlag); list || already {
			return
		}
		mend := "state the flag once"
		if _, several, ok := strings.Cut(f.Usage, "several as "); ok {
			mend += ", several as " + several
		}
		f.Value = &onceFlag{Value: f.Value, mend: mend}
	}
	cmd.Flags().VisitAll(once)
	if cmd.HasParent() {
		cmd.PersistentFlags().VisitAll(once)
	}
	for _, sub := range cmd.Commands() {
		statedOnce(sub)
	}
}

func (o *onceFlag) Set(s string) error {
	if o.stated != nil && *o.stated != s && s != "" { // an empty value is refused as such
		return rangeError(fmt.Sprintf("a second value, beside %q: %s", *o.stated, o.mend))
	}
	err := o.Value.Set(s)
	if err == nil {
		o.stated = &s
	}
	return err
}
