package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// taken is what a kind of flag takes, and what it refuses by its name. Whether something else is amiss plays no part.
type taken struct{ fine, refused string }

// takenBy are the kinds of flags that state a number, a span or a date. Zero is a value: each says what is right for
// it.
var takenBy = map[string]taken{
	"user":    {"0 1 65534 4294967295", "-1 4294967296 x 1.5 99999999999999999999"},
	"count":   {"1 7 1000", "0 -1 0x -0 1.5 99999999999999999999 1e3"},
	"counter": {"0 1 7", "-1 x 1.5 99999999999999999999"}, // none is a count, too
	"code":    {"0 1 255", "-1 256 512 99999999999999999999"},
	"percent": {"0 90 101 1000", "-1 1001 x 99999999999999999999"},
	"days":    {"0 14", "-1 36601 99999999999999999999"},
	"hosts":   {"1 20 any", "0 -1 0.5 none unlimited 99999999999999999999"},
	"patience": {"0 0s 0d PT0S 1s 1ms", "-1s -1 1 x 1970-01-01 0001-01-01 9999-12-31 9000y " +
		"999999999999999999999h"},
	"fleet":    {"5s 24h 1d P1D", "0 0s 0d PT0S 1s 1ms -1s 1 x 1970-01-01 0001-01-01 9999-12-31 9000y"},
	"life":     {"1s 24h 1d P1D", "0 0s 0d PT0S 1ms 999ms -1s 1 x 1970-01-01 0001-01-01 9999-12-31 9000y"},
	"hold":     {"0 0s 0d PT0S 1s 10m 7d P7D", "-1s 1ms 999ms 8d P8D 1 x 1970-01-01 0001-01-01 9999-12-31 9000y"},
	"deadline": {"1ms 5s 1h P1D", "0 0s 0d PT0S -1s 1 x 1970-01-01 0001-01-01 9999-12-31 9000y"},
	"instant": {"1970-01-02 2026-01-01 2026-01-01T00:00:00Z 9999-12-31 9999-12-31T23:59:59Z",
		"1970-01-01 1970-01-01T00:00:00Z 0001-01-01 0001-01-01T00:00:00Z 1969-12-31 9000y -9000y 0 1 x 10000-01-01 " +
			"+0999999-01-01T00:00:00Z"},
	// an end: a bare date is the end of its day
	"end": {"9999-12-31 9999-12-31T23:59:59Z 1d 30d 6months",
		"1970-01-01T00:00:00Z 0001-01-01 0001-01-01T00:00:00Z 1969-12-31 9000y 0 1 x 10000-01-01"},
	// a time that is over, or how long ago it was
	"past": {"1970-01-02 2026-01-01 2026-01-01T00:00:00Z 0 0s 1h 30d -30d P30D",
		"1970-01-01T00:00:00Z 0001-01-01 1969-12-31 1 x 10000-01-01"},
	"future": {"9999-12-31 9999-12-31T23:59:59Z 1d 30d",
		"0d 0s PT0S -1d -1s 1970-01-01 1970-01-01T00:00:00Z 0001-01-01 1969-12-31 2026-01-01 9000y 0 1 x 10000-01-01"},
}

// flagKinds says of what kind a flag is; the zeros of `vendor sign` have a test of their own.
var flagKinds = map[string]string{
	"acquire --n": "count", "acquire --of": "count", "acquire --min-n": "count", "acquire --ttl": "life",
	"acquire --wait": "patience", "acquire --until": "future", "acquire --borrow": "future",
	"run --n": "count", "run --of": "count", "run --min-n": "count", "run --wait": "patience",
	"run --no-slot-exit-code": "code",
	"renew --ttl":             "life", "adjust --drawn": "counter",
	"check --warn": "percent", "check --crit": "percent", "check --days": "days",
	"drain --wait": "patience", "fleet evict --wait": "patience", "health --wait": "patience",
	"license inspect --at": "instant",
	"upstream --block-ttl": "life", "upstream --fleet-ttl": "fleet", "upstream --machines": "hosts",
	"upstream add --machines": "hosts",
	"upstream machines --max": "hosts", "upstream renew --expires": "end", "upstream token --expires": "life",
	"upstream token --uses": "count", "--timeout": "deadline",
	"acquire --agent-wait": "patience", "release --agent-wait": "patience", "renew --agent-wait": "patience",
	"run --agent-wait": "patience", "draw --agent-wait": "patience", "events history --number": "count",
	"draw --wait": "patience", "release --hold-off": "hold",
	"events history --since": "past", "events --since": "past", "report --since": "past", "report --until": "past",
	"acquire --pid": "count", "leases --uid": "user", "policies explain --uid": "user",
}

// texts are the flags that name something, whatever the command.
var texts = strings.Fields(`socket instance data config as license log-format log-level ops-listen product state-dir
	client-token label pool product-version reason dir key request fingerprint host-fingerprint key-file trust name out
	alg listen metrics-listen public runtime-dir signer tls-cert tls-key host note ledger armour bind strategy kid id
	issuer owner etcd-user etcd-password-file etcd-cert etcd-key from pools cgroup exe group pod user nonce
	agent-key vendor-key fleet-ca fleet-cert fleet-endpoint fleet-key fleet-name fleet-password-file fleet-prefix
	fleet-user fleet-label by`)

// with are what a command needs beside the flag that is tried.
var with = map[string][]string{"acquire": {"--pool", "p"}, "run": {"--pool", "p"},
	"release": {"--force"}, "policies explain": {"--pool", "p"}}

// licenceIn makes a vendor's key k and a licence signed with it in a folder, and returns the licence's path.
func licenceIn(t *testing.T, dir string) string {
	t.Helper()
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	lic := filepath.Join(dir, "a.lic")
	if code, _, errs := tool(t, "vendor", "sign", "--key", filepath.Join(dir, "k.key"), "--product", "p", "--limit",
		"a=1", "--scope", "host", "--out", lic); code != 0 {
		t.Fatal(errs)
	}
	return lic
}

// TestZeroIsAValue walks all flags of all commands: none takes an empty value, and each that states a number, a span or
// a date takes or refuses a zero, a negative, the first date and the last one by its own name, and never reads them as
// if it had not been given.
func TestZeroIsAValue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lic := licenceIn(t, dir)
	seen := map[string]bool{}
	try := func(cmd *cobra.Command, f *pflag.Flag, value string) (refused bool, errs string) {
		path := strings.Fields(cmd.CommandPath())[1:]
		args := append(slices.Clone(path), "--socket", filepath.Join(dir, "none.sock"))
		if cmd.Parent() == nil {
			args = []string{"status"}
		}
		if cmd.Flag("data") != nil && f.Name != "data" {
			args = append(args, "--data", dir)
		}
		if cmd.Flag("agent-wait") != nil && f.Name != "agent-wait" {
			args = append(args, "--agent-wait", "0")
		}
		args = append(append(args, with[strings.Join(path, " ")]...), "--"+f.Name+"="+value)
		args = append(args, argsOf(cmd, lic)...)
		code, _, errs := tool(t, args...)
		named := strings.Contains(errs, "--"+f.Name+": ") || strings.Contains(errs, "--"+f.Name+" is given without")
		return code == exitUsage && named, errs
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" {
			return
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			name := strings.TrimPrefix(cmd.CommandPath()+" --"+f.Name, "usher ")
			if f.Value.Type() == "bool" || cmd.Parent() != nil && cmd.Parent().PersistentFlags().Lookup(f.Name) != nil {
				return
			}
			seen[name] = true
			if refused, errs := try(cmd, f, ""); !refused {
				t.Errorf("%s=: it takes an empty value: %s", name, errs)
			}
			kind, ok := takenBy[flagKinds[name]]
			if !ok && !slices.Contains(texts, f.Name) && cmd.Name() != "sign" {
				t.Errorf(
					"%s: the test does not know whether it states a number, a span or a date: say what zero is to it",
					name)
			}
			for _, v := range strings.Fields(kind.fine) {
				if refused, errs := try(cmd, f, v); refused {
					t.Errorf("%s %s: it is refused: %s", name, v, errs)
				}
			}
			for _, v := range strings.Fields(kind.refused) {
				if refused, errs := try(cmd, f, v); !refused {
					t.Errorf("%s %s: it is taken, or the error does not name the flag: %s", name, v, errs)
				}
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
	for name := range flagKinds {
		if !seen[name] {
			t.Errorf("there is no flag %s", name)
		}
	}
}

// argsOf returns as many arguments as a command needs.
func argsOf(cmd *cobra.Command, arg string) (args []string) {
	for n := range 4 {
		if cmd.Args == nil || cmd.Args(cmd, args) == nil {
			return args
		}
		args = append(args, fmt.Sprint(arg, strings.Repeat("x", n)))
	}
	return nil
}
