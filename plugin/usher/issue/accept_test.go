package issue_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// A receipt counts for a document of the ledger, by the agent that the licence was bound to, and is recorded once.
func TestAcceptReturn(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ledger := filepath.Join(t.TempDir(), "issued.jsonl")
	agent := func() (ed25519.PrivateKey, string) {
		pub, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		thumb, err := plugin.Thumbprint(pub)
		if err != nil {
			t.Fatal(err)
		}
		return key, thumb
	}
	key, thumb := agent()
	other, otherThumb := agent()
	bound, free := claims(), claims()
	bound.AgentKeys, free.ID = []string{thumb}, "acme-free"
	for _, c := range []string{"acme-1", "acme-free"} {
		is := bound
		if c == "acme-free" {
			is = free
		}
		if err := issue.Record(ledger, now, "2026-a", is, []byte("document "+c)); err != nil {
			t.Fatal(err)
		}
	}
	receipt := func(key ed25519.PrivateKey, id, document string, at time.Time) []byte {
		sum := sha256.Sum256([]byte("document " + document))
		s, err := online.SignReceipt(key, &online.Receipt{License: id, Product: "transcoder", Issued: at.Unix(),
			Document: hex.EncodeToString(sum[:])})
		if err != nil {
			t.Fatal(err)
		}
		return []byte(s + "\n")
	}
	accept := func(r, request []byte) (*issue.Returned, error) { return issue.AcceptReturn(r, ledger, request, now) }
	good := receipt(key, "acme-1", "acme-1", now)
	for _, test := range []struct {
		name             string
		receipt, request []byte
		want             string // of the error; empty: accepted
	}{
		{"another agent's", receipt(other, "acme-1", "acme-1", now), nil, "another host has signed it"},
		{"another agent's, with its own request", receipt(other, "acme-1", "acme-1", now),
			request("transcoder", otherThumb, ""), "is not bound to the agent of the request"},
		{"a document that was never issued", receipt(key, "acme-1", "forged", now), nil, "is not in the ledger"},
		{"an unknown licence", receipt(key, "acme-9", "acme-1", now), nil, "has no licence acme-9"},
		{"from the future", receipt(key, "acme-1", "acme-1", now.AddDate(1, 0, 0)), nil, "the host's clock was wrong"},
		{"bound to nobody", receipt(key, "acme-free", "acme-free", now), nil, "give the request"},
		{"bound to nobody, another's request", receipt(key, "acme-free", "acme-free", now),
			request("transcoder", otherThumb, ""), "another host has signed it"},
		{"no request", good, []byte("{}"), "names no agent key"},
		{"changed", []byte(strings.Replace(string(good), ".", ".e", 1)), nil, "the receipt"},
		{"not one", []byte("hello"), nil, "is not a JWS"},
		{"good", good, nil, ""},
		{"bound to nobody, with the request", receipt(key, "acme-free", "acme-free", now),
			request("transcoder", thumb, ""), ""},
	} {
		r, err := accept(test.receipt, test.request)
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %q", test.name, err, test.want)
			}
			continue
		}
		if err != nil || r.AgentKey != thumb || !r.At.Equal(now) || r.Again {
			t.Errorf("%s: %+v, %v", test.name, r, err)
		}
	}
	if r, err := accept(good, nil); err != nil || !r.Again {
		t.Errorf("a second time: %+v, %v", r, err)
	}
	if n := strings.Count(string(readFile(t, ledger)), "\n"); n != 4 {
		t.Errorf("the ledger has %d lines, want 4", n)
	}
}
