package main

import (
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
)

// mistake is one mistake in a configuration that is good otherwise.
type mistake struct {
	name     string
	from, to string   // what is replaced in the good one; from is empty: to is added
	env      string   // a variable, KEY=VALUE
	wants    []string // of one line of what the check says; the last one is of the mend
}

// goodConfiguration is a configuration without a mistake, in DIR.
const goodConfiguration = `product: acme
license:
  path: DIR/l
  trust:
    - kid: k1
      key_file: DIR/k1.pub
socket:
  path: DIR/s
  mode: "0660"
state:
  dir: DIR/state
  runtime_dir: DIR/run
`

var mistakes = []mistake{
	{"an unknown key", "license:", "licence:", "", []string{"u.yaml:2", `"licence"`, `did you mean "license"`}},
	{"an unknown key below", "path: DIR/l", "pth: DIR/l", "", []string{"u.yaml:3", "license.pth", "license.path"}},
	{"a key in the wrong place", "", "runtime_dir: /x\n", "",
		[]string{"u.yaml:13", "runtime_dir", "state.runtime_dir"}},
	{"a key twice", "", "product: b\n", "", []string{"u.yaml:13", "product", "keep one"}},
	{"a text for a list", "socket:\n", "socket:\n  allow: root\n", "",
		[]string{"u.yaml:8", "socket.allow", "must be a list"}},
	{"no mapping", "state:\n  dir: DIR/state\n  runtime_dir: DIR/run", "state: DIR/state", "",
		[]string{"u.yaml:10", "state", "must have keys below it"}},
	{"no span", "  path: DIR/l", "  path: DIR/l\n  grace: soon", "",
		[]string{"u.yaml:4", "license.grace", "90s, 12h, 30d"}},
	{"no date", "      key_file", "      not_after: 31.12.2026\n      key_file", "",
		[]string{"u.yaml:6", "not_after", "2027-01-31"}},
	{"no truth", "      key_file", "      revoked: maybe\n      key_file", "",
		[]string{"u.yaml:6", "revoked", "true or false"}},
	{"no choice", "  path: DIR/l", "  path: DIR/l\n  on_expiry: drian", "",
		[]string{"u.yaml:4", "on_expiry", `did you mean "drain"`}},
	{"out of range", "", "upstream: {timeout: 1h}\n", "", []string{"u.yaml:13", "upstream.timeout", "from 1s to 10m"}},
	{"no mode", `"0660"`, "rw-rw----", "", []string{"u.yaml:9", "socket.mode", "octal permissions"}},
	{"a mode in decimal", `"0660"`, "432", "", []string{"u.yaml:9", "socket.mode", `"0660"`}},
	{"no value", "path: DIR/s", "path:", "", []string{"u.yaml:8", "socket.path", "leave the key out"}},
	{"a tab", "  path: DIR/l", "\tpath: DIR/l", "", []string{"u.yaml:3", "a tab", "blanks"}},
	{"indented otherwise", "  dir: DIR/state", "   dir: DIR/state", "", []string{"u.yaml:1", "one column", "indent"}},
	{"a quote that is open", `"0660"`, `"0660`, "", []string{"u.yaml:", "is not YAML", "is a quote or a bracket open"}},
	{"no blank behind the colon", goodConfiguration, "product:acme\n", "",
		[]string{"u.yaml:1", `"product:acme"`, "a colon and a blank"}},
	{"two documents", "", "---\nproduct: b\n", "", []string{"u.yaml", "more than one", "keep one"}},
	{"an alias", "product: acme", "product: &p acme", "",
		[]string{"u.yaml:1", "anchors and aliases", "write the value"}},
	{"a trusted key that is not there", "k1.pub", "k2.pub", "",
		[]string{"u.yaml:5", "k2.pub", "put the vendor's public key there"}},
	{"a trusted key that is garbled", "k1.pub", "garbled", "",
		[]string{"u.yaml:5", "license.trust[0]", "begins with -----BEGIN PUBLIC KEY-----"}},
	{"a trusted key that is private", "k1.pub", "k1.key", "",
		[]string{"u.yaml:5", "a private key", "ends in .pub"}},
	{"a key and a file of it", "      key_file", "      key: abc\n      key_file", "",
		[]string{"u.yaml:5", "key and key_file", "keep one"}},
	{"two of one id", "socket:", "    - kid: k1\n      key_file: DIR/k1.pub\nsocket:", "",
		[]string{"u.yaml:7", `key "k1"`, "twice"}},
	{"no such group", "path: DIR/s", "path: DIR/s\n  group: no-such", "",
		[]string{"u.yaml:9", "socket.group", "groupadd no-such"}},
	{"no such user", "path: DIR/s", "path: DIR/s\n  allow:\n    - user: no-such", "",
		[]string{"u.yaml:10", "socket.allow[0]", "create it"}},
	{"a rule that says nothing", "path: DIR/s", "path: DIR/s\n  allow:\n    - {}", "",
		[]string{"u.yaml:10", "socket.allow[0]", "give uid"}},
	{"a path that is long", "path: DIR/s", "path: DIR/" + strings.Repeat("s", 100), "",
		[]string{"u.yaml:8", "socket.path", "choose a shorter one"}},
	{"the licence folder is the state", "DIR/state", "DIR/l", "",
		[]string{"u.yaml:3", "license.path", "a folder of its own"}},
	{"no licence folder", "path: DIR/l", "path: DIR/none", "", []string{"u.yaml:3", "DIR/none", "make it"}},
	{"a state that cannot be", "DIR/state", "DIR/k1.pub/state", "",
		[]string{"u.yaml:11", "DIR/k1.pub/state", "state.dir"}},
	{"an address in use", "", "ops: {listen: BUSY}\n", "", []string{"u.yaml:13", "BUSY", "choose another address"}},
	{"no address", "", "ops: {listen: 9871}\n", "", []string{"u.yaml:13", "ops.listen", "host:port"}},
	{"two on one address", "", "listeners: [{address: DIR/d, dialect: keygen}, {address: DIR/d, dialect: awslm}]\n", "",
		[]string{"u.yaml:13", "listeners[1]", "an address of its own"}},
	{"no such dialect", "", "listeners: [{address: DIR/d, dialect: keygn}]\n", "",
		[]string{"u.yaml:13", "keygn", "known: keygen"}},
	{"an address for all", "", "listeners: [{address: '0.0.0.0:8130', dialect: keygen}]\n", "",
		[]string{"u.yaml:13", "other hosts", "use 127.0.0.1"}},
	{"a secret that is not there", "",
		"listeners: [{address: '127.0.0.1:0', dialect: keygen, token_file: DIR/none}]\n", "",
		[]string{"u.yaml:13", "DIR/none", "make it readable"}},
	{"a secret that all can read", "",
		"listeners: [{address: '127.0.0.1:0', dialect: keygen, token_file: DIR/token}]\n",
		"", []string{"u.yaml:13", "DIR/token", "chmod o-rwx"}},
	{"no scheme", "", "upstream: {url: licences.example.com}\n", "",
		[]string{"u.yaml:13", "upstream.url", "https://licences.example.com"}},
	{"no CA", "", "upstream:\n  url: https://licences.example.com\n  ca_file: DIR/none\n", "",
		[]string{"u.yaml:15", "upstream.ca_file", "put the CA's certificate there"}},
	{"half a certificate", "", "upstream: {url: 'https://a.example', client_cert_file: DIR/c}\n", "",
		[]string{"u.yaml:13", "client_key_file", "set both"}},
	{"no web configuration", "", "ops: {listen: '127.0.0.1:0', web_config: DIR/none}\n", "",
		[]string{"u.yaml:13", "ops.web_config", "leave the key out"}},
	{"a plugin without its sum", "", "plugins: [{name: toy, path: DIR/toy}]\n", "",
		[]string{"u.yaml:13", "plugins[0]", "as sha256sum"}},
	{"a plugin that is not there", "",
		"plugins: [{name: toy, path: DIR/toy, sha256: " + strings.Repeat("ab", 32) + "}]\n",
		"", []string{"u.yaml:13", "plugins[0]", "install the plugin"}},
	{"a variable that is misspelt", "", "", "USHER_SOKET=/x", []string{"USHER_SOKET", "did you mean USHER_SOCKET"}},
	{"a variable that is wrong", "", "", "USHER_LOG_LEVEL=loud",
		[]string{"USHER_LOG_LEVEL", "debug, info, warn, error"}},
	{"a secret in the file", "path: DIR/l", "path: DIR/l\n  inline: x", "",
		[]string{"u.yaml:4", "inline", "USHER_LICENSE"}},
}

// The check names every mistake in a configuration, with its line, its cause and its mend, and nothing in a good one.
func TestCheckNamesEveryMistake(t *testing.T) {
	dir, err := os.MkdirTemp("", "m") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(dir+"/"+name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/l", 0o755); err != nil {
		t.Fatal(err)
	}
	write("garbled", "garbage\n", 0o644)
	write("token", "0123456789abcdef0123456789\n", 0o644)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	in := strings.NewReplacer("DIR", dir, "BUSY", busy.Addr().String()).Replace
	var none strings.Builder
	if code := run([]string{"vendor", "keygen", "--kid", "k1", "--out", dir}, strings.NewReader(""), &none,
		&none); code != 0 {
		t.Fatal(none.String())
	}
	check := func(text string) string {
		write("u.yaml", in(text), 0o644)
		_, out, errs := onHost(t, dir, "agent", "--check", "--config", dir+"/u.yaml")
		return regexp.MustCompile(`(?m)^(error|warning): .*$`).FindString(errs) + "\n" + out + errs
	}
	t.Setenv("USHER_SOCKET", "")
	if said := check(goodConfiguration); strings.Contains(said, "error: ") || strings.Contains(said, "warning: ") {
		t.Errorf("of a good one the check says: %s", said)
	}
	if len(mistakes) < 20 {
		t.Errorf("there are %d mistakes", len(mistakes))
	}
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			text := goodConfiguration + m.to
			if m.from != "" {
				text = strings.Replace(goodConfiguration, m.from, m.to, 1)
			}
			if name, value, ok := strings.Cut(m.env, "="); ok {
				t.Setenv(name, value)
			}
			first, rest, _ := strings.Cut(check(text), "\n")
			t.Log(first)
			for _, want := range m.wants {
				if want = in(want); !strings.Contains(first, want) {
					t.Errorf("the first line lacks %q: %s\n%s", want, first, rest)
					break
				}
			}
		})
	}
}
