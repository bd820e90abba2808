package keygentest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin/keygen"
)

const instant = "2006-01-02T15:04:05.000Z"

func text(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UTC().Format(instant)
}

func related(kind, id string) object {
	return object{"data": object{"type": kind, "id": id}}
}

// licence is the licence object.
func (c *Cloud) licence(l *License) object {
	a := l.Attributes
	status := "ACTIVE"
	switch {
	case l.Banned:
		status = "BANNED"
	case a.Suspended:
		status = "SUSPENDED"
	case a.Expiry != nil && a.Expiry.Before(c.now()):
		status = "EXPIRED"
	}
	var next any
	if l.CheckInEvery > 0 && a.LastCheckIn != nil {
		next = text(new(a.LastCheckIn.Add(l.CheckInEvery)))
	}
	return object{"type": "licenses", "id": l.ID,
		"attributes": object{"name": a.Name, "key": l.Key, "expiry": text(a.Expiry), "status": status, "uses": a.Uses,
			"suspended": a.Suspended, "floating": a.Floating, "strict": a.Strict,
			"protected": true, "maxMachines": a.MaxMachines, "maxProcesses": a.MaxProcesses, "maxUsers": a.MaxUsers,
			"maxCores": a.MaxCores, "maxMemory": a.MaxMemory, "maxDisk": a.MaxDisk, "maxUses": a.MaxUses,
			"requireHeartbeat": a.RequireHeartbeat, "requireCheckIn": l.CheckInEvery > 0,
			"lastCheckIn": text(a.LastCheckIn), "nextCheckIn": next, "metadata": object{}},
		"relationships": object{"account": related("accounts", c.Account), "product": related("products", l.Product),
			"policy": related("policies", "policy-of-"+l.ID)}}
}

// shape is the machine object.
func (c *Cloud) shape(m *Machine) object {
	l := c.licences[m.License]
	var last, next any
	if !m.LastHeartbeat.IsZero() {
		last, next = text(&m.LastHeartbeat), text(new(m.LastHeartbeat.Add(l.HeartbeatDuration)))
	}
	return object{"type": "machines", "id": m.ID,
		"attributes": object{"fingerprint": m.Fingerprint, "hostname": m.Hostname, "name": m.Hostname, "cores": m.Cores,
			"memory": m.Memory, "disk": m.Disk, "requireHeartbeat": l.Attributes.RequireHeartbeat,
			"heartbeatStatus": c.life(m), "heartbeatDuration": l.HeartbeatDuration / time.Second, "lastHeartbeat": last,
			"nextHeartbeat": next, "maxProcesses": l.Attributes.MaxProcesses, "metadata": object{}},
		"relationships": object{"license": related("licenses", l.ID), "product": related("products", l.Product),
			"account": related("accounts", c.Account)}}
}

// validate answers a validation, by key if no id is given.
func (c *Cloud) validate(id string, body []byte) reply {
	var in struct {
		Meta struct {
			Key   string
			Nonce int64
			Scope *keygen.Scope
		}
	}
	if json.Unmarshal(body, &in) != nil {
		return failed(400, "", "Bad request", "malformed JSON")
	}
	var l *License
	for _, x := range c.licences {
		if id != "" && x.ID == id || id == "" && x.Key == in.Meta.Key {
			l = x
		}
	}
	meta := object{"ts": c.now().UTC().Format(instant), "nonce": in.Meta.Nonce}
	if l == nil {
		meta["valid"], meta["code"], meta["detail"] = false, keygen.CodeNotFound, keygen.CodeNotFound.Detail()
		return reply{200, object{"data": nil, "meta": meta}}
	}
	s := &keygen.Situation{Object: &keygen.Object{ID: l.ID, Attributes: l.Attributes, Policy: l.Policy}, Now: c.now(),
		Product: l.Product, PolicyID: "policy-of-" + l.ID, Entitlements: l.Entitlements, Versions: l.Versions}
	if l.Banned {
		s.Object.Attributes.Status = "BANNED"
	}
	for _, m := range c.machines {
		if m.License == l.ID {
			s.Machines = append(s.Machines, keygen.Machine{ID: m.ID, Fingerprint: m.Fingerprint, Life: c.life(m),
				Required: l.Attributes.RequireHeartbeat, Cores: m.Cores, Memory: m.Memory, Disk: m.Disk,
				Components: m.Components})
		}
	}
	r := keygen.Validate(s, in.Meta.Scope)
	if last := l.Attributes.LastCheckIn; l.CheckInEvery > 0 && last.Add(l.CheckInEvery).Before(c.now()) &&
		r.Code != keygen.CodeBanned && r.Code != keygen.CodeSuspended {
		r = keygen.Result{Code: keygen.CodeOverdue}
	}
	meta["valid"], meta["code"], meta["detail"] = r.Valid, r.Code, r.Code.Detail()
	return reply{200, object{"data": c.licence(l), "meta": meta}}
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// create makes a machine.
func (c *Cloud) create(l *License, body []byte) reply {
	var in struct {
		Data struct {
			Type, ID   string
			Attributes struct {
				Fingerprint, Name, Hostname, Platform string
				Cores, Memory, Disk                   int64
			}
			Relationships struct {
				License    struct{ Data struct{ Type, ID string } }
				Components struct {
					Data []struct {
						Type       string
						Attributes struct{ Name, Fingerprint string }
					}
				}
			}
		}
	}
	if json.Unmarshal(body, &in) != nil || in.Data.Type != "machines" || in.Data.Attributes.Fingerprint == "" ||
		in.Data.ID != "" && !uuid4.MatchString(in.Data.ID) ||
		len(in.Data.Relationships.Components.Data) > 20 {
		return failed(400, "", "Bad request", "a parameter is missing or cannot be")
	}
	if in.Data.Relationships.License.Data.ID != l.ID {
		return failed(422, "LICENSE_NOT_FOUND", "Unprocessable resource", "must exist")
	}
	n, cores, memory, disk := int64(0), in.Data.Attributes.Cores, in.Data.Attributes.Memory, in.Data.Attributes.Disk
	for _, m := range c.machines {
		switch {
		case m.ID == in.Data.ID:
			return failed(422, "ID_CONFLICT", "Unprocessable resource", "must not conflict with another machine")
		case m.License == l.ID && m.Fingerprint == in.Data.Attributes.Fingerprint:
			return failed(422, "FINGERPRINT_TAKEN", "Unprocessable resource", "has already been taken")
		case m.License == l.ID:
			n, cores, memory, disk = n+1, cores+m.Cores, memory+m.Memory, disk+m.Disk
		}
	}
	if max := l.Attributes.MaxMachines; max != nil && n > 0 && n+1 > *max {
		return failed(422, "MACHINE_LIMIT_EXCEEDED", "Unprocessable resource",
			"machine count has exceeded maximum allowed for license")
	}
	if max := l.Attributes.MaxCores; max != nil && cores > *max {
		return failed(422, "MACHINE_CORE_LIMIT_EXCEEDED", "Unprocessable resource",
			"machine core count has exceeded maximum allowed for license")
	}
	if max := l.Attributes.MaxMemory; max != nil && memory > *max {
		return failed(422, "MACHINE_MEMORY_LIMIT_EXCEEDED", "Unprocessable resource",
			"machine memory has exceeded maximum allowed for license")
	}
	if max := l.Attributes.MaxDisk; max != nil && disk > *max {
		return failed(422, "MACHINE_DISK_LIMIT_EXCEEDED", "Unprocessable resource",
			"machine disk has exceeded maximum allowed for license")
	}
	m := &Machine{ID: in.Data.ID, License: l.ID, Fingerprint: in.Data.Attributes.Fingerprint,
		Hostname: in.Data.Attributes.Hostname, Cores: in.Data.Attributes.Cores, Memory: in.Data.Attributes.Memory,
		Disk: in.Data.Attributes.Disk}
	for _, x := range in.Data.Relationships.Components.Data {
		m.Components = append(m.Components, x.Attributes.Fingerprint)
	}
	c.machines[m.ID] = m
	return reply{201, object{"data": c.shape(m)}}
}

// checkOut makes a machine file.
func (c *Cloud) checkOut(l *License, m *Machine, body []byte) reply {
	var in struct {
		Meta struct {
			Algorithm string
			TTL       *int64
			Include   []string
		}
	}
	if json.Unmarshal(body, &in) != nil ||
		!slices.Contains([]string{"base64+ed25519", "aes-256-gcm+ed25519"}, in.Meta.Algorithm) {
		return failed(400, "CHECKOUT_ALGORITHM_INVALID", "Bad request", "is not included in the list")
	}
	withPolicy := slices.Contains(in.Meta.Include, "license.policy")
	if withPolicy && !l.MayReadPolicy {
		return failed(400, "CHECKOUT_INCLUDE_INVALID", "Bad request", "must be a valid include")
	}
	meta := object{"issued": c.now().UTC().Format(instant), "expiry": nil, "ttl": in.Meta.TTL}
	if in.Meta.TTL != nil {
		meta["expiry"] = c.now().Add(time.Duration(*in.Meta.TTL) * time.Second).UTC().Format(instant)
	}
	included := []any{c.licence(l)}
	for _, code := range l.Entitlements {
		included = append(included,
			object{"type": "entitlements", "id": "e-" + code, "attributes": object{"code": code}})
	}
	if withPolicy {
		included = append(included, c.policy(l))
	}
	certificate := c.File("MACHINE", in.Meta.Algorithm, l.Key+m.Fingerprint,
		object{"data": c.shape(m), "included": included, "meta": meta})
	return reply{200, object{"data": object{"type": "machine-files", "id": "file",
		"attributes": object{"certificate": certificate, "algorithm": in.Meta.Algorithm, "ttl": in.Meta.TTL}}}}
}

// policy is the policy object.
func (c *Cloud) policy(l *License) object {
	return object{"type": "policies", "id": "policy-of-" + l.ID, "attributes": l.Policy}
}

// LicenseFile makes a licence file for a customer.
func (c *Cloud) LicenseFile(id, algorithm string, ttl time.Duration) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.licences[id]
	included := []any{}
	if l.MayReadPolicy {
		included = append(included, c.policy(l))
	}
	return []byte(c.File("LICENSE", algorithm, l.Key, object{"data": c.licence(l), "included": included,
		"meta": object{"issued": c.now().UTC().Format(instant), "expiry": c.now().Add(ttl).UTC().Format(instant),
			"ttl": ttl / time.Second}}))
}

// File writes a signed file; secret encrypts it if the algorithm demands that.
func (c *Cloud) File(kind, algorithm, secret string, dataset any) string {
	plain, _ := json.Marshal(dataset)
	b64 := base64.StdEncoding.EncodeToString
	enc := b64(plain)
	if strings.HasPrefix(algorithm, "aes-256-gcm+") {
		key := sha256.Sum256([]byte(secret))
		block, _ := aes.NewCipher(key[:])
		gcm, _ := cipher.NewGCM(block)
		iv := make([]byte, gcm.NonceSize())
		_, _ = rand.Read(iv)
		sealed := gcm.Seal(nil, iv, plain, nil)
		enc = b64(sealed[:len(plain)]) + "." + b64(iv) + "." + b64(sealed[len(plain):])
	}
	envelope, _ := json.Marshal(object{"enc": enc,
		"sig": b64(ed25519.Sign(c.key, []byte(strings.ToLower(kind)+"/"+enc))), "alg": algorithm})
	var out strings.Builder
	out.WriteString("-----BEGIN " + kind + " FILE-----\n")
	for line := range slices.Chunk([]byte(b64(envelope)), 60) {
		out.Write(append(slices.Clone(line), '\n'))
	}
	out.WriteString("-----END " + kind + " FILE-----\n")
	return out.String()
}
