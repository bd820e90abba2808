// Package host measures the host: the components of its fingerprint, its cores, and whether it is virtual or a
// container.
//
// A component leaves this package only as HMAC-SHA-256 keyed by product: raw serials never leave the host, and two
// vendors cannot join theirs. A component that cannot be read is absent, with the reason. docs/fingerprint.md describes
// each. Start reading at [Measure].
package host

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	psdisk "github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/mem"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// Config says for which product to measure, and where the host's files are.
type Config struct {
	Product string // keys the HMAC
	// Root stands for / in tests. When it is empty, HOST_PROC, HOST_SYS and HOST_ETC name the host's files in a
	// container.
	Root string
	// Extra holds the components that the configuration names: cloud instance id, cluster uid. Their values are raw.
	Extra map[string]string
	// Reserved holds names that Extra cannot state, besides those of measured components: components by which licence
	// systems name a host.
	Reserved []string
	// Fingerprint is the host's name from the configuration; empty: see Report.Fingerprint.
	Fingerprint string
	// AgentKey is the thumbprint of the agent's key: it tells a host from others that nothing measured tells apart.
	// Empty: there is none.
	AgentKey string
}

// Component is one part of a fingerprint.
type Component struct {
	Name   string
	Values []string // HMAC-SHA-256, lower-case hex, sorted; none when absent
	Absent string   // why it could not be read
	Note   string   // why it identifies little
	// Configured says that the configuration states it, and that nothing was measured.
	Configured bool
}

// Report is the outcome of a measurement.
type Report struct {
	Product    string
	Components []Component // in a fixed order
	Physical   int         // cores; 0 when not known
	Logical    int
	Effective  float64 // the cores that cgroup quota, cpuset and affinity leave
	Memory     int64   // bytes; 0 when not known
	Disk       int64   // bytes of the root file system; 0 when not known
	Virtual    string  // the hypervisor; empty: none seen
	Container  string  // the container runtime; empty: none seen
	// Fingerprint is the host's name in licence systems that name a host by one text: the configuration's, or the
	// component machine-id, or where there is none the short code. Empty: nothing identifies the host.
	Fingerprint string
	agentKey    string // of Config
}

// raw is a component before it is keyed.
type raw struct {
	name   string
	values []string
	absent string
	note   string
	stated bool // by the configuration
}

// Measure measures the host. It never fails: a component that cannot be read is absent.
func Measure(ctx context.Context, c Config) Report {
	r := Report{Product: c.Product, agentKey: c.AgentKey}
	p := placesOf(c.Root)
	r.Virtual, r.Container = surroundings(ctx, p)
	parts := components(ctx, p, r.Container)
	for _, name := range slices.Sorted(maps.Keys(c.Extra)) {
		part := raw{name: name, values: []string{c.Extra[name]}, stated: true}
		if enforcer.IsMeasured(name) || slices.Contains(c.Reserved, name) {
			part.values, part.absent = nil,
				"host.components cannot state it, because it is measured; give yours another name"
		}
		parts = append(parts, part)
	}
	for _, part := range parts {
		k := Component{Name: part.name, Absent: part.absent, Note: part.note, Configured: part.stated}
		for _, v := range part.values {
			if v = normal(v); v != "" {
				k.Values = append(k.Values, keyed(c.Product, part.name, v))
			}
		}
		slices.Sort(k.Values)
		k.Values = slices.Compact(k.Values)
		if len(k.Values) == 0 {
			k.Note = ""
			if k.Absent == "" {
				k.Absent = "it is empty"
			}
		}
		r.Components = append(r.Components, k)
	}
	r.Physical, r.Logical, r.Effective = new(counter).count(ctx, p)
	r.Memory, r.Disk = room(ctx, p)
	r.Fingerprint = c.Fingerprint
	for _, k := range r.Components {
		if r.Fingerprint == "" && k.Name == "machine-id" && !k.Configured && len(k.Values) > 0 {
			r.Fingerprint = k.Values[0]
		}
	}
	if r.Fingerprint == "" {
		r.Fingerprint = r.Short()
	}
	return r
}

// room returns the bytes of memory and of the root file system.
func room(ctx context.Context, p places) (memory, disk int64) {
	if m, err := mem.VirtualMemoryWithContext(p.context(ctx)); err == nil {
		memory = int64(min(m.Total, 1<<62))
	}
	if d, err := psdisk.UsageWithContext(ctx, p.root); err == nil {
		disk = int64(min(d.Total, 1<<62))
	}
	return memory, disk
}

// normal makes spellings of one value alike.
func normal(v string) string { return strings.ToLower(strings.TrimSpace(strings.Trim(v, "\x00"))) }

// keyed returns HMAC-SHA-256(product, "usher-fingerprint/1" NUL name NUL value) in hex.
func keyed(product, name, value string) string {
	m := hmac.New(sha256.New, padded(product))
	m.Write([]byte("usher-fingerprint/1\x00" + name + "\x00" + value))
	return hex.EncodeToString(m.Sum(nil))
}

// padded returns a name as a key of HMAC-SHA-256. HMAC itself appends the zeros (RFC 2104 §2), so that they change no
// value. The name is no secret: it keeps apart what belongs to different names. GODEBUG=fips140=only takes no short
// key.
func padded(name string) []byte {
	return append([]byte(name), make([]byte, max(0, sha256.BlockSize-len(name)))...)
}

// Facts returns the report in the judge's form.
func (r Report) Facts() enforcer.Host {
	h := enforcer.Host{Components: map[string][]string{}, Configured: map[string][]string{},
		Absent: map[string]string{}, Physical: r.Physical, Logical: r.Logical, Effective: r.Effective, Memory: r.Memory,
		Disk: r.Disk}
	for _, c := range r.Components {
		switch {
		case c.Configured && len(c.Values) > 0:
			h.Configured[c.Name] = c.Values
		case c.Configured:
		case len(c.Values) > 0:
			h.Components[c.Name] = c.Values
		default:
			h.Absent[c.Name] = c.Absent
		}
	}
	return h
}

// Shape returns the report in its wire form. agentKey is the thumbprint of the agent's key, empty for none.
func (r Report) Shape(agentKey string) wire.Fingerprint {
	out := wire.Fingerprint{Product: r.Product, Components: []wire.Component{}, Short: r.Short(), Virtual: r.Virtual,
		Container: r.Container, AgentKey: agentKey, Fingerprint: r.Fingerprint,
		Cores: wire.Cores{Physical: r.Physical, Logical: r.Logical, Effective: r.Effective}}
	for _, c := range r.Components {
		out.Components = append(out.Components,
			wire.Component{Name: c.Name, Values: c.Values, Absent: c.Absent, Note: c.Note, Configured: c.Configured})
	}
	return out
}

// equal reports whether two reports say the same.
func (r Report) equal(o Report) bool {
	return r.Product == o.Product && r.Physical == o.Physical && r.Logical == o.Logical && r.Effective == o.Effective &&
		r.Memory == o.Memory && r.Disk == o.Disk && r.Virtual == o.Virtual && r.Container == o.Container &&
		slices.EqualFunc(r.Components, o.Components, func(a, b Component) bool {
			return a.Name == b.Name && a.Absent == b.Absent && a.Note == b.Note && a.Configured == b.Configured &&
				slices.Equal(a.Values, b.Values)
		})
}
