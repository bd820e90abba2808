package files

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// A sealed file is a JSON object with one more member at its end, which says what the file is and proves it:
//
//	{"what":"the agent keeps","usher_seal":{"name":"upstream.json","generation":12,"previous":"…","boot":"…","key":"…",
//	"mac":"…"}}
//
// The MAC is HMAC-SHA-256 (RFC 2104) over the object without that member and over all that the member says, under a key
// that HKDF (RFC 5869) derives from the agent's private key: an edit, another name, another generation or another
// agent's file has another MAC.
const (
	sealMember = `"usher_seal":`
	sealLabel  = "usher state seal 1"
	macSize    = sha256.Size
)

// Key seals and proves the files of one agent.
type Key struct {
	secret []byte
	id     string
}

// NewKey derives the key from the agent's private key. id names the agent's key to people: its thumbprint.
func NewKey(private []byte, id string) (Key, error) {
	secret, err := hkdf.Key(sha256.New, private, nil, sealLabel, macSize)
	if err != nil {
		return Key{}, fmt.Errorf("the key of the state's seal: %w", err)
	}
	return Key{secret, id}, nil
}

// seal is the member.
type seal struct {
	Name       string `json:"name"`
	Generation uint64 `json:"generation"`
	Previous   []byte `json:"previous,omitempty"` // the MAC of the generation before; empty: there was none
	Boot       string `json:"boot,omitempty"`     // of a file that means nothing on another start of the host
	Key        string `json:"key"`                // whose it is, for people; the MAC proves it
	MAC        []byte `json:"mac"`
}

// mac returns the MAC of a body under the fields of a seal.
func (k Key) mac(body []byte, s seal) []byte {
	h := hmac.New(sha256.New, k.secret)
	part := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	part([]byte(s.Name))
	part(binary.BigEndian.AppendUint64(nil, s.Generation))
	part(s.Previous)
	part([]byte(s.Boot))
	part([]byte(s.Key))
	part(body)
	return h.Sum(nil)
}

// errNoObject says that only objects are sealed.
var errNoObject = errors.New("only a JSON object can be sealed")

// seal returns the bytes of a sealed file, and its MAC.
func (k Key) seal(body []byte, s seal) (file, mac []byte, err error) {
	body = bytes.TrimSpace(body)
	if len(body) < 2 || body[0] != '{' || body[len(body)-1] != '}' {
		return nil, nil, errNoObject
	}
	s.Key = k.id
	s.MAC = k.mac(body, s)
	member, err := json.Marshal(s)
	if err != nil {
		return nil, nil, err
	}
	file = append(file, body[:len(body)-1]...)
	if len(bytes.TrimSpace(file)) > 1 {
		file = append(file, ',')
	}
	file = append(append(file, sealMember...), member...)
	return append(file, "}\n"...), s.MAC, nil
}

// open takes a sealed file apart. has reports whether there is a seal at all, and proved whether it is this key's over
// these bytes.
func (k Key) open(file []byte) (body []byte, s seal, has, proved bool) {
	at := bytes.LastIndex(file, []byte(sealMember))
	if at < 0 {
		return nil, s, false, false
	}
	end := bytes.TrimSuffix(bytes.TrimSuffix(file[at+len(sealMember):], []byte("\n")), []byte("}"))
	if err := json.Unmarshal(end, &s); err != nil {
		return nil, seal{}, false, false
	}
	body = append(bytes.TrimSuffix(bytes.Clone(file[:at]), []byte(",")), '}')
	// Byte for byte as this key writes it: there is one form of it.
	again, _, err := k.seal(body, seal{Name: s.Name, Generation: s.Generation, Previous: s.Previous, Boot: s.Boot})
	return body, s, true, err == nil && hmac.Equal(file, again)
}

// digest names bytes that are not sealed.
func digest(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// HasSealed reports whether any of the named files in a folder has a seal of this key.
func (k Key) HasSealed(dir string, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		b, err := Read(filepath.Join(dir, name), MaxSize)
		if err != nil {
			return false
		}
		_, _, _, proved := k.open(b)
		return proved
	})
}
