package keygen

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// maxComponents is the number of components that Keygen accepts for a machine.
const maxComponents = 20

// machine returns the path of this host's machine: by its id, or else by its fingerprint.
func (s *session) machine() string {
	switch {
	case s.state.Machine != "":
		return "machines/" + url.PathEscape(s.state.Machine)
	case !strings.Contains(s.req.Fingerprint, "/"):
		return "machines/" + url.PathEscape(s.req.Fingerprint)
	default:
		return "machines/" + s.machineID()
	}
}

// machineID returns the id that this host gives its machine. A repeated try gives the same id, so a lost answer costs
// no place. Keygen accepts UUIDs of version 4 only.
func (s *session) machineID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "usher-keygen-machine\x00%s\x00%s\x00%s\x00%d", s.state.License,
		s.req.Fingerprint, s.req.AgentKey, s.state.Generation))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// component is a component of this host's machine at Keygen.
type component struct{ name, fingerprint string }

// components returns the part of the host's fingerprint that Keygen gets: one value of each component.
func (s *session) components() (out []component) {
	for _, name := range slices.Sorted(maps.Keys(s.req.Components)) {
		if values := s.req.Components[name]; len(values) > 0 && len(out) < maxComponents {
			out = append(out, component{name, values[0]})
		}
	}
	return out
}

// find learns the id of this host's machine.
func (s *session) find() *plugin.Error {
	if s.state.Machine != "" {
		return nil
	}
	a, e := s.send(http.MethodGet, s.machine(), nil)
	if e != nil {
		return e
	}
	if a.status == http.StatusNotFound {
		return s.create()
	}
	return s.adopt(a)
}

// adopt makes the machine in an answer this host's.
func (s *session) adopt(a *answer) *plugin.Error {
	if a.status != http.StatusOK && a.status != http.StatusCreated {
		return s.fault(a)
	}
	var m machine
	r, err := a.resource(&m)
	if err != nil || r.ID == "" || m.Fingerprint != s.req.Fingerprint {
		return plugin.Transiently("Keygen answered with a machine that is not this host's")
	}
	s.state.Machine = r.ID
	return nil
}

// create makes this host a machine of the licence.
func (s *session) create() *plugin.Error {
	if s.state.Machine != "" { // Keygen has it no longer
		s.state.Machine = ""
		s.state.Generation++
	}
	id := s.machineID()
	attributes := map[string]any{"fingerprint": s.req.Fingerprint, "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if s.req.Hostname != "" {
		attributes["hostname"], attributes["name"] = s.req.Hostname, s.req.Hostname
	}
	for name, n := range map[string]int64{"cores": s.req.Cores.Logical, "memory": s.req.Memory, "disk": s.req.Disk} {
		if n > 0 {
			attributes[name] = n
		}
	}
	relationships := map[string]any{"license": map[string]any{"data": map[string]any{"type": "licenses",
		"id": s.state.License}}}
	var components []any
	for _, c := range s.components() {
		components = append(components, map[string]any{"type": "components",
			"attributes": map[string]any{"name": c.name, "fingerprint": c.fingerprint}})
	}
	if len(components) > 0 {
		relationships["components"] = map[string]any{"data": components}
	}
	a, e := s.send(http.MethodPost, "machines", map[string]any{"data": map[string]any{"type": "machines", "id": id,
		"attributes": attributes, "relationships": relationships}})
	if e != nil {
		return e
	}
	if code := a.code(); code == "ID_CONFLICT" || code == "FINGERPRINT_TAKEN" {
		// The answer to an earlier try was lost, or another program made this host a machine.
		for _, path := range []string{id, s.req.Fingerprint} {
			if strings.Contains(path, "/") {
				continue
			}
			there, e := s.send(http.MethodGet, "machines/"+url.PathEscape(path), nil)
			if e != nil {
				return e
			}
			if there.status == http.StatusOK {
				return s.adopt(there)
			}
		}
	}
	return s.adopt(a)
}

// ping sends a heartbeat. If the machine was deleted meanwhile, or is dead for good, ping makes it again.
func (s *session) ping() *plugin.Error {
	for range 2 {
		a, e := s.send(http.MethodPost, s.machine()+"/actions/ping", nil)
		switch {
		case e != nil:
			return e
		case a.status == http.StatusOK:
			return s.adopt(a)
		case a.status == http.StatusNotFound:
		case a.code() == "MACHINE_HEARTBEAT_DEAD":
			dead := cmp.Or(s.state.Machine, s.machineID())
			if e := s.delete(); e != nil {
				return e
			}
			s.state.Machine = dead // so that the new one gets another id
		default:
			return s.fault(a)
		}
		if e := s.create(); e != nil {
			return e
		}
	}
	return plugin.Transiently("Keygen does not know the machine that it has just made")
}

// delete gives this host's place back. It succeeds if the host has none.
func (s *session) delete() *plugin.Error {
	a, e := s.send(http.MethodDelete, s.machine(), nil)
	switch {
	case e != nil:
		return e
	case a.status == http.StatusNoContent, a.status == http.StatusOK, a.status == http.StatusNotFound:
		s.state.Machine = ""
		return nil
	default:
		return s.fault(a)
	}
}

// checkOut brings a machine file for this host. It asks for the properties of the document at hand: its encryption,
// algorithm, time to live and included resources. If the licence may have no such file, the document at hand stays.
func (s *session) checkOut() *plugin.Error {
	encoding, alg, _ := strings.Cut(s.doc.alg, "+")
	if s.doc.kind == signedKey {
		encoding, alg = "base64", s.doc.alg
	}
	meta := map[string]any{"algorithm": encoding + "+" + alg}
	include := []string{"license", "license.entitlements"}
	if set, err := parseDataset(s.doc.data); err == nil && s.doc.kind != signedKey {
		if len(set.included("policies")) > 0 {
			include = append(include, "license.policy")
		}
		var ttl any
		if issued, expiry := timeOf(set.Meta.Issued), timeOf(set.Meta.Expiry); !expiry.IsZero() {
			ttl = max(3600, int64(expiry.Sub(issued)/time.Second))
		}
		meta["ttl"] = ttl
	}
	meta["include"] = include
	a, e := s.send(http.MethodPost, s.machine()+"/actions/check-out", map[string]any{"meta": meta})
	if e == nil && a.status == http.StatusNotFound { // another program has made this host's machine again
		s.state.Machine = ""
		if e = s.find(); e == nil {
			a, e = s.send(http.MethodPost, "machines/"+url.PathEscape(s.state.Machine)+"/actions/check-out",
				map[string]any{"meta": meta})
		}
	}
	switch {
	case e != nil:
		return e
	case a.status == http.StatusForbidden && a.code() == "", a.status == http.StatusBadRequest:
		return nil
	case a.status != http.StatusOK && a.status != http.StatusCreated:
		return s.fault(a)
	}
	var file struct {
		Certificate string `json:"certificate"`
	}
	if _, err := a.resource(&file); err != nil || file.Certificate == "" {
		return plugin.Transiently("Keygen answered a check-out without a file")
	}
	s.reply.Document = []byte(file.Certificate)
	return nil
}
