package dialect

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin/catalog"
)

// A credential that can be guessed is refused at the start, and at each call once it has come into the file: the error
// names the file, the line and the mend, and quotes nothing.
func TestShortCredentials(t *testing.T) {
	for _, test := range []struct{ dialect, text, want string }{
		{"keygen", "0123456789abcdef\n\n", ""},
		{"keygen", "0123456789abcdef\nhunter2\n", "line 2: the credential has 7 bytes, and must have at least 16"},
		{"awslm", "[a]\naws_access_key_id = A\naws_secret_access_key = 0123456789abcdef\n", ""},
		{"awslm", "[a]\naws_access_key_id = A\naws_secret_access_key = hunter2\n",
			"line 3: the secret has 7 bytes, and must have at least 16"},
	} {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Source{File: "usher.yaml",
			Data: fmt.Appendf(nil,
				"product: acme\nlisteners:\n  - {address: \"127.0.0.1:1\", dialect: %s, credentials_file: %s}\n",
				test.dialect, file)})
		if err != nil {
			t.Fatal(err)
		}
		found, err := Check(c, catalog.BuiltIn().Dialects(nil))
		if test.want == "" && err != nil || test.want != "" &&
			(err == nil || !strings.Contains(err.Error(), "credentials_file "+file+": "+test.want) ||
				strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: got %v, want %q", test.dialect, err, test.want)
		}
		if _, err := found[0].readCredentials(c); (err != nil) != (test.want != "") {
			t.Errorf("%s, at a call: %v", test.dialect, err)
		}
	}
}
