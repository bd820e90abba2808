package issue

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Returned is what a receipt proves.
type Returned struct {
	License  string    `json:"license"`
	Product  string    `json:"product"`
	Licensee string    `json:"licensee,omitempty"`
	AgentKey string    `json:"agent_key"`
	At       time.Time `json:"returned_at"`
	// Again says that the ledger has this return already.
	Again bool `json:"again"`
}

// AcceptReturn verifies a receipt that `usher license return` wrote, and records the return in the ledger. The licence
// must be bound to the receipt's agent key, either by the ledger or by the request that the licence was bound to.
func AcceptReturn(receipt []byte, ledger string, request []byte, now time.Time) (*Returned, error) {
	r, key, err := online.OpenReceipt(textual.Value(string(textual.Decode(receipt))))
	if err != nil {
		return nil, err
	}
	out := &Returned{License: r.License, Product: r.Product, AgentKey: key, At: time.Unix(r.Issued, 0).UTC()}
	if out.At.After(now.Add(24 * time.Hour)) {
		return nil, fmt.Errorf(
			"the receipt says that the licence was returned on %s,"+
				" which lies in the future: the host's clock was wrong",
			out.At.Format(time.DateOnly))
	}
	entries, err := readLedger(ledger)
	if err != nil {
		return nil, err
	}
	var issued *Entry
	for i, e := range entries {
		switch {
		case e.ID != r.License || e.Product != r.Product:
		case e.Returned != nil:
			out.Again = out.Again || e.Returned.AgentKey == key && e.Returned.At.Equal(out.At)
		case e.SHA256 == r.Document || issued == nil || issued.SHA256 != r.Document:
			issued = &entries[i]
		}
	}
	if issued == nil {
		return nil, fmt.Errorf("the ledger %s has no licence %s for product %s; name the ledger it is in with --ledger",
			ledger, r.License, r.Product)
	}
	out.Licensee = issued.Licensee
	if issued.SHA256 != r.Document {
		return nil, fmt.Errorf(
			"licence %s: the document that was returned (SHA-256 %s) is not in the ledger: it was not issued here, "+
				"or the ledger is incomplete", r.License, r.Document)
	}
	var keys []string
	if issued.Claims != nil {
		keys = issued.Claims.AgentKeys
	}
	if request != nil {
		var q struct {
			AgentKey string `json:"agent_key"`
		}
		if err := json.Unmarshal(textual.JSON(request), &q); err != nil || q.AgentKey == "" {
			return nil, errors.New(
				"the request names no agent key; it is what `usher fingerprint --request` writes while the agent runs")
		}
		if len(keys) > 0 && !slices.Contains(keys, q.AgentKey) {
			return nil, fmt.Errorf("licence %s is not bound to the agent of the request", r.License)
		}
		keys = []string{q.AgentKey}
	}
	switch {
	case len(keys) == 0:
		return nil, fmt.Errorf(
			"licence %s is bound to no agent key, so that any agent's receipt would do: give the request of the "+
				"host it was on with --request", r.License)
	case !slices.Contains(keys, key):
		return nil, fmt.Errorf(
			"the receipt is signed by agent key %s, and licence %s is bound to %s: another host has signed it", key,
			r.License, strings.Join(keys, ", "))
	}
	if out.Again {
		return out, nil
	}
	return out, appendLedger(ledger, Entry{At: now.UTC(), ID: r.License, Product: r.Product, Licensee: issued.Licensee,
		KeyID: issued.KeyID, SHA256: r.Document,
		Returned: &Return{At: out.At, AgentKey: key}})
}

// readLedger reads every line of a ledger.
func readLedger(path string) (out []Entry, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no ledger %s; name it with --ledger", path)
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 4<<20)
	for n := 1; in.Scan(); n++ {
		var e Entry
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("ledger %s, line %d: it cannot be read", path, n)
		}
		out = append(out, e)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("ledger %s: %w", path, err)
	}
	return out, nil
}
