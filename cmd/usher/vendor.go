package main

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	strictjson "github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

func (c *cli) vendorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "vendor", Short: "Make keys and sign licences"}
	cmd.AddCommand(c.makeKeyCommand(), c.signCommand(), c.bindCommand(), c.revokeCommand(), c.acceptReturnCommand(),
		c.verifyReportCommand(), c.embedCommand())
	return cmd
}

func (c *cli) makeKeyCommand() *cobra.Command {
	var kid, out, alg string
	cmd := &cobra.Command{Use: "keygen --kid K --out DIR",
		Short: "Make a signing key: K.key to keep, K.pub to give away", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if kid == "" {
				return usage("--kid is missing: the key's id in licences, such as 2026-a")
			}
			private, public, err := issue.MakeKey(out, kid, alg)
			var at *fs.PathError
			if errors.As(err, &at) {
				return unwritten("--out", at.Path, err)
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(map[string]string{"kid": kid, "private": private, "public": public})
			}
			fprintf(c.out,
				"%s  the private key: keep it secret, and keep a copy\n%s  the public key: ship it with the product\n",
				private, public)
			return nil
		}}
	f := cmd.Flags()
	f.StringVar(&kid, "kid", "", "the key's id in licences, such as 2026-a")
	f.StringVar(&out, "out", ".", "the folder to write to")
	f.StringVar(&alg, "alg", "EdDSA", "the algorithm: "+strings.Join(usher.Algorithms(), ", "))
	return cmd
}

func (c *cli) bindCommand() *cobra.Command {
	var o signFlags
	cmd := &cobra.Command{Use: "bind --key K.key --bind request.json LICENCE",
		Short: "Issue a licence again, bound to a host's request", Args: cobra.ExactArgs(1),
		Long: `Read a licence that was signed with the same key, bind its terms to the host of each request, and
sign it again with the same id: the new one replaces the old one where both are good.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.bind) == 0 {
				return usage("--bind is missing: the request that `usher fingerprint --request` wrote")
			}
			s, keyFile, err := c.loadSigner(cmd, &o)
			if err != nil {
				return err
			}
			doc, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			claims, err := s.Claims(doc)
			if err != nil {
				return fmt.Errorf("licence %s: %w", args[0], err)
			}
			now := time.Now().UTC().Truncate(time.Second)
			claims.Issued = now.Unix()
			return c.issue(&o, s, keyFile, claims, now)
		}}
	o.addSigner(cmd)
	return cmd
}

func (c *cli) embedCommand() *cobra.Command {
	return &cobra.Command{Use: "embed DIR",
		Short: "Print the linker flag that compiles in a vendor's product and keys", Args: cobra.ExactArgs(1),
		Long: `Read DIR/vendor.json, {"product": "…", "keys": [{"kid", "key_file", "alg", "not_before",
"not_after", "revoked", "environment"}]}, and print the flag for go build -ldflags. Without keys
every .pub file of DIR is one. "make build VENDOR=DIR" does all of it.`,
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := readVendor(args[0])
			if err != nil {
				return err
			}
			flag, err := catalog.Embed(*v)
			if err != nil {
				return fmt.Errorf("vendor %s: %w", args[0], err)
			}
			fprintln(c.out, flag)
			return nil
		}}
}

func readVendor(dir string) (*catalog.Vendor, error) {
	b, err := readText(filepath.Join(dir, "vendor.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(exitFailed, `write {"product": "NAME"} into it; the .pub files beside it are the keys`,
			"vendor folder %s has no vendor.json", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("vendor: %w", err)
	}
	type key struct {
		catalog.Public
		File string `json:"key_file"`
		// A bare date is a date here, and an end is the end of that day.
		NotBefore *string `json:"not_before"`
		NotAfter  *string `json:"not_after"`
	}
	var in struct {
		Product string `json:"product"`
		Keys    []key  `json:"keys"`
	}
	if err := strictjson.Unmarshal(textual.JSON(b), &in, strictjson.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("vendor %s: vendor.json: %w", dir, plugin.JSONFault(err, "member"))
	}
	if in.Keys == nil {
		names, err := filepath.Glob(filepath.Join(dir, "*.pub"))
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		for _, n := range names {
			in.Keys = append(in.Keys, key{Public: catalog.Public{KeyID: issue.KeyIDOf(n)}, File: filepath.Base(n)})
		}
	}
	v := &catalog.Vendor{Product: in.Product}
	for _, k := range in.Keys {
		if k.System == "" {
			k.System = usher.System
		}
		for _, t := range []struct {
			name  string
			value *string
			to    *time.Time
		}{{"not_before", k.NotBefore, &k.Public.NotBefore}, {"not_after", k.NotAfter, &k.Public.NotAfter}} {
			if t.value == nil {
				continue
			}
			if *t.to, err = config.ParseDate(*t.value, t.name == "not_after"); err != nil {
				return nil, fmt.Errorf("vendor %s: vendor.json: key %q: %s: %w", dir, k.KeyID, t.name, err)
			}
		}
		if k.File != "" {
			pub, err := readText(filepath.Join(dir, k.File))
			if err != nil {
				return nil, fmt.Errorf("vendor: key %q: %w", k.KeyID, err)
			}
			k.Key = string(pub)
		}
		v.Keys = append(v.Keys, k.Public)
	}
	return v, nil
}

// readText reads a text that a person has written or brought here: see [textual.Decode].
func readText(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	return textual.Decode(b), err
}

// readFile reads a file, or standard input for "-".
func (c *cli) readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(c.in, 2<<20))
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no file %s", path)
	}
	if fi, failed := os.Stat(path); err != nil && failed == nil && fi.IsDir() {
		return nil, fmt.Errorf("%s is a folder; name the file", path)
	}
	return b, err
}

// readBounded is readFile for a file of at most so many bytes, and returns one byte more of a larger one.
func (c *cli) readBounded(path string, most int64) ([]byte, error) {
	in := c.in
	if path != "-" {
		if fi, err := os.Stat(path); err != nil || fi.IsDir() {
			return c.readFile(path) // says what is wrong
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, most+1))
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	fi, err := f.Stat()
	return err == nil && fi.Mode()&fs.ModeCharDevice != 0
}

func randomID() string {
	b := make([]byte, 8)
	rand.Read(b) // never fails: see crypto/rand
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)
}
