package keygen

import "github.com/usher-agent/usher/plugin"

// Plaintext returns a document's dataset to the byte.
func Plaintext(document []byte, anchors []plugin.Anchor, s plugin.Secrets) []byte {
	d, _ := read(document, anchors, s)
	if d == nil {
		return nil
	}
	return d.data
}
