package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/usher-agent/usher/plugin/usher"
)

// signed signs with further arguments and returns the claims; nil: the command refused.
func signed(t *testing.T, key string, args ...string) (claims *usher.Claims, code int, errs string) {
	t.Helper()
	all := over([]string{"vendor", "sign", "--key", key, "--product", "p", "--limit", "a=1", "--meter", "m=1",
		"--scope", "host", "--armour", "no"}, args...)
	code, out, errs := tool(t, all...)
	if code != exitOK {
		return nil, code, errs
	}
	return decoded(t, strings.TrimSpace(out)), code, errs
}

// TestNoFlagSignsATermAway walks all flags of sign: none takes an empty value, and a zero, or the first or last date of
// all, either is refused by the flag's name or is in the licence.
func TestNoFlagSignsATermAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	key := filepath.Join(dir, "k.key")
	bare, _, _ := signed(t, key, "--id", "x", "--issued", "2026-11-01")
	for _, name := range []string{"expires", "not-before", "issued", "released-before"} {
		for value, fine := range map[string]bool{"1970-01-01T00:00:00Z": false, "0001-01-01": false,
			"0001-01-01T00:00:00Z": false, "1969-12-31": false, "1969-12-31T23:59:59Z": false, "9000y": false,
			"9999-12-31":           true,
			"9999-12-31T23:59:59Z": true} {
			c, code, errs := signed(t, key, "--"+name, value)
			if (code == exitOK) != fine ||
				!fine && (code != exitUsage || !strings.Contains(errs, "error: --"+name+": ")) {
				t.Errorf("--%s %s: exit %d, %s", name, value, code, errs)
			}
			if name == "expires" && fine && c.Expires != time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix() {
				t.Errorf("--expires %s: %d", value, c.Expires)
			}
		}
	}
	c := &cli{}
	c.signCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "bool" {
			return
		}
		if _, code, errs := signed(t, key, "--"+f.Name+"="); code != exitUsage ||
			!strings.Contains(errs, "error: --"+f.Name+" is given without a value") {
			t.Errorf("--%s=: exit %d, %s", f.Name, code, errs)
		}
		switch f.Name {
		case "key", "public", "signer", "claims", "bind", "alg", "out", "ledger", "armour": // files, and how to sign
			return
		}
		for _, zero := range []string{"0", "0s", "0d", "P0D", "0months", "500ms", "0/1d", "0s/1", "1/0d", "0/0", "m=0",
			"a=0"} {
			got, code, errs := signed(t, key, "--id", "x", "--issued", "2026-11-01", "--"+f.Name, zero)
			switch {
			case code != exitOK && !strings.Contains(errs, "--"+f.Name) && strings.Contains(errs, "claim "):
				t.Errorf("--%s %s: exit %d, and the error does not name the flag: %s", f.Name, zero, code, errs)
			case code == exitOK && duties[f.Name] != nil && !duties[f.Name](got):
				t.Errorf("--%s %s: signed, and the term is gone", f.Name, zero)
			}
		}
	})
	if bare == nil {
		t.Error("the licence without terms was not signed")
	}
}

// duties are the flags that make a licence end or demand something, and whether a licence has it.
var duties = map[string]func(*usher.Claims) bool{
	"expires":         func(c *usher.Claims) bool { return c.Expires != 0 },
	"not-before":      func(c *usher.Claims) bool { return c.NotBefore != 0 },
	"released-before": func(c *usher.Claims) bool { return c.ReleasedBefore != 0 },
	"heartbeat":       func(c *usher.Claims) bool { return c.Heartbeat != nil && c.Heartbeat.Every > 0 },
	"check-in": func(c *usher.Claims) bool {
		return c.CheckIn != nil && c.CheckIn.Every+c.CheckIn.Months > 0
	},
	"activation":      func(c *usher.Claims) bool { return c.Activation != nil },
	"trial":           func(c *usher.Claims) bool { return c.Trial > 0 },
	"cores":           func(c *usher.Claims) bool { return c.Cores != nil },
	"clock-tolerance": func(c *usher.Claims) bool { return c.ClockTolerance > 0 },
	"agent-away":      func(c *usher.Claims) bool { return c.AgentAway > 0 },
	"reactivations":   func(c *usher.Claims) bool { return c.Reactivations != nil },
}

// What the vendor is told of a licence of which nobody is granted a slot, and of one that is dated ahead.
func TestVendorIsWarned(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	key, out := filepath.Join(dir, "k.key"), filepath.Join(dir, "a.lic")
	const nobody = "warning: an agent grants nothing of a by itself"
	for _, row := range []struct{ args, sign, inspect string }{
		{"--limit a=1", nobody, nobody},
		{"--meter a=1", nobody, nobody},
		{"--limit a=1 --scope host", "", ""},
		{"--limit a=unlimited", "", ""},
		{"--limit a=1 --agent-key " + strings.Repeat("A", 43), "", ""},
		{"--limit a=1 --site-server " + strings.Repeat("A", 43), "", ""},
		{"--limit a=0 --scope host", "warning: nobody is granted anything of a: the limit is 0",
			"warning: nobody is granted anything of a: the limit is 0"},
		{"--limit a=1 --scope host --issued 2099-01-01", "warning: the licence is dated 2099-01-01T00:00:00Z", ""},
		{"--role notice", "", ""},
	} {
		args := append([]string{"vendor", "sign", "--key", key, "--product", "p", "--out", out, "--force"},
			strings.Fields(row.args)...)
		code, said, errs := tool(t, args...)
		if code != exitOK || row.sign == "" && errs != "" || !strings.Contains(errs, row.sign) {
			t.Errorf("%s: exit %d, %q", row.args, code, errs)
		}
		kind := "  licence p-"
		if row.args == "--role notice" {
			kind = "  time document p-"
		}
		if !strings.Contains(said, kind) {
			t.Errorf("%s: %s", row.args, said)
		}
		_, said, errs = tool(t, "license", "inspect", "--trust", "usher="+filepath.Join(dir, "k.pub"), out)
		if row.inspect == "" && errs != "" || !strings.Contains(errs, row.inspect) ||
			row.args == "--role notice" && !strings.Contains(said, "is a time document") {
			t.Errorf("inspect %s: %q, %s", row.args, errs, said)
		}
	}
}

// A vendor's file may state dates by the day: an end is the end of that day.
func TestVendorFileDates(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	for dates, want := range map[string]string{
		`"not_before": "2026-01-01", "not_after": "2026-11-28"`: "",
		`"not_after": "2026-11-28T12:00:00Z"`:                   "",
		`"not_after": "0001-01-01"`:                             `key "k": not_after: "0001-01-01" is out of range`,
		`"not_after": "soon"`:                                   `key "k": not_after: "soon" is neither a date`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "vendor.json"),
			[]byte(`{"product": "p", "keys": [{"kid": "k", "key_file": "k.pub", `+
				dates+`}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := readVendor(dir)
		if want == "" && (err != nil || v.Keys[0].NotAfter.Format(time.DateOnly) != "2026-11-28") ||
			want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, %v", dates, v, err)
		}
	}
}

// Each licence that the pages and the help show in one command grants something: it is bound, shared out, or each
// host's.
func TestExamplesGrantSlots(t *testing.T) {
	var pages []string
	for _, dir := range []string{"../..", "../../docs", "../../docs/systems"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.md"))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, names...)
	}
	texts := map[string]string{"help": (&cli{}).signCommand().Example}
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		texts[page] = string(b)
	}
	seen := 0
	for page, text := range texts {
		for line := range strings.SplitSeq(strings.ReplaceAll(text, "\\\n", " "), "\n") {
			_, command, ok := strings.Cut(line, "usher vendor sign --key")
			if !ok || !strings.Contains(command, "--limit ") && !strings.Contains(command, "--meter ") {
				continue
			}
			seen++
			if !strings.Contains(command, "--scope host") && !strings.Contains(command, "--bind ") &&
				!strings.Contains(command, "--agent-key ") && !strings.Contains(command, "--site-server ") &&
				!strings.Contains(command, "--activation ") {
				t.Errorf("%s: nobody is granted a slot by: usher vendor sign --key%s", page, command)
			}
		}
	}
	if seen < 5 {
		t.Errorf("%d examples were found", seen)
	}
}
