package registry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin/usher/online"
)

// word is the server's message to itself: it travels with each answer, comes back with the agent's next request, and
// says what the agent was answered. It is the second part of a chain, sealed with the store's secret, and opaque to
// agents.
type word struct {
	Host  string `json:"h"`           // which record of the host; see Activation.ID
	Pools bool   `json:"p,omitempty"` // of the calls for blocks, which are counted apart
	Draws bool   `json:"d,omitempty"` // of those for draws, likewise
	Count int64  `json:"n"`           // how often the host was answered
	At    int64  `json:"t"`           // when, by the server's clock
	// Broker is the server's name in its fleet; empty: it has its slots from none.
	Broker string `json:"f,omitempty"`
	// Labels are those that are bound to the host's key.
	Labels map[string]string `json:"l,omitempty"`
	// Had is the agent's blocks by their ids, as the answers that it has heard said.
	Had map[string]Had `json:"b,omitempty"`
}

// Had is a block as an agent has heard of it.
type Had struct {
	Pool  string `json:"p"`
	Slots int64  `json:"n"`
}

// maxWord is the size above which the oldest blocks are left out of a word, in bytes: an agent keeps 16 KiB of state.
const maxWord = 8 << 10

// seal returns the second part of a chain.
func (g *Registry) seal(w *word, license, agent, chain string) string {
	b, err := json.Marshal(w)
	for err == nil && len(b) > maxWord {
		delete(w.Had, slices.Sorted(maps.Keys(w.Had))[0]) // what is not in it is not taken over, no more
		b, err = json.Marshal(w)
	}
	if err != nil {
		return ""
	}
	text := base64.RawURLEncoding.EncodeToString(b)
	return "." + text + "." + base64.RawURLEncoding.EncodeToString(g.mac(text, license, agent, chain))
}

// unseal returns the server's own word from a request; nil: there is none, or it is another's.
func (g *Registry) unseal(sealed, license, agent, chain string) *word {
	for i := range sealed {
		if sealed[i] != '.' {
			continue
		}
		mac, err := base64.RawURLEncoding.DecodeString(sealed[i+1:])
		if err != nil || !hmac.Equal(mac, g.mac(sealed[:i], license, agent, chain)) {
			return nil
		}
		b, err := base64.RawURLEncoding.DecodeString(sealed[:i])
		w := &word{}
		if err != nil || json.Unmarshal(b, w) != nil {
			return nil
		}
		return w
	}
	return nil
}

func (g *Registry) mac(text, license, agent, chain string) []byte {
	h := hmac.New(sha256.New, g.secret)
	for _, s := range []string{"usher-word", license, agent, chain, text} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return h.Sum(nil)
}

// later reports whether the server has answered a host after this record of it was made: then the store is an old copy.
func (w *word) later(a *Activation, call string) bool {
	return w != nil && w.Host != "" && w.Host == a.ID && w.Pools == isBlockCall(call) &&
		w.Draws == (call == online.CallDraw) &&
		w.Count > a.sequence(call).Count
}

// had returns the blocks that an agent has shown; none where it has shown no word.
func (w *word) had() map[string]Had {
	if w == nil {
		return nil
	}
	return w.Had
}

// hear returns the blocks of the word that follows the one that the agent has shown. The block of the answer is as the
// answer says, the others are as the agent has heard, and blocks that nobody has any more are left out.
func (w *word) hear(x *online.BlockReply, pools Pools) map[string]Had {
	out := map[string]Had{}
	for id, b := range w.had() {
		if pools != nil && pools.Knows(id) {
			out[id] = b
		}
	}
	if x != nil {
		out[x.ID] = Had{x.Pool, x.Slots}
	}
	return out
}

// hear splits what a request shows into the chain that the store knows and the server's own word behind it.
func (q *question) hear(g *Registry) {
	var sealed string
	q.Chain, sealed, _ = strings.Cut(q.Chain, ".")
	q.word = g.unseal(sealed, q.License, q.agent, q.Chain)
}

// forgotten reports whether a request for more time comes from a host that the server's own word admits, and that the
// store lacks because it may be an old copy.
func (q *question) forgotten(l *Licence) bool {
	return l != nil && q.Call == online.CallExtend && q.settling && q.word != nil
}

// foundOld notes that the store is older than an answer to a host.
func (g *Registry) foundOld(q *question) {
	if !g.aged.Swap(true) {
		g.cfg.Log.Error("the store is an old copy: a host was answered later than it says", "licence", q.License,
			"agent_key", q.agent,
			"hint", "suspensions and revocations since then are lost: repeat them")
	}
	if g.cfg.Pools != nil {
		g.cfg.Pools.Aged(time.Unix(q.word.At, 0))
	}
}
