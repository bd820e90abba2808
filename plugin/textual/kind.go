package textual

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// beginning is the line that begins a block of PEM.
var beginning = regexp.MustCompile(`-{2,}\s*BEGIN ([A-Z0-9 ]{1,40}?)\s*-{2,}`)

// magics are the beginnings of files that are handed over in a licence's place.
var magics = []struct{ magic, what, remedy string }{
	{"PK\x03\x04", "a ZIP archive", "unpack it, and take the licence file that is in it"},
	{"PK\x05\x06", "an empty ZIP archive", "ask the vendor for the licence file"},
	{"\x1f\x8b", "a gzip archive", "unpack it, and take the licence file that is in it"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, and take the licence file that is in it"},
	{"Rar!", "a RAR archive", "unpack it, and take the licence file that is in it"},
	{"%PDF", "a PDF document", "ask the vendor for the licence file itself"},
	{"\xd0\xcf\x11\xe0", "an Office document or an Outlook message", "save the attached licence file, and take that"},
	{"\x89PNG", "a picture", "ask the vendor for the licence file itself"},
	{"\xff\xd8\xff", "a picture", "ask the vendor for the licence file itself"},
	{"\x7fELF", "a program", "ask the vendor for the licence file"},
}

// Kind names what a file is that is no licence, with the remedy; empty: nothing that is known. It never quotes the
// file.
func Kind(b []byte) (what, remedy string) {
	if what, remedy := packed(b); what != "" {
		return what, remedy
	}
	s := clean(string(Decode(b)))
	head := strings.ToLower(s[:min(len(s), 4096)])
	if m := beginning.FindStringSubmatch(s); m != nil {
		switch name := m[1]; {
		case strings.Contains(name, "PRIVATE KEY"):
			return privateKey,
				"take it away from here at once and keep it secret: whoever has it can sign for its " +
					"owner; tell the vendor, who must replace it if others could read it"
		case strings.Contains(name, "PUBLIC KEY"):
			return "a public key", "name it under license.trust; the licence is another file"
		case strings.Contains(name, "CERTIFICATE"):
			return "a certificate", "ask the vendor for the licence file"
		}
	}
	trimmed := strings.TrimSpace(head)
	switch {
	case trimmed == "":
		return "empty", "copy the whole file again, as the vendor sent it"
	case strings.HasPrefix(trimmed, "<!doctype html"), strings.HasPrefix(trimmed, "<html"),
		strings.HasPrefix(trimmed, "<head"), strings.Contains(head, "<body"):
		return "a web page",
			"the download has saved a page in the licence's place, often the one to log in; download it " +
				"again while logged in"
	case strings.HasPrefix(trimmed, "<?xml"), strings.HasPrefix(trimmed, "<"):
		return "an XML document", "ask the vendor for the licence file"
	case strings.Contains(head, "\nsubject:") || strings.HasPrefix(trimmed, "subject:"),
		strings.Contains(head, "\nmime-version:"):
		return "an e-mail without a whole licence in it", "save the attached licence file, and take that"
	}
	return "", ""
}

// packed names an archive, a picture or a program by its first bytes.
func packed(b []byte) (what, remedy string) {
	for _, m := range magics {
		if bytes.HasPrefix(b, []byte(m.magic)) {
			return m.what, m.remedy
		}
	}
	return "", ""
}

// IsPacked reports whether a file is an archive, a picture or a program by its first bytes. Whatever text stands in it
// (an archive may store a licence as it is), it is no licence.
func IsPacked(b []byte) bool {
	what, _ := packed(b)
	return what != ""
}

// privateKey is what Kind calls one.
const privateKey = "a private key"

// IsPrivateKey reports whether a file holds a private key in PEM: it must not be where licences are.
func IsPrivateKey(b []byte) bool {
	what, _ := Kind(b)
	return what == privateKey
}

// Not says in one sentence what a file is in a licence's place; empty where that is not known.
func Not(b []byte) (reason, remedy string) {
	what, remedy := Kind(b)
	switch what {
	case "":
		return "", ""
	case "empty":
		return "it is empty", remedy
	}
	return fmt.Sprintf("it is %s, not a licence", what), remedy
}
