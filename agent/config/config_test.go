package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, yaml string) *Config {
	t.Helper()
	c, err := Load(Source{File: "usher.yaml", Data: []byte(yaml)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPrecedence(t *testing.T) {
	src := Source{File: "usher.yaml",
		Data: []byte("product: [a, b]\nlog:\n  level: warn\nsocket: {path: /f}\nlicense: {grace: 3d}\n"),
		Env: []string{"USHER_SOCKET=/e", "USHER_LOG_LEVEL=debug", "HOME=/root", "USHER_PORT_80_TCP=x",
			"USHER_SERVICE_HOST=1", "USHER_LICENSE=secret"},
		Flags: map[string]string{"log.level": "error"}}
	c, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Level != "error" || c.Socket.Path != "/e" || c.Product.Name() != "a" || len(c.Product) != 2 ||
		c.License.Grace.Duration() != 72*time.Hour || c.License.Inline != "secret" {
		t.Errorf("got %+v", c)
	}
	for key, want := range map[string]string{"log.level": "flag --log-level", "socket.path": "env USHER_SOCKET",
		"product":       "file usher.yaml:1",
		"license.grace": "file usher.yaml:5", "state.dir": "default"} {
		if got := c.Origin(key); got != want {
			t.Errorf("%s comes from %q, want %q", key, got, want)
		}
	}
	for _, s := range c.Show() {
		if want := map[string]string{"license.grace": "file usher.yaml:5", "license.inline": "env USHER_LICENSE",
			"license.path": "default", "log.format": "default"}[s.Key]; want != "" && s.Origin != want {
			t.Errorf("%s is shown from %q, want %q", s.Key, s.Origin, want)
		}
		if strings.Contains(s.Value, "secret") {
			t.Errorf("%s shows a secret", s.Key)
		}
	}
}

// fault is a configuration that cannot be read, and a part of the message about it.
type fault struct{ name, yaml, want string }

var faultsOfForm = []fault{
	{"unknown key", "product: x\nlicence:\n  path: /x\n",
		`usher.yaml:2: unknown key "licence"; did you mean "license"?`},
	{"unknown key below", "license:\n  pth: /x\n",
		`usher.yaml:2: unknown key "license.pth"; did you mean "license.path"?`},
	{"key in the wrong place", "key_file: /x\n",
		`usher.yaml:1: unknown key "key_file"; did you mean "agent.key_file"?`},
	{"unknown in a list", "license:\n  trust:\n    - kid: a\n      keyfile: x\n",
		`usher.yaml:4: unknown key "license.trust[0].keyfile"; did you mean "license.trust[0].key_file"?`},
	{"twice", "product: a\nproduct: b\n", `usher.yaml:2: key "product" stands twice; keep one of them`},
	{"list for text", "socket:\n  path: [a]\n", `usher.yaml:2: socket.path is a list, and must be a text`},
	{"text for mapping", "socket: /x\n", `usher.yaml:1: socket is a single value, and must have keys below it`},
	{"text for list", "socket:\n  allow: me\n",
		`usher.yaml:2: socket.allow is a single value, and must be a list (lines that begin with -)`},
	{"bad duration", "license: {grace: soon}\n",
		`usher.yaml:1: license.grace is "soon", and must be a span of time such as 90s, 12h, 30d or P30D`},
	{"bad mode", "socket: {mode: \"0999\"}\n",
		`usher.yaml:1: socket.mode is "0999", and must be octal permissions in quotes, such as "0660"`},
	{"bad bool", "license: {no_overage: maybe}\n",
		`usher.yaml:1: license.no_overage is "maybe", and must be true or false`},
	{"no value", "socket:\n  path:\n", `usher.yaml:2: socket.path has no value; give one, or leave the key out`},
	{"not yaml", "a: [b\n",
		`usher.yaml:1: it is not YAML: did not find expected ',' or ']'; is a quote or a bracket open`},
	{"two documents", "product: a\n---\nproduct: b\n",
		`usher.yaml: it holds more than one YAML document; keep one`},
	{"alias", "product: &p x\nagent: {key_file: *p}\n", `anchors and aliases are not read`},
	{"long socket", "socket: {path: /" + strings.Repeat("x", 120) + "}\n",
		`usher.yaml:1: socket.path has 121 bytes, and the kernel takes at most 107; choose a shorter one`},
	{"enumeration", "license: {on_expiry: revok}\n",
		`usher.yaml:1: license.on_expiry is "revok", and must be one of drain, revoke, keep; did you mean ` +
			`"revoke"?`},
	{"trust without key", "license:\n  trust:\n    - kid: a\n",
		`usher.yaml:3: license.trust[0] (a): the key is missing; give key_file, or key`},
	{"two keys", "license:\n  trust:\n    - {kid: a, key: x, key_file: y}\n",
		`license.trust[0] (a): key and key_file are both given; keep one`},
	{"empty rule", "socket:\n  admin:\n    - {}\n",
		`usher.yaml:3: socket.admin[0] is empty, and would match nobody`},
	{"bad address", "ops: {listen: nowhere}\n",
		`usher.yaml:1: ops.listen is "nowhere", and must be host:port, such as 127.0.0.1:9871`},
	{"product without a value", "product:\n", `usher.yaml:1: product has no value; give one, or leave the key out`},
	{"list without a value", "socket:\n  allow:\n",
		`usher.yaml:2: socket.allow has no value; give one, or leave the key out`},
	{"item without a value", "socket:\n  allow:\n    -\n",
		`usher.yaml:3: socket.allow[0] has no value; give one, or leave the key out`},
	{"mode for nobody", "socket: {mode: \"0444\"}\n",
		`usher.yaml:1: socket.mode 0444 lets nobody connect: to connect needs write permission; the default is ` +
			`0660`},
	{"bad date", "license: {released: yesterday}\n",
		`usher.yaml:1: license.released is "yesterday", and must be a date (2027-01-31) or a time ` +
			`(2027-01-31T12:00:00Z)`},
	{"bad number", "limits: {leases_per_uid: -1}\n",
		`usher.yaml:1: limits.leases_per_uid is "-1", and must be a whole number from 0 on`},
	{"list for component", "host: {components: {cluster: [a]}}\n",
		`usher.yaml:1: host.components.cluster is a list, and must be a text`},
	{"component twice", "host:\n  components:\n    cluster: a\n    cluster: b\n",
		`usher.yaml:4: key "cluster" stands twice below host.components; keep one of them`},
}

var faultsOfValues = []fault{
	{"alias of a component", "product: &p x\nhost: {components: {cluster: *p}}\n",
		`usher.yaml:2: anchors and aliases are not read; write the value out`},
	{"looks too often", "host: {every: 10ms}\n", `usher.yaml:1: host.every is 10ms, and must be at least 1s`},
	{"system in capitals", "license: {trust: [{kid: a, key: x, system: Usher}]}\n",
		`usher.yaml:1: license.trust[0] (a): system is "Usher", and must be a name in lower case, such as usher`},
	{"no kid", "license: {trust: [{key: x}]}\n",
		`usher.yaml:1: license.trust[0]: kid is missing; give the id that licences name the key by`},
	{"times in the wrong order",
		"license: {trust: [{kid: a, key: x, not_before: 2027-01-01, not_after: 2026-01-01}]}\n",
		`license.trust[0] (a): not_after is before not_before; mend one of them`},
	{"environment", "license: {trust: [{kid: a, key: x, environment: tst}]}\n",
		`license.trust[0].environment is "tst", and must be one of production, test; did you mean "test"?`},
	{"relative exe", "socket: {allow: [{exe: bin/x}]}\n",
		`usher.yaml:1: socket.allow[0]: exe "bin/x" must be an absolute path`},
	{"digest", "socket: {allow: [{exe_sha256: xx}]}\n",
		`usher.yaml:1: socket.allow[0]: exe_sha256 must be 64 hexadecimal digits, as sha256sum prints them`},
	{"uid and user", "socket: {admin: [{uid: 1, user: a}]}\n",
		`usher.yaml:1: socket.admin[0]: uid and user are both given; keep one`},
	{"gid and group", "socket: {admin: [{gid: 1, group: a}]}\n",
		`usher.yaml:1: socket.admin[0]: gid and group are both given; keep one`},
	{"port", "ops: {listen: \"localhost:http\"}\n",
		`usher.yaml:1: ops.listen is "localhost:http", and must be host:port, such as 127.0.0.1:9871`},
	{"web_config alone", "ops: {web_config: /x}\n",
		`usher.yaml:1: ops.web_config is set without ops.listen, which it is for; set that too, or leave it out`},
	{"empty path", "license: {path: \"\"}\n",
		`usher.yaml:1: license.path is empty; name the folder, or the file, of the licence`},
	{"a list", "- a\n", `usher.yaml:1: the file is a list, and must have keys below it`},
	{"too large", "#" + strings.Repeat("x", maxFile),
		`usher.yaml: the file is larger than 1048576 bytes; a configuration is far smaller`},
	{"too many items", "product: [" + strings.Repeat("a,", maxItems) + "a]\n",
		`usher.yaml:1: product has 1001 items, and may have 1000 at most`},
	{"inline in a file", "license: {inline: eyJ}\n",
		`license.inline is a secret and is not read from a file; use the variable USHER_LICENSE`},
}

var faultsOfListeners = []fault{
	{"listener without address", "listeners: [{dialect: toy}]\n",
		`usher.yaml:1: listeners[0]: address is missing; give the path of a Unix socket, or a loopback address ` +
			`and port such as 127.0.0.1:8130`},
	{"listener without dialect", "listeners:\n  - address: /run/k.sock\n",
		`usher.yaml:2: listeners[0] (/run/k.sock): dialect is missing; name the licence system whose API is ` +
			`answered there`},
	{"listener for the network", "listeners: [{address: \"0.0.0.0:80\", dialect: toy}]\n",
		`listeners[0]: address 0.0.0.0:80 can be reached from other hosts, and a dialect is for this host alone; ` +
			`use 127.0.0.1, [::1] or a Unix socket`},
	{"listener on IPv6 for the network", "listeners: [{address: \"[::]:80\", dialect: toy}]\n",
		`listeners[0]: address [::]:80 can be reached from other hosts`},
	{"listener by name", "listeners: [{address: \"localhost:80\", dialect: toy}]\n",
		`listeners[0]: address is "localhost:80", and must be an absolute path, or a loopback address and port ` +
			`in numbers, such as 127.0.0.1:8130 or [::1]:8130`},
	{"listener without port", "listeners: [{address: 127.0.0.1, dialect: toy}]\n",
		`listeners[0]: address is "127.0.0.1", and must be`},
	{"listener on a relative path", "listeners: [{address: unix:k.sock, dialect: toy}]\n",
		`listeners[0]: the path "k.sock" of the socket must be absolute`},
	{"listener on a long path", "listeners: [{address: /" + strings.Repeat("x", 120) + ", dialect: toy}]\n",
		`listeners[0]: the socket's path has 121 bytes, and the kernel takes at most 107; choose a shorter one`},
	{"token on a socket", "listeners: [{address: /run/k.sock, dialect: toy, token_file: /t}]\n",
		`listeners[0] (/run/k.sock): token_file and insecure_loopback are for TCP; on a Unix socket the kernel ` +
			`says who calls, and socket.allow who may`},
	{"a listener's mode for nobody", "listeners: [{address: /run/k.sock, dialect: toy, mode: \"0444\"}]\n",
		`listeners[0] (/run/k.sock): mode 0444 lets nobody connect`},
	{"mode on TCP", "listeners: [{address: \"127.0.0.1:80\", dialect: toy, mode: \"0600\", token_file: /t}]\n",
		`listeners[0] (127.0.0.1:80): mode and group are for Unix sockets; leave them out`},
	{"token and none",
		"listeners: [{address: \"127.0.0.1:80\", dialect: toy, insecure_loopback: true, token_file: /t}]\n",
		`listeners[0] (127.0.0.1:80): token_file and insecure_loopback are both given; keep one`},
	{"relative token file", "listeners: [{address: \"127.0.0.1:80\", dialect: toy, token_file: t}]\n",
		`listeners[0] (127.0.0.1:80): token_file "t" must be an absolute path`},
	{"installers without credentials", "listeners: [{address: \"127.0.0.1:80\", dialect: toy, installers: [a]}]\n",
		`listeners[0] (127.0.0.1:80): installers names credentials of a credentials_file on TCP`},
	{"installers on a socket",
		"listeners: [{address: /run/k.sock, dialect: toy, credentials_file: /c, installers: [a]}]\n",
		`on a Unix socket admins may install, see socket.admin`},
	{"installers with a token",
		"listeners: [{address: \"127.0.0.1:80\", dialect: toy, credentials_file: /c, token_file: /t, installers: " +
			"[a]}]\n",
		`without token_file`},
	{"an installer without a name",
		"listeners: [{address: \"127.0.0.1:80\", dialect: toy, credentials_file: /c, installers: [\"\"]}]\n",
		`installers has an empty name`},
	{"relative credentials file", "listeners: [{address: \"127.0.0.1:80\", dialect: toy, credentials_file: t}]\n",
		`listeners[0] (127.0.0.1:80): credentials_file "t" must be an absolute path`},
	{"two listeners at one address",
		"listeners: [{address: \"127.0.0.1:80\", dialect: a}, {address: \"[::ffff:127.0.0.1]:80\", dialect: b}]\n",
		`listeners[1]: listeners[0] listens on 127.0.0.1:80 already; give each an address of its own`},
	{"two listeners on one socket",
		"listeners: [{address: \"unix:/run/k.sock\", dialect: a}, {address: /run//k.sock, dialect: b}]\n",
		`listeners[1]: listeners[0] listens on unix:/run/k.sock already`},
	{"a listener on the API's socket", "listeners: [{address: /run/usher/usher.sock, dialect: a}]\n",
		`listeners[0]: socket.path listens on unix:/run/usher/usher.sock already`},
	{"a listener at the operators' address",
		"ops: {listen: \"127.0.0.1:80\"}\nlisteners: [{address: \"127.0.0.1:80\", dialect: a}]\n",
		`listeners[0]: ops.listen listens on 127.0.0.1:80 already`},
}

// Every fault has its place, its cause and, where there is one, its mend.
func TestFaults(t *testing.T) {
	for _, test := range slices.Concat(faultsOfForm, faultsOfValues, faultsOfListeners) {
		t.Run(test.name, func(t *testing.T) {
			_, err := Load(Source{File: "/etc/usher.yaml", Data: []byte(strings.Replace(test.yaml, "/etc/", "", 1))})
			if err == nil {
				t.Fatal("no fault")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %s\nwant %s", err, test.want)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Load(Source{File: "usher.yaml", Data: []byte("a: 1\nlicense: {grace: soon}\nlog: {level: 3}\n"),
		Env: []string{"USHER_LOG_LEVL=x"}})
	want := `usher.yaml:1: unknown key "a"
usher.yaml:2: license.grace is "soon", and must be a span of time such as 90s, 12h, 30d or P30D
USHER_LOG_LEVL: there is no such setting; did you mean USHER_LOG_LEVEL?
usher.yaml:3: log.level is "3", and must be one of debug, info, warn, error`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var bad *Error
	if !errors.As(err, &bad) || bad.Place != "usher.yaml:1" || bad.Key != "a" {
		t.Errorf("no Error, or the wrong one: %+v", bad)
	}
	if _, err := Load(Source{File: "/nowhere/usher.yaml"}); err == nil ||
		!strings.Contains(err.Error(), "/nowhere/usher.yaml: cannot be read") {
		t.Errorf("got %v", err)
	}
	if c := load(t, ""); c.Log.Level != "info" {
		t.Error("an empty file is not all defaults")
	}
}

func TestDiff(t *testing.T) {
	a := load(t, "product: a\nlog: {level: info}\nlicense:\n  trust:\n    - {kid: x, key: k}\n")
	b := load(t,
		"product: b\nlog: {level: warn}\nlicense:\n  path: /y\n  trust:\n    - {kid: x, key: k, revoked: "+
			"true}\nsocket:\n  admin:\n    - {uid: 7}\n")
	taken, restart := Diff(a, b)
	if got, want := strings.Join(taken, " "),
		"license.trust[x] log.level socket.admin socket.admin[0].uid"; !strings.Contains(got,
		"license.trust[x] log.level") || !strings.Contains(got, "socket.admin[0].uid") {
		t.Errorf("taken %q, want %q", got, want)
	}
	if got := strings.Join(restart, " "); got != "license.path product" {
		t.Errorf("restart %q", got)
	}
	c := a.Reloaded(b)
	if c.Product.Name() != "a" || c.License.Path != a.License.Path || c.Log.Level != "warn" ||
		!c.License.Trust[0].Revoked || len(c.Socket.Admin) != 1 {
		t.Errorf("got %+v", c)
	}
	if _, still := Diff(c, b); strings.Join(still, " ") != "license.path product" {
		t.Errorf("a second reload forgets what needs a restart: %q", still)
	}
	if taken, restart := Diff(a, a); len(taken)+len(restart) > 0 {
		t.Error("a configuration differs from itself")
	}
}

// TestDiffNamesEntries: a reload names the one anchor, plugin or listener that differs, wherever it stands in its list.
func TestDiffNamesEntries(t *testing.T) {
	const x, y, z = "{kid: x, key: k}", "{kid: y, key: k}", "{kid: z, key: k}"
	trust := func(s string) *Config { return load(t, "license: {trust: ["+s+"]}\n") }
	listener := func(s string) *Config {
		return load(t, "listeners: ["+s+"{address: unix:/run/c.sock, dialect: c}]\n")
	}
	plugin := func(name string) string {
		return "{name: " + name + ", path: /" + name + ", sha256: " + strings.Repeat("ab", 32) + "}"
	}
	for _, row := range []struct {
		before, after  *Config
		taken, restart string
	}{
		{trust(x + "," + y), trust(z + "," + x + "," + y), "license.trust[z]", ""},
		{trust(x + "," + y), trust(y), "license.trust[x]", ""},
		{trust(x + "," + y), trust(y + "," + x), "", ""},
		{trust(x + "," + y), trust(x + ", {kid: y, key: l}"), "license.trust[y]", ""},
		{listener(""), listener("{address: unix:/run/a.sock, dialect: a}, "), "", "listeners[a]"},
		{load(t, "plugins: ["+plugin("a")+", "+plugin("b")+"]\n"), load(t, "plugins: ["+plugin("b")+"]\n"), "",
			"plugins[a]"},
	} {
		taken, restart := Diff(row.before, row.after)
		if a, b := strings.Join(taken, " "), strings.Join(restart, " "); a != row.taken || b != row.restart {
			t.Errorf("taken %q, restart %q, want %q and %q", a, b, row.taken, row.restart)
		}
	}
}

// Several listeners may leave the port to the kernel. A change of them needs a restart.
func TestListeners(t *testing.T) {
	a := load(t,
		"listeners:\n  - {address: \"127.0.0.1:0\", dialect: a, insecure_loopback: true}\n  - {address: "+
			"\"127.0.0.1:0\", dialect: b, token_file: /t}\n  - {address: unix:/run/c.sock, dialect: c, mode: "+
			"\"0600\", group: g}\n")
	if len(a.Listeners) != 3 || a.Listeners[2].Path() != "/run/c.sock" || a.Listeners[2].Mode != 0o600 ||
		a.Listeners[0].Path() != "" {
		t.Fatalf("%+v", a.Listeners)
	}
	b := load(t, "listeners:\n  - {address: \"127.0.0.1:0\", dialect: a, insecure_loopback: true}\n")
	taken, restart := Diff(a, b)
	if len(taken) > 0 || len(restart) == 0 || len(a.Reloaded(b).Listeners) != 3 {
		t.Errorf("taken %q, restart %q", taken, restart)
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute,
		"30d": 720 * time.Hour, "1d12h": 36 * time.Hour,
		"P30D": 720 * time.Hour, "PT90S": 90 * time.Second, "P1W": 168 * time.Hour, "P1DT1H": 25 * time.Hour, "0s": 0} {
		if d, err := ParseDuration(s); err != nil || d != want {
			t.Errorf("%s is %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "P", "PT", "1", "-1h", "d", "1y", "P1Y", "99999999d", "P999999D", "1d-2h", "1e9h",
		"3000000h"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("%q is %v", s, d)
		}
	}
}

// A span is written as a file may state it, without the zeros of Go's form.
func TestDurationString(t *testing.T) {
	for want, d := range map[string]time.Duration{"3d": 72 * time.Hour, "1d12h": 36 * time.Hour,
		"10m":   10 * time.Minute,
		"1m30s": 90 * time.Second, "0s": 0, "250ms": 250 * time.Millisecond, "36500d": 36500 * 24 * time.Hour} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if back, err := ParseDuration(want); err != nil || back != d {
			t.Errorf("%s is read as %v: %v", want, back, err)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	f.Add("1d2h")
	f.Add("P1DT2H")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDuration(s); err == nil && (d < 0 || d > maxDuration) {
			t.Fatalf("%q is %v", s, d)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("product: a\nlicense:\n  trust:\n    - {kid: a, key: b}\n"))
	f.Add([]byte("a: &b [*b]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Load(Source{File: "usher.yaml", Data: b})
		if (c == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
		if c != nil {
			c.Show()
		}
	})
}

// A file full of rubbish costs neither time nor pages.
func TestManyFaults(t *testing.T) {
	var b strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&b, "nonsense%d: x\n", i)
	}
	_, err := Load(Source{File: "usher.yaml", Data: []byte(b.String())})
	if err == nil || strings.Count(err.Error(), "\n") != maxFaults ||
		!strings.HasSuffix(err.Error(), "there are more than 50 faults; mend these first") {
		t.Errorf("got %.300v", err)
	}
}

// A fault in a value is reported once, and not again for what the value then lacks.
func TestNoFaultTwice(t *testing.T) {
	_, err := Load(Source{File: "usher.yaml", Data: []byte("license:\n  trust:\n    - {kid: [a], key: x}\n")})
	if want := "usher.yaml:3: license.trust[0].kid is a list, and must be a text"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A configuration that was not read from anywhere is checked too.
func TestValidate(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Socket.Mode, c.License.Path = 0o1777, ""
	c.License.Trust = []Trust{{KeyID: "a", Key: "x"}}
	want := `license.path is empty; name the folder, or the file, of the licence
license.trust[0] (a): system is "", and must be a name in lower case, such as usher
socket.mode is 01777, and must be within 0777`
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// A section whose keys are all commented out has its defaults.
func TestEmptySections(t *testing.T) {
	if c := load(t, "product: a\nsocket:\nlog:\n"); c.Socket.Path != Default().Socket.Path || c.Log.Level != "info" {
		t.Errorf("got %+v", c)
	}
}
