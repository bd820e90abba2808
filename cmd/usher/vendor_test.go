package main

import (
	"encoding/base64"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/usher"
)

// tool runs a command in this process.
func tool(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e strings.Builder
	code = run(args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// Every term of the format has a flag: one licence that has them all leaves no claim empty.
func TestEveryTermHasAFlag(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	const thumb = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	request := filepath.Join(dir, "request.json")
	if code, _, errs := tool(t, "fingerprint", "--socket", filepath.Join(dir, "none"), "--product", "p", "--request",
		request); code != 0 {
		t.Fatal(errs)
	}
	args := strings.Fields("vendor sign --key " + filepath.Join(dir, "k.key") +
		" --armour no --id i --product p --issuer me --licensee you" +
		" --limit s=2 --meter m=3 --feature f --overage s=1 --overage m=1 --count-by s=user --unit s=x --unit m=y " +
		"--resets m=month --adjustable m --scope host" +
		" --issued 2026-01-01 --not-before 2026-01-02 --expires 2099-01-01 --grace 1d --on-expiry keep --environment " +
		"production --role base" +
		" --supersedes old --released-before 2030-01-01 --cores 4:logical --heartbeat 10m --heartbeat-grace 1m " +
		"--check-in 30d --check-in-grace 1d" +
		" --clock strict --clock-tolerance 5m --agent-away 5m --max-borrow 7d --early-return" +
		" --activation 24h --reactivations 5/60d --report-usage --trial 30d --emergency 72h/2 --reset-clock " +
		"--site-server " + thumb + " --agent-key " + thumb + " --bind " + request)
	code, out, errs := tool(t, append(args, "--versions", ">=1")...)
	if code != 0 {
		t.Fatal(errs)
	}
	c := decoded(t, out)
	// An add-on is no base.
	code, out, errs = tool(t, "vendor", "sign", "--key", filepath.Join(dir, "k.key"), "--armour", "no", "--product",
		"p", "--limit", "s=1", "--add-on", "i")
	if code != 0 {
		t.Fatal(errs)
	}
	c.AddOnTo = decoded(t, out).AddOnTo
	// Nor is a notice, and a check-in has one period.
	code, out, errs = tool(t, "vendor", "sign", "--key", filepath.Join(dir, "k.key"), "--armour", "no", "--product",
		"p", "--revoke", "old", "--check-in", "3months")
	if code != 0 {
		t.Fatal(errs)
	}
	c.Revokes, c.CheckIn.Months = decoded(t, out).Revokes, decoded(t, out).CheckIn.Months
	if len(c.AgentKeys) == 0 && c.Confirmation == nil {
		t.Error("--agent-key binds to no key")
	}
	var walk func(name string, v reflect.Value)
	walk = func(name string, v reflect.Value) {
		if v.IsZero() && name != "agent_keys" && name != "cnf" && !strings.HasSuffix(name, ".name") {
			t.Errorf("no flag has set %s", name)
			return
		}
		switch {
		case v.Kind() == reflect.Pointer && !v.IsNil():
			walk(name, v.Elem())
		case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[usher.Feature]():
			for i := range v.NumField() {
				if tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); tag != "-" {
					walk(strings.TrimPrefix(name+"."+tag, "."), v.Field(i))
				}
			}
		case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.Struct:
			for it := v.MapRange(); it.Next(); {
				walk(name+"."+it.Key().String(), it.Value())
			}
		}
	}
	walk("", reflect.ValueOf(*c))
}

// decoded returns the claims of a compact licence.
func decoded(t *testing.T, licence string) *usher.Claims {
	t.Helper()
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(licence, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	c, err := usher.ReadClaims(body, true)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The command warns of a vendor's mistakes that would harm a customer.
func TestVendorSlips(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := tool(t, "vendor", "keygen", "--kid", "k", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"--limit a=1 --limit a=2", exitUsage, "error: --limit a=2: a is given twice; keep one of them\n"},
		{"--feature f --feature f=false", exitUsage, "error: --feature f=false: f is given twice; keep one of them\n"},
		{"--limit a", exitUsage, `error: --limit: "a" is not NAME=VALUE`},
		{"--limit a=-1", exitUsage, `error: --limit a=-1: "-1" is neither a whole number of at least 0 nor unlimited`},
		{"--limit a=1 --expires soon", exitUsage, `error: --expires: "soon" is neither a date`},
		{"--limit a=1 --expires 2020-01-01", exitOK,
			"warning: the licence has already expired, at 2020-01-02T00:00:00Z\n"},
		{"", exitOK, "warning: the licence grants no slots, draws or features"},
		{"--feature f", exitOK, ""},
	} {
		args := append([]string{"vendor", "sign", "--key", filepath.Join(dir, "k.key"), "--product", "p"},
			strings.Fields(test.args)...)
		code, _, errs := tool(t, args...)
		if code != test.code || !strings.Contains(errs, test.want) || test.want == "" && errs != "" {
			t.Errorf("%s: exit %d, %q, want %d, %q", test.args, code, errs, test.code, test.want)
		}
	}
	if code, _, errs := tool(t, "vendor", "embed", dir); code != exitFailed ||
		!strings.Contains(errs, "has no vendor.json\nhint: write {") {
		t.Errorf("embed: exit %d, %q", code, errs)
	}
}

// A file that cannot be a licence is told apart from one that is none.
func TestNotALicenceFile(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.lic")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file, want string
		code       int
	}{
		{empty, empty + " is empty\nhint: copy the licence file again", exitNotValid},
		{dir, dir + " is a folder; name the file", exitFailed},
		{filepath.Join(dir, "none"), "there is no file " + filepath.Join(dir, "none"), exitFailed},
	} {
		if code, _, errs := tool(t, "license", "inspect", test.file); code != test.code ||
			!strings.Contains(errs, test.want) {
			t.Errorf("inspect %s: exit %d, %q", test.file, code, errs)
		}
		if code, _, errs := tool(t, "license", "install", "--socket", filepath.Join(dir, "s"), test.file); code !=
			exitFailed || !strings.Contains(errs, test.want) {
			t.Errorf("install %s: exit %d, %q", test.file, code, errs)
		}
	}
}

// Percentages of a limit are exact, up to the largest limit.
func TestShare(t *testing.T) {
	for _, test := range []struct {
		n       int64
		percent int
		want    int64
	}{{10, 90, 9}, {3, 90, 2}, {100, 101, 101}, {math.MaxInt64, 90, 8301034833169298226}, {0, 90, 0}} {
		if got := share(test.n, test.percent); got != test.want {
			t.Errorf("%d %% of %d is %d, want %d", test.percent, test.n, got, test.want)
		}
	}
}

// A time is a date, an instant, or a span, by the clock or by the calendar.
func TestParseTime(t *testing.T) {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2027-03-01T10:00:00+01:00": "2027-03-01T09:00:00Z", "2027-03-01": "2027-03-02T00:00:00Z",
		"30d": "2027-03-02T12:00:00Z",
		"-1h": "2027-01-31T11:00:00Z", "1y": "2028-01-31T12:00:00Z", "2years": "2029-01-31T12:00:00Z",
		"3months": "2027-05-01T12:00:00Z", "soon": "",
	} {
		got, err := parseTime(text, now, true)
		if want == "" {
			if err == nil {
				t.Errorf("%s: %v, and should be refused", text, got)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v; want %s", text, got, err, want)
		}
	}
}
