package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// A command names its flags where an agent names the fields of its API.
func TestAsTyped(t *testing.T) {
	acquire := &cobra.Command{}
	new(acquireFlags).add(acquire)
	plain := &cobra.Command{}
	for _, c := range []struct {
		cmd         *cobra.Command
		says, typed string
	}{
		{acquire, "release a lease, wait (wait_seconds), or try again later",
			"release a lease, wait (--wait), or try again later"},
		{plain, "release a lease, wait (wait_seconds), or try again later",
			"release a lease, wait, or try again later"},
		{acquire, "wait too (wait_seconds), or try again later", "wait too (--wait), or try again later"},
		{acquire, "wait_seconds is 100000: give from 0 to 86400",
			"--wait is 1 day 3 hours 46 minutes 40 seconds: give from 0 seconds to 1 day"},
		{plain, "wait_seconds is 90000", "wait_seconds is 1 day 1 hour"},
		{plain, "give up to 86400", "give up to 1 day"},
		{acquire, "min_n 3 is more than n 2", "--min-n 3 is more than n 2"},
		{acquire, "client_token was used", "client_token was used"}, // the command has no such flag
		{acquire, "pool wait_seconds_2 (streams) has no slot", "pool wait_seconds_2 (streams) has no slot"},
		{nil, "wait (wait_seconds)", "wait (wait_seconds)"},
	} {
		if got := asTyped(c.cmd, c.says); got != c.typed {
			t.Errorf("%s:\ngot  %s\nwant %s", c.says, got, c.typed)
		}
	}
}
