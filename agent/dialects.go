package agent

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// dialectDesk is the agent as one dialect sees it: a [plugin.Desk].
type dialectDesk struct {
	agent  *Agent
	system string
	store  *dialectStore
	key    ed25519.PrivateKey
	log    *slog.Logger
}

// dialectKey derives the key of a dialect's answers from the agent's (RFC 5869), so that what one signs is never taken
// for what the other does.
func dialectKey(agent ed25519.PrivateKey, system string) (ed25519.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, agent.Seed(), nil, "usher dialect key/1 "+system, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("key of the %s dialect: %w", system, err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// dialectPublic is the public half of a dialect's key, and its RFC 7638 thumbprint.
type dialectPublic struct {
	key ed25519.PublicKey
	id  string
}

func publicOf(key ed25519.PrivateKey) dialectPublic {
	pub := key.Public().(ed25519.PublicKey)
	return dialectPublic{pub, identity.Thumbprint(pub)}
}

// credentialName names a credential without telling it: by a hash that only this agent can make.
func (a *Agent) credentialName(kind, credential string) string {
	key, err := hkdf.Key(sha256.New, a.key.Seed(), nil, "usher credential names/1", sha256.Size)
	if err != nil { // only of a hash that FIPS 140 does not allow, and this one it does
		panic(err)
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(kind + "\x00" + credential))
	return kind + ":" + hex.EncodeToString(m.Sum(nil)[:12])
}

// byCredential is who is known by a credential alone.
func byCredential(name string) enforcer.Caller {
	return enforcer.Caller{UID: api.Nobody, GID: api.Nobody, Credential: name}
}

func (d *dialectDesk) Caller(r *http.Request) (enforcer.Caller, bool) {
	c := api.DialectCallOf(r.Context())
	if c == nil {
		return enforcer.Caller{}, false
	}
	return c.Caller, c.Vouched
}

func (d *dialectDesk) CallerBy(r *http.Request, credential string) enforcer.Caller {
	c := api.DialectCallOf(r.Context())
	if c != nil && c.Kernel && c.Caller.UID != enforcer.Nobody {
		return c.Caller
	}
	if c != nil {
		c.Known()
	}
	return byCredential(d.agent.credentialName(d.system, credential))
}

func (d *dialectDesk) Credentials(r *http.Request) ([]byte, error) {
	if c := api.DialectCallOf(r.Context()); c != nil && c.Credentials != nil {
		return c.Credentials()
	}
	return nil, nil
}

func (d *dialectDesk) Now() time.Time               { return d.agent.desk.time() }
func (d *dialectDesk) Verdict() *enforcer.Verdict   { return d.agent.desk.Verdict() }
func (d *dialectDesk) Pools() []enforcer.PoolStatus { return d.agent.desk.Pools() }
func (d *dialectDesk) Key() ed25519.PrivateKey      { return slices.Clone(d.key) }
func (d *dialectDesk) Log() *slog.Logger            { return d.log }
func (d *dialectDesk) Store() plugin.Store          { return d.store }
func (d *dialectDesk) Document(name string) []byte  { return d.agent.documentOf(name) }
func (d *dialectDesk) data(b []byte) *enforcer.Data {
	return &enforcer.Data{Owner: d.system, Bytes: append([]byte{}, b...)}
}
func (d *dialectDesk) owns(l *enforcer.Lease) bool { return l.Data != nil && l.Data.Owner == d.system }

// documentOf returns a document's bytes, which the caller may keep.
func (a *Agent) documentOf(name string) []byte {
	a.court.mu.Lock()
	defer a.court.mu.Unlock()
	return slices.Clone(a.court.document(name))
}

func (d *dialectDesk) Install(ctx context.Context, c enforcer.Caller, document []byte, name string) *enforcer.Denial {
	if denial := adminOnly(c, "installing a document"); denial != nil {
		return denial
	}
	_, denial := d.agent.Install(ctx, document, name, false)
	return denial
}

func (d *dialectDesk) Remove(ctx context.Context, c enforcer.Caller, name string) *enforcer.Denial {
	if denial := adminOnly(c, "removing a document"); denial != nil {
		return denial
	}
	return d.agent.Remove(ctx, name)
}

func adminOnly(c enforcer.Caller, what string) *enforcer.Denial {
	if c.Admin {
		return nil
	}
	return &enforcer.Denial{Code: enforcer.Forbidden, Detail: what + " is for admins",
		Hint: "ask on a Unix socket as root, as the agent's user, or by a rule under socket.admin"}
}

func (d *dialectDesk) Host(ctx context.Context, product string) plugin.Host {
	name, _ := os.Hostname() // empty when there is none
	f := front{d.agent}.Fingerprint(ctx, product)
	out := plugin.Host{Name: name, Product: f.Product, Components: map[string][]string{}, AgentKey: f.AgentKey,
		Cores: plugin.Cores{Physical: int64(f.Cores.Physical), Logical: int64(f.Cores.Logical),
			Effective: f.Cores.Effective}}
	for _, c := range f.Components {
		if len(c.Values) > 0 {
			out.Components[c.Name] = slices.Clone(c.Values)
		}
	}
	return out
}

func (d *dialectDesk) Acquire(ctx context.Context, r *enforcer.Acquire,
	data []byte) (*enforcer.Lease, bool, *enforcer.Denial) {
	if r.Lifetime == enforcer.LifetimeProcess || r.Lifetime == enforcer.LifetimeConnection {
		return nil, false, &enforcer.Denial{Code: enforcer.BadRequest, Field: "lifetime",
			Detail: fmt.Sprintf(
				"lifetime %s is for sessions: a dialect's request says nothing of how long its caller lives",
				r.Lifetime)}
	}
	q := *r
	q.Data = d.data(data)
	call := api.DialectCallOf(ctx)
	if call != nil && q.Wait > 0 {
		if err := call.Wait(q.Wait); err != nil {
			return nil, false, &enforcer.Denial{Code: api.Internal, Detail: "this connection cannot wait"}
		}
	}
	g, denial := d.agent.desk.Acquire(ctx, &q)
	if denial == nil && g.Late != nil {
		denial = g.Late() // before more is made of it
	}
	if denial != nil {
		return nil, false, denial
	}
	l := g.Lease
	if call != nil && g.Late != nil {
		call.Granted(g.Late)
	}
	if ctx.Done() == nil || l.Token != nil || l.Lifetime == enforcer.LifetimeDraw {
		return l, g.Replayed, nil
	}
	undo := func() {
		d.agent.desk.do(&enforcer.Release{ID: l.ID, Caller: q.Caller, Owner: d.system,
			Cause: enforcer.CauseUndelivered})
	}
	if ctx.Err() != nil { // granted in the last moment, and nobody is there to be told
		undo()
		return nil, false, &enforcer.Denial{Code: enforcer.NoSlots, Detail: "the caller stopped waiting"}
	}
	if call != nil {
		call.IfLost(undo)
	}
	return l, g.Replayed, nil
}

// Late looks at what the request was granted.
func (d *dialectDesk) Late(r *http.Request) *enforcer.Denial {
	if c := api.DialectCallOf(r.Context()); c != nil {
		return c.Late()
	}
	return nil
}

func (d *dialectDesk) Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial) {
	q := *r
	q.Owner = d.system
	g, denial := d.agent.desk.Renew(&q)
	if denial == nil && g.Late != nil {
		denial = g.Late()
	}
	return g.Lease, denial
}

func (d *dialectDesk) Release(r *enforcer.Release) *enforcer.Denial {
	q := *r
	q.Owner, q.Cause = d.system, ""
	return front{d.agent}.Release(&q)
}

func (d *dialectDesk) Lease(id enforcer.LeaseID, c enforcer.Caller) (*enforcer.Lease, bool) {
	l, ok := d.agent.desk.Lease(id)
	if !ok || !d.owns(l) || !l.Holder.MayAct(c) {
		return nil, false
	}
	return l, true
}

func (d *dialectDesk) Leases(c enforcer.Caller) []*enforcer.Lease {
	all := d.agent.desk.ownedBy(d.system, c)
	slices.SortFunc(all, func(a, b *enforcer.Lease) int {
		return cmp.Or(a.AcquiredAt.Compare(b.AcquiredAt), slices.Compare(a.ID[:], b.ID[:]))
	})
	return all
}

func (d *dialectDesk) SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial {
	return d.agent.desk.do(&enforcer.SetData{ID: id, Caller: c, Data: d.data(data)}).Denial
}

func (d *dialectDesk) Adjust(meter string, by int64, c enforcer.Caller) (int64, *enforcer.Denial) {
	drawn, denial := d.agent.desk.shift(&enforcer.Shift{Pool: meter, By: by, Caller: c})
	if denial == nil && by != 0 {
		d.agent.audit.NoteBy(c, eventlog.Event{Type: audit.MeterAdjusted, Subject: meter,
			Fields: map[string]string{"by": strconv.FormatInt(by, 10), "drawn": strconv.FormatInt(drawn, 10),
				"dialect": d.system}})
	}
	return drawn, denial
}

// ownedBy returns the leases of a caller on which owner keeps data.
func (d *desk) ownedBy(owner string, c enforcer.Caller) (out []*enforcer.Lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(d.licenceTime())
	for id := range d.owned[owner] {
		if l, ok := d.core.Lease(id); ok && l.Holder.SameUser(c) {
			out = append(out, l)
		}
	}
	return out
}

// shift adjusts a meter and returns what has been drawn from it then.
func (d *desk) shift(r *enforcer.Shift) (int64, *enforcer.Denial) {
	out := d.decide(r)
	if dec := d.await(out); dec.Denial != nil {
		return 0, dec.Denial
	}
	return out.Events[0].Draws[0].Drawn, nil
}
