package keygen

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/plugin"
)

// dataset is the JSON:API document in a file. Members that an older API version lacks are nil.
type dataset struct {
	Data     resource   `json:"data"`
	Included []resource `json:"included"`
	Meta     struct {
		Issued *time.Time `json:"issued"`
		Expiry *time.Time `json:"expiry"`
	} `json:"meta"`
}

type resource struct {
	Type          string                  `json:"type"`
	ID            string                  `json:"id"`
	Attributes    jsontext.Value          `json:"attributes"`
	Relationships map[string]relationship `json:"relationships"`
}

type relationship struct {
	Data jsontext.Value `json:"data"`
}

// related returns the id of a to-one relationship; empty: there is none.
func (r *resource) related(name string) string {
	var one struct {
		ID string `json:"id"`
	}
	if b := r.Relationships[name].Data; len(b) == 0 || json.Unmarshal(b, &one) != nil {
		return ""
	}
	return one.ID
}

// Attributes are those attributes of a licence that are enforced. A nil limit is unlimited; a nil time is not set.
type Attributes struct {
	Name             *string    `json:"name"`
	Expiry           *time.Time `json:"expiry"`
	Status           string     `json:"status"`
	Uses             int64      `json:"uses"`
	Suspended        bool       `json:"suspended"`
	Floating         bool       `json:"floating"`
	Strict           bool       `json:"strict"`
	MaxMachines      *int64     `json:"maxMachines"`
	MaxProcesses     *int64     `json:"maxProcesses"`
	MaxUsers         *int64     `json:"maxUsers"`
	MaxCores         *int64     `json:"maxCores"`
	MaxMemory        *int64     `json:"maxMemory"` // bytes
	MaxDisk          *int64     `json:"maxDisk"`   // bytes
	MaxUses          *int64     `json:"maxUses"`
	RequireHeartbeat bool       `json:"requireHeartbeat"`
	RequireCheckIn   bool       `json:"requireCheckIn"`
	LastCheckIn      *time.Time `json:"lastCheckIn"`
	NextCheckIn      *time.Time `json:"nextCheckIn"`
	Created          *time.Time `json:"created"`
}

// machines returns the most machines of the licence; nil: any number. A node-locked licence without a limit is for one.
func (a *Attributes) machines() *int64 {
	if a.MaxMachines == nil && !a.Floating {
		return new(int64(1))
	}
	return a.MaxMachines
}

// Policy has those attributes of a policy that are enforced. A licence file includes it only where the licence may read
// its policy; otherwise Keygen's defaults hold.
type Policy struct {
	Concurrent             *bool  `json:"concurrent"` // API 1.1 and before, instead of OverageStrategy
	OverageStrategy        string `json:"overageStrategy"`
	ExpirationStrategy     string `json:"expirationStrategy"`
	MachineMatching        string `json:"machineMatchingStrategy"`
	FingerprintMatching    string `json:"fingerprintMatchingStrategy"` // API 1.3 and before, instead of MachineMatching
	ComponentMatching      string `json:"componentMatchingStrategy"`
	MachineLeasing         string `json:"machineLeasingStrategy"`
	ProcessLeasing         string `json:"processLeasingStrategy"`
	Leasing                string `json:"leasingStrategy"` // API 1.6 and before, instead of ProcessLeasing
	CheckInInterval        string `json:"checkInInterval"`
	CheckInIntervalCount   *int64 `json:"checkInIntervalCount"`
	HeartbeatDuration      *int64 `json:"heartbeatDuration"` // seconds
	HeartbeatResurrection  string `json:"heartbeatResurrectionStrategy"`
	HeartbeatCull          string `json:"heartbeatCullStrategy"`
	HeartbeatBasis         string `json:"heartbeatBasis"`
	ComponentUniqueness    string `json:"componentUniquenessStrategy"`
	RequireProductScope    bool   `json:"requireProductScope"`
	RequirePolicyScope     bool   `json:"requirePolicyScope"`
	RequireMachineScope    bool   `json:"requireMachineScope"`
	RequireFingerprint     bool   `json:"requireFingerprintScope"`
	RequireComponentsScope bool   `json:"requireComponentsScope"`
	RequireUserScope       bool   `json:"requireUserScope"`
	RequireChecksumScope   bool   `json:"requireChecksumScope"`
	RequireVersionScope    bool   `json:"requireVersionScope"`
	RequireEnvironment     bool   `json:"requireEnvironmentScope"`
}

// The strategies that are spelt more than once.
const (
	overageAlways  = "ALWAYS_ALLOW_OVERAGE"
	expiryRevoke   = "REVOKE_ACCESS"
	expiryRestrict = "RESTRICT_ACCESS"
	expiryMaintain = "MAINTAIN_ACCESS"
	expiryAllow    = "ALLOW_ACCESS"
	perMachine     = "PER_MACHINE"
	perUser        = "PER_USER"
	keepDead       = "KEEP_DEAD"
	alwaysRevive   = "ALWAYS_REVIVE"
	fromFirstPing  = "FROM_FIRST_PING"
)

// settle translates the attributes of older API versions into those of the present one.
func (p *Policy) settle() {
	if p.OverageStrategy == "" && p.Concurrent != nil && *p.Concurrent {
		p.OverageStrategy = overageAlways
	}
	if p.MachineMatching == "" {
		p.MachineMatching = p.FingerprintMatching
	}
	if p.ProcessLeasing == "" {
		p.ProcessLeasing = p.Leasing
	}
	if p.ProcessLeasing == "" {
		p.ProcessLeasing = perMachine
	}
}

// expires reports whether the licence's expiry ends its validity.
func (p *Policy) expires() bool {
	return p.ExpirationStrategy != expiryMaintain && p.ExpirationStrategy != expiryAllow
}

// machine has those attributes of a machine that are enforced.
type machine struct {
	Name              *string `json:"name"`
	Hostname          *string `json:"hostname"`
	Fingerprint       string  `json:"fingerprint"`
	RequireHeartbeat  bool    `json:"requireHeartbeat"`
	HeartbeatDuration *int64  `json:"heartbeatDuration"` // seconds
	MaxProcesses      *int64  `json:"maxProcesses"`
}

// parseDataset reads a dataset.
func parseDataset(b []byte) (*dataset, error) {
	d := &dataset{}
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("its content cannot be read: %w", plugin.JSONFault(err, "member"))
	}
	return d, nil
}

// included returns the included resources of a type.
func (d *dataset) included(kind string) (out []*resource) {
	for i := range d.Included {
		if d.Included[i].Type == kind {
			out = append(out, &d.Included[i])
		}
	}
	return out
}

// one returns an included resource by its type and id, or the only one of its type.
func (d *dataset) one(kind, id string) *resource {
	all := d.included(kind)
	for _, r := range all {
		if r.ID == id || len(all) == 1 && id == "" {
			return r
		}
	}
	return nil
}

// attributes reads a resource's attributes into to.
func (r *resource) attributes(to any) error {
	if len(r.Attributes) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Attributes, to); err != nil {
		return fmt.Errorf("the attributes of its %s cannot be read: %w", plugin.Short(r.Type),
			plugin.JSONFault(err, "member"))
	}
	return nil
}

// terms returns a whole dataset with each licence key replaced by its digest.
func terms(data []byte) (map[string]any, error) {
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil || all == nil {
		return nil, fmt.Errorf("its content is not a JSON object")
	}
	hide := func(v any) {
		r, _ := v.(map[string]any)
		a, _ := r["attributes"].(map[string]any)
		if key, ok := a["key"].(string); ok && r["type"] == "licenses" {
			a["key"] = KeyDigest(key)
		}
	}
	hide(all["data"])
	included, _ := all["included"].([]any)
	for _, r := range included {
		hide(r)
	}
	return all, nil
}

// KeyDigest returns the digest that stands for a licence key in terms. It recognises the key, and does not reveal it.
func KeyDigest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}
