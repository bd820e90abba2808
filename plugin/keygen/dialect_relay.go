package keygen

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// recordNode is a node of Keygen Relay's API: a slot whose claim the client repeats.
const recordNode = "node"

// nodeTTL is how long a node's claim lasts: Relay's default.
const nodeTTL = time.Minute

// relayed is an answer of Relay's API: plain JSON, with the server's clock in a header (see keygen-relay's server).
func relayed(status int, doc object) *response {
	return &response{status: status, doc: doc, media: "application/json",
		header: map[string]string{"Relay-Clock": strconv.FormatInt(time.Now().Unix(), 10)}}
}

// The texts of Relay's errors.
const (
	relayNone     = "no licenses available"
	relayConflict = "failed to claim license due to conflict"
	relayBadPool  = "invalid pool header"
	relayNoClaim  = "claim not found"
	relayFailed   = "failed to claim license"
)

// relayError is an error in Relay's words. why is the cause here, in a member that Relay does not have; it may be
// empty.
func relayError(status int, text, why string) *response {
	doc := object{"error": text}
	if why != "" {
		doc["detail"] = why
	}
	return relayed(status, doc)
}

// relayHealth answers Relay's check that the server runs.
func (x *request) relayHealth() *response {
	return &response{status: http.StatusOK, header: relayed(0, nil).header}
}

// node returns the caller's claim of a fingerprint; nil: there is none. A node has one claim, whatever the pool.
func (x *request) node(fingerprint string) *kept {
	for _, k := range x.all(recordNode) {
		if k.Fingerprint == fingerprint {
			return k
		}
	}
	return nil
}

// relayPool returns the pool of a node's claim: the one in the header Relay-Pool, or machines.
func (x *request) relayPool() string { return cmp.Or(x.r.Header.Get("Relay-Pool"), PoolMachines) }

// claimNode claims a slot for a node, or extends its claim. Unlike Relay's, the answer to a repeated claim carries the
// whole grant, so that a node recovers a lost first answer.
func (x *request) claimNode() *response {
	fingerprint, pool := x.args[0], x.relayPool()
	if fingerprint == "" || len(fingerprint) > maxFingerprint {
		return relayError(http.StatusBadRequest, relayFailed, "the fingerprint is missing or too long")
	}
	x.making.Lock()
	defer x.making.Unlock()
	k := x.node(fingerprint)
	switch {
	case k != nil && k.lease.Items[0].Pool != pool:
		return relayError(http.StatusConflict, relayConflict, "the node has a claim on the pool "+
			k.lease.Items[0].Pool+"; it must release that one first")
	case k == nil && !x.hasPool(pool):
		return relayError(http.StatusBadRequest, relayBadPool, "the license has no pool "+plugin.Short(pool))
	}
	grant, why := x.grant()
	status := http.StatusCreated
	switch {
	case k != nil:
		_, _ = x.ping(k) // a node is never dead while its claim stands
		status = http.StatusAccepted
	case why != "":
		return relayError(http.StatusGone, relayNone, why)
	default:
		var a *response
		if k, a = x.newNode(fingerprint, pool); a != nil {
			return a
		}
	}
	if grant == nil {
		grant = object{}
	}
	grant["expires_in"], grant["expires_at"] = int64(nodeTTL/time.Second), k.lease.ExpiresAt.Unix()
	return relayed(status, grant)
}

// hasPool reports whether the licence has a pool. Where the verdict has none at all, because no licence is good, the
// claim itself is refused.
func (x *request) hasPool(pool string) bool {
	_, known := x.about.verdict.Pools[pool]
	return known || !x.about.verdict.Good()
}

// newNode takes a slot for a node.
func (x *request) newNode(fingerprint, pool string) (*kept, *response) {
	rec, err := json.Marshal(&record{Kind: recordNode, Fingerprint: fingerprint,
		Interval: int64(nodeTTL / time.Second)})
	if err != nil {
		return nil, relayError(http.StatusBadRequest, relayFailed, "the fingerprint is not UTF-8")
	}
	l, _, d := x.Acquire(x.r.Context(),
		&enforcer.Acquire{Caller: x.caller, Lifetime: enforcer.LifetimeTTL, TTL: nodeTTL, Pool: pool, N: 1}, rec)
	switch {
	case d == nil:
		return x.open(l, recordNode), nil
	case d.Code == enforcer.Storage || d.Code == enforcer.Draining:
		return nil, relayError(http.StatusServiceUnavailable, relayFailed, d.Detail)
	case d.Code == enforcer.TooLarge || d.Code == enforcer.BadRequest:
		return nil, relayError(http.StatusBadRequest, relayFailed, d.Detail)
	}
	return nil, relayError(http.StatusGone, relayNone, d.Detail)
}

// grant returns a licence file and the key that opens it; why is the reason if there is none. A node that has shown the
// licence's key, or is an admin's, gets that key. If the licence is Keygen's, it also gets the vendor's file, which the
// vendor's key verifies. Any other node gets a file that the dialect makes and signs, without secrets, and the
// licence's id to open it.
func (x *request) grant() (grant object, why string) {
	s := x.about
	if !s.judged.InForce || !s.verdict.Good() {
		return nil, cmp.Or(s.judged.Reason, x.reason())
	}
	if !x.mayKnow() && s.digest != "" {
		return x.sealedGrant(s.id)
	}
	secret := s.secret()
	if secret == "" {
		listed, _ := x.Credentials(x.r) // Credentials has logged an error
		for line := range bytes.Lines(listed) {
			if line = bytes.TrimSpace(line); s.opens(string(line)) {
				secret = string(line)
			}
		}
	}
	if secret == "" {
		return nil, "the license key is not known here; write it into the listener's credentials_file"
	}
	file := x.Document(s.judged.Document)
	if s.license.System != System || !slices.Contains([]string{string(licenseFile), string(machineFile)},
		textOf(s.license.Terms["file"])) || file == nil {
		s.key = secret
		return x.sealedGrant(secret)
	}
	return object{"license_file": base64.StdEncoding.EncodeToString(file), "license_key": secret}, ""
}

// sealedGrant returns a licence file that the dialect makes, and the secret that opens it.
func (x *request) sealedGrant(secret string) (grant object, why string) {
	text, _, err := x.sealed(&fileWanted{algorithm: "aes-256-gcm+" + algEd25519, ttl: usualTTL,
		include: []string{"entitlements"}}, licenseFile, x.licenseObject(),
		x.with([]string{"entitlements"}, "", nil), secret)
	if err != nil {
		return nil, "the license file cannot be written"
	}
	return object{"license_file": base64.StdEncoding.EncodeToString([]byte(text)), "license_key": secret}, ""
}

// releaseNode gives a node's slot back.
func (x *request) releaseNode() *response {
	k, pool := x.node(x.args[0]), x.relayPool()
	switch {
	case k == nil && !x.hasPool(pool):
		return relayError(http.StatusBadRequest, relayBadPool, "the license has no pool "+plugin.Short(pool))
	case k == nil || k.lease.Items[0].Pool != pool || x.release(k) != nil:
		return relayError(http.StatusNotFound, relayNoClaim, "")
	}
	return &response{status: http.StatusNoContent, header: relayed(0, nil).header}
}
