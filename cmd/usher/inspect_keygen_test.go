package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An encrypted file whose key is not at hand has a signature all the same: `license inspect` says whether it is good,
// in words and in JSON. The files are those of plugin/keygen.
func TestInspectEncrypted(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob("../../plugin/keygen/testdata/*-aes-*.json")
	good, bad := 0, 0
	for _, vector := range files {
		b, err := os.ReadFile(vector)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			File      string
			PublicKey struct{ Hex string }
			Expect    struct{ Signature string }
		}
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		document, anchor := filepath.Join(dir, "a.lic"), filepath.Join(dir, "account.pub")
		for path, text := range map[string]string{document: v.File, anchor: v.PublicKey.Hex} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"license", "inspect", "--trust", "keygen=" + anchor, document}
		var shape struct {
			Code     string `json:"code"`
			Verified bool   `json:"verified"`
		}
		code, out, errs := tool(t, append(args, "--json")...)
		if err := json.Unmarshal([]byte(out), &shape); err != nil || code != exitNotValid {
			t.Fatalf("%s: exit %d, %v, %s %s", vector, code, err, out, errs)
		}
		want := v.Expect.Signature == "valid"
		if shape.Verified != want || want && shape.Code != "UNAVAILABLE" {
			t.Errorf("%s: verified %v, code %s", vector, shape.Verified, shape.Code)
		}
		_, out, _ = tool(t, args...)
		row := false
		for line := range strings.Lines(out) {
			row = row || strings.Join(strings.Fields(line), " ") == "signature verified"
		}
		if row != want {
			t.Errorf("%s: in words: %s", vector, out)
		}
		if want {
			good++
		} else {
			bad++
		}
	}
	if good < 10 || bad == 0 {
		t.Errorf("%d good files and %d bad ones are too few", good, bad)
	}
}
