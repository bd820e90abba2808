package main

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// wrongFile is a file that somebody dropped into the licence folder.
type wrongFile struct {
	name string
	put  func(w *ward, good string)
	// says is what `usher status` says then, the remedy included; nil: the licence is taken as it is.
	says []string
	// mend does what the message says, and no more; nil: nothing needs to be done.
	mend func(w *ward, good string)
}

// drop puts a file into the licence folder.
func (w *ward) drop(name, text string) { w.write("l/"+name, text) }

// instead removes a file, and puts the licence as the vendor sent it there.
func instead(name string) func(w *ward, good string) {
	return func(w *ward, good string) {
		w.must(os.RemoveAll(w.path("l/" + name)))
		w.drop("acme.lic", good)
	}
}

// zipOf returns a ZIP archive of a licence.
func (w *ward) zipOf(good string, method uint16) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.CreateHeader(&zip.FileHeader{Name: "acme.lic", Method: method})
	w.must(err)
	_, err = io.WriteString(f, good)
	w.must(err)
	w.must(z.Close())
	return b.String()
}

// unzip does as "unpack it, and take the licence file that is in it" says.
func unzip(w *ward, _ string) {
	z, err := zip.OpenReader(w.path("l/acme.lic"))
	w.must(err)
	defer z.Close()
	f, err := z.File[0].Open()
	w.must(err)
	b, err := io.ReadAll(f)
	w.must(err)
	w.drop("acme.lic", string(b))
}

func wide(s string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

func mailed(good string) string {
	return "From: vendor@example.com\nSubject: Your licence\nMIME-Version: 1.0\n" +
		"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain\n\n" +
		"Dear customer,\nhere it is.\n\n" +
		"--x\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n" +
		"Content-Disposition: attachment; filename=acme.lic\n\n" +
		base64.StdEncoding.EncodeToString([]byte(good)) + "\n--x--\n"
}

var wrongFiles = []wrongFile{
	{"a web page", func(w *ward, _ string) {
		w.drop("acme.lic", "<!DOCTYPE html><html><head><title>Log in</title></head><body>Log in.</body></html>")
	}, []string{"it is a web page, not a licence", "download it again while logged in"}, instead("acme.lic")},
	{"a mail with the licence attached", func(w *ward, good string) { w.drop("acme.eml", mailed(good)) }, nil, nil},
	{"a ZIP archive that stores it", func(w *ward, good string) { w.drop("acme.lic", w.zipOf(good, zip.Store)) },
		[]string{"it is a ZIP archive", "unpack it, and take the licence file that is in it"}, unzip},
	{"a ZIP archive", func(w *ward, good string) { w.drop("acme.lic", w.zipOf(good, zip.Deflate)) },
		[]string{"it is a ZIP archive", "unpack it, and take the licence file that is in it"}, unzip},
	{"UTF-16", func(w *ward, good string) { w.drop("acme.lic", wide(good)) }, nil, nil},
	{"CRLF", func(w *ward, good string) { w.drop("acme.lic", strings.ReplaceAll(good, "\n", "\r\n")) }, nil, nil},
	{"quoted in a mail", func(w *ward, good string) {
		w.drop("acme.lic", "> "+strings.ReplaceAll(strings.TrimSpace(good), "\n", "\n> ")+"\n")
	}, nil, nil},
	{"cut off", func(w *ward, good string) { w.drop("acme.lic", good[:len(good)*2/3]) },
		[]string{"it has been cut off", "copy the whole file again"}, instead("acme.lic")},
	{"the vendor's public key", func(w *ward, _ string) { w.drop("acme.lic", read(w.T, w.path("keys/k1.pub"))) },
		[]string{"it is a public key, not a licence", "name it under license.trust; the licence is another file"},
		instead("acme.lic")},
	{"a private key", func(w *ward, _ string) { w.drop("acme.key", read(w.T, w.path("keys/k1.key"))) },
		[]string{"it is a private key", "take it away from here at once and keep it secret", "tell the vendor"},
		instead("acme.key")},
	{"another product's", func(w *ward, _ string) { w.sign("acme.lic", "--product", "other") },
		[]string{"PRODUCT_MISMATCH", `for product "other", and this agent serves acme`,
			"install it where that product runs"},
		instead("acme.lic")},
	{"another host's", func(w *ward, _ string) {
		other := regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllStringFunc(read(w.T, w.request()), func(v string) string {
			return strings.Repeat("0", 32) + v[32:]
		})
		w.sign("acme.lic", "--bind", w.write("other.json", other), "--strategy", "all")
	}, []string{"FINGERPRINT_MISMATCH", "usher fingerprint --request"}, func(w *ward, _ string) {
		w.must(os.Remove(w.path("l/acme.lic"))) // the vendor answers to the request
		w.sign("acme.lic", "--bind", w.request(), "--strategy", "any")
	}},
	{"expired", func(w *ward, _ string) { w.sign("acme.lic", "--expires", "2026-01-01") },
		[]string{"EXPIRED", "it expired at 2026-01-02", "install a renewed one"}, instead("acme.lic")},
	{"the same twice", func(w *ward, good string) {
		w.drop("acme.lic", good)
		w.drop("acme (1).lic", good)
	}, []string{"Licence valid", "is a copy of it", "one of the two may be removed"}, func(w *ward, _ string) {
		w.must(os.Remove(w.path("l/acme (1).lic")))
	}},
	{"with the end .txt", func(w *ward, good string) { w.drop("acme.lic.txt", good) }, nil, nil},
	{"a folder", func(w *ward, good string) {
		w.must(os.Mkdir(w.path("l/acme"), 0o755))
		w.drop("acme/acme.lic", good)
	}, []string{"acme is a folder, not a file", "move its documents one level up"}, func(w *ward, _ string) {
		w.must(os.Rename(w.path("l/acme/acme.lic"), w.path("l/acme.lic")))
		w.must(os.Remove(w.path("l/acme")))
	}},
	{"a link that leads outside", func(w *ward, good string) {
		w.must(os.Symlink(w.write("good.lic", good), w.path("l/acme.lic")))
	}, []string{"which is outside the licence folder", "put the document itself into the folder"},
		func(w *ward, good string) {
			w.must(os.Remove(w.path("l/acme.lic")))
			w.drop("acme.lic", good)
		}},
}

// status waits until `usher status` says all of some words.
func (w *ward) status(words ...string) {
	w.Helper()
	var out string
	for begin, rest := time.Now(), pause(); time.Since(begin) < time.Minute; rest() {
		var b, errs strings.Builder
		run([]string{"status", "--socket", w.socket}, strings.NewReader(""), &b, &errs)
		out = b.String() + errs.String()
		missing := false
		for _, s := range words {
			missing = missing || !strings.Contains(strings.Join(strings.Fields(out), " "), s)
		}
		if !missing {
			return
		}
	}
	w.Fatalf("status never says %q:\n%s", words, out)
}

// Whatever somebody drops into the folder in a licence's place is either read as the licence that it holds, or named
// with a remedy that cures it: the test does what the message says, and the licence is valid. The message of a file
// that root alone may read is the doctor's test's, for it takes an agent of another user.
func TestWrongFiles(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.sign("good.lic")
	good := read(t, w.path("l/good.lic"))
	w.must(os.Remove(w.path("l/good.lic")))
	w.run()
	for _, f := range wrongFiles {
		t.Run(f.name, func(t *testing.T) {
			w := &ward{T: t, dir: w.dir, bin: w.bin, socket: w.socket, state: w.state}
			left, err := os.ReadDir(w.path("l"))
			w.must(err)
			for _, e := range left {
				w.must(os.RemoveAll(w.path("l/" + e.Name())))
			}
			w.status("NOT_FOUND")
			f.put(w, good)
			if f.says != nil {
				w.status(f.says...)
				f.mend(w, good)
			}
			w.status("Licence valid (VALID)")
		})
	}
}
