package registry

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"encoding/json"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Bounds of tokens.
const (
	MaxTokenUses = 1000
	MaxTokenTime = 400 * 24 * time.Hour
	maxNote      = 200 // bytes
)

// Token is what is kept of an enrolment token, which admits a number of keys to one licence. The token itself is not
// kept: ID is a public key derived from it, and the owner of the token signs with the private one.
type Token struct {
	ID      string    `json:"id"` // of online.TokenID
	License string    `json:"license"`
	Uses    int64     `json:"uses"`           // how many keys it admits
	Keys    []string  `json:"keys,omitempty"` // that it has admitted
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	Note    string    `json:"note,omitempty"`
	// Labels are bound to the keys that it admits; see [enforcer.SiteRule].
	Labels map[string]string `json:"labels,omitempty"`
}

// NewToken makes a token for a licence that is known here, and returns its text, which is shown once.
func (g *Registry) NewToken(license string, uses int64, lasts time.Duration, note string,
	labels map[string]string) (string, *Token, error) {
	switch err := enforcer.CheckHostLabels(labels); {
	case err != nil:
		return "", nil, err
	case uses < 1 || uses > MaxTokenUses:
		return "", nil, fmt.Errorf("a token is for 1 to %d hosts, not for %d", MaxTokenUses, uses)
	case lasts <= 0 || lasts > MaxTokenTime:
		return "", nil, fmt.Errorf("a token is good for a while, and for 400 days at most, not for %s",
			enforcer.Span(lasts))
	case len(note) > maxNote:
		return "", nil, fmt.Errorf("the note has %d bytes; give %d at most", len(note), maxNote)
	}
	text := online.NewToken()
	now := g.cfg.Now()
	t := &Token{ID: online.TokenID(text), License: license, Uses: uses, Made: now, Expires: now.Add(lasts), Note: note,
		Labels: labels}
	return text, t, g.db.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(licences).Get([]byte(license)) == nil {
			return fmt.Errorf("licence %s: %w; `usher upstream add FILE` makes it known", license, ErrUnknown)
		}
		// A token that nobody can use any more is forgotten a month later.
		for _, old := range tokensOf(tx) {
			if now.Sub(old.Expires) > 30*24*time.Hour {
				if err := tx.Bucket(enrolments).Delete([]byte(old.ID)); err != nil {
					return err
				}
			}
		}
		return put(tx.Bucket(enrolments), []byte(t.ID), t)
	})
}

// Tokens returns the tokens of a licence, or of all where none is named.
func (g *Registry) Tokens(license string) (out []Token, err error) {
	err = g.db.View(func(tx *bbolt.Tx) error {
		for _, t := range tokensOf(tx) {
			if license == "" || t.License == license {
				out = append(out, t)
			}
		}
		return nil
	})
	return out, err
}

// RevokeToken revokes the one token whose id begins so. The hosts that it has admitted stay.
func (g *Registry) RevokeToken(id string) (t *Token, err error) {
	return t, g.db.Update(func(tx *bbolt.Tx) error {
		for _, x := range tokensOf(tx) {
			if id == "" || !strings.HasPrefix(x.ID, id) {
				continue
			}
			if t != nil {
				return fmt.Errorf("token %s: several begin so; give more of it", id)
			}
			t = &x
		}
		if t == nil {
			return errors.New("there is no token " + id + "; `usher upstream token list` shows what there is")
		}
		return tx.Bucket(enrolments).Delete([]byte(t.ID))
	})
}

func tokensOf(tx *bbolt.Tx) (out []Token) {
	tx.Bucket(enrolments).ForEach(func(_, v []byte) error {
		var t Token
		if json.Unmarshal(v, &t) == nil {
			out = append(out, t)
		}
		return nil
	})
	return out
}

// tokenOf returns the token that a request proves, if it is good for the licence and the key, or why it is not.
func (g *Registry) tokenOf(tx *bbolt.Tx, q *question) (good *Token, why string, err error) {
	for _, id := range online.ProvenTokens(q.Request, q.agent) {
		t, err := get[Token](tx.Bucket(enrolments), []byte(id))
		if err != nil {
			return nil, "", err
		}
		switch {
		case t == nil || t.License != q.License:
			why = "the enrolment token is not for this licence, or was revoked"
		case !q.now.Before(t.Expires):
			why = "the enrolment token expired at " + t.Expires.UTC().Format(time.RFC3339)
		case int64(len(t.Keys)) >= t.Uses && !t.admitted(q.agent):
			why = fmt.Sprintf("the enrolment token is for %d hosts, and has admitted that many", t.Uses)
		default:
			return t, "", nil
		}
	}
	return nil, why, nil
}

func (t *Token) admitted(agent string) bool {
	for _, k := range t.Keys {
		if k == agent {
			return true
		}
	}
	return false
}
