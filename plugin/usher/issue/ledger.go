package issue

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/usher-agent/usher/plugin/usher"
)

// Entry is one line of the ledger: a licence that was issued or returned.
type Entry struct {
	At       time.Time     `json:"at"`
	ID       string        `json:"id"`
	Product  string        `json:"product"`
	Licensee string        `json:"licensee,omitempty"`
	KeyID    string        `json:"kid"`
	Expires  *time.Time    `json:"expires,omitempty"` // absent: perpetual
	SHA256   string        `json:"sha256"`            // of the compact document
	Claims   *usher.Claims `json:"claims,omitempty"`  // absent: the licence was returned
	Returned *Return       `json:"returned,omitempty"`
}

// Return says that a host gave the licence back.
type Return struct {
	At       time.Time `json:"at"` // by the host's clock
	AgentKey string    `json:"agent_key"`
}

// Record appends a licence to the ledger at path, one JSON object per line, and returns when it is on disk. Write the
// document only after that: every document that is out is then in the ledger.
func Record(path string, at time.Time, keyID string, c *usher.Claims, document []byte) error {
	sum := sha256.Sum256(document)
	e := Entry{At: at.UTC(), ID: c.ID, Product: c.Product, Licensee: c.Licensee, KeyID: keyID,
		SHA256: hex.EncodeToString(sum[:]), Claims: c}
	if c.Expires != 0 {
		e.Expires = new(time.Unix(c.Expires, 0).UTC())
	}
	if err := appendLedger(path, e); err != nil {
		return fmt.Errorf("%w; the licence has not been issued", err)
	}
	return nil
}

// appendLedger appends an entry and returns when it is on disk.
func appendLedger(path string, e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("ledger %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("ledger: %w; name another with --ledger", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("ledger %s: %w", path, err)
	}
	return nil
}

// Unissued returns those licences of a product that the ledger at path does not have. Where the ledger cannot be read,
// it returns none: nothing is known then.
func Unissued(path, product string, ids []string) []string {
	issued, err := readLedger(path)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.ContainsFunc(issued, func(e Entry) bool { return e.ID == id && e.Product == product })
	})
}
