package catalog

import (
	"slices"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Read returns the document as a built-in system reads it: what its way here has put around it is taken off where that
// makes it readable, and else it comes back as it is. See [textual.Readings].
func (c *Catalog) Read(document []byte) []byte {
	if f, err := c.quickly(document); err == nil {
		if _, p := f.Verify(document, nil); p == nil || p.Code != enforcer.Malformed {
			return document
		}
	}
	for reading := range textual.Readings(document) {
		if f, err := c.quickly(reading); err == nil {
			if _, p := f.Verify(reading, nil); p == nil || p.Code != enforcer.Malformed {
				return reading
			}
		}
	}
	return document
}

// doubted are the codes of documents of which another reading may be a good one. What is not believed as one system's
// may be another's within: base64 of a document is a form of its own, or a document that was encoded once too often.
var doubted = []enforcer.Code{enforcer.Malformed, enforcer.BadSignature, enforcer.UntrustedKey}

// reread looks for a reading of a document that a built-in system takes, after a problem with the document itself: one
// that is at least no longer malformed, or one that verifies where the document itself is not believed.
func (c *Catalog) reread(document []byte, was *enforcer.Problem, anchors []plugin.Anchor,
	s plugin.Secrets) (*enforcer.License, *enforcer.Problem, bool) {
	if was == nil || !slices.Contains(doubted, was.Code) || len(document) > plugin.MaxDocument {
		return nil, nil, false
	}
	var license *enforcer.License
	var problem *enforcer.Problem
	for reading := range textual.Readings(document) {
		f, err := c.quickly(reading)
		if err != nil {
			continue
		}
		l, p := verify(f, nil, reading, anchors, s)
		if p == nil {
			return l, nil, true
		}
		if problem == nil && was.Code == enforcer.Malformed && p.Code != enforcer.Malformed {
			license, problem = l, p
		}
	}
	return license, problem, problem != nil
}
