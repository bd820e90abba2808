package dialect

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// desk is the agent as one dialect sees it: a [plugin.Desk].
type desk struct {
	c      *Config
	system string
	label  string // of a [plugin.Labeller]; empty: it is none
	store  *store
	key    ed25519.PrivateKey
	log    *slog.Logger
}

func (d *desk) Caller(r *http.Request) (enforcer.Caller, bool) {
	c := api.DialectCallOf(r.Context())
	if c == nil {
		return enforcer.Caller{}, false
	}
	return c.Caller, c.Vouched
}

func (d *desk) CallerBy(r *http.Request, credential string) enforcer.Caller {
	c := api.DialectCallOf(r.Context())
	if c != nil && c.Kernel && c.Caller.UID != enforcer.Nobody {
		return c.Caller
	}
	if c != nil {
		c.Known()
	}
	return byCredential(credentialName(d.c.Key, d.system, credential))
}

func (d *desk) Credentials(r *http.Request) ([]byte, error) {
	if c := api.DialectCallOf(r.Context()); c != nil && c.Credentials != nil {
		return c.Credentials()
	}
	return nil, nil
}

func (d *desk) Now() time.Time               { return d.c.Slots.Now() }
func (d *desk) Verdict() *enforcer.Verdict   { return d.c.Slots.Verdict() }
func (d *desk) Pools() []enforcer.PoolStatus { return d.c.Slots.Pools() }
func (d *desk) Key() ed25519.PrivateKey      { return slices.Clone(d.key) }
func (d *desk) Log() *slog.Logger            { return d.log }
func (d *desk) Store() plugin.Store          { return d.store }
func (d *desk) Document(name string) []byte  { return d.c.Documents.Document(name) }
func (d *desk) data(b []byte) *enforcer.Data {
	return &enforcer.Data{Owner: d.system, Bytes: append([]byte{}, b...)}
}
func (d *desk) owns(l *enforcer.Lease) bool { return l.Data != nil && l.Data.Owner == d.system }

func (d *desk) Would(document []byte, name string) enforcer.Judged {
	return d.c.Documents.Would(document, name)
}

func (d *desk) Install(ctx context.Context, c enforcer.Caller, document []byte, name string) *enforcer.Denial {
	if denial := installerOnly(ctx, c, "installing a document"); denial != nil {
		return denial
	}
	_, denial := d.c.Documents.Install(ctx, document, name, false)
	return denial
}

func (d *desk) Remove(ctx context.Context, c enforcer.Caller, name string) *enforcer.Denial {
	if denial := installerOnly(ctx, c, "removing a document"); denial != nil {
		return denial
	}
	return d.c.Documents.Remove(ctx, name)
}

func (d *desk) Confirm(ctx context.Context, document []byte) error {
	return d.c.Documents.Confirm(ctx, document)
}

func (d *desk) MayInstall(r *http.Request, c enforcer.Caller) bool { return mayInstall(r.Context(), c) }

func mayInstall(ctx context.Context, c enforcer.Caller) bool {
	call := api.DialectCallOf(ctx)
	return c.Admin || call != nil && call.MayInstall != nil && call.MayInstall(c)
}

func installerOnly(ctx context.Context, c enforcer.Caller, what string) *enforcer.Denial {
	if mayInstall(ctx, c) {
		return nil
	}
	return &enforcer.Denial{Code: enforcer.Forbidden, Detail: what + " is for admins",
		Hint: "ask on a Unix socket as root, as the agent's user, or by a rule under socket.admin; over TCP, name " +
			"the credential under the listener's installers"}
}

func (d *desk) Host(ctx context.Context, product string) plugin.Host {
	name, _ := os.Hostname() // empty when there is none
	f := d.c.Fingerprint(ctx, product)
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

func (d *desk) Acquire(ctx context.Context, r *enforcer.Acquire,
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
	g, denial := d.c.Slots.Acquire(ctx, &q)
	if denial == nil && g.Late != nil {
		denial = g.Late(false) // a look before anything is built on the grant
	}
	if denial != nil {
		return nil, false, inNoAPI(denial)
	}
	l := g.Lease
	if call != nil && g.Late != nil {
		call.Granted(g.Late)
	}
	if ctx.Done() == nil || l.Token != nil || l.Lifetime == enforcer.LifetimeDraw {
		return l, g.Replayed, nil
	}
	undo := func() {
		d.c.Slots.Do(&enforcer.Release{ID: l.ID, Caller: q.Caller, Owner: d.system,
			Cause: enforcer.CauseUndelivered})
	}
	if ctx.Err() != nil { // the grant came in the last moment, when the caller had gone
		undo()
		return nil, false, &enforcer.Denial{Code: enforcer.NoSlots, Detail: "the caller stopped waiting"}
	}
	if call != nil {
		call.IfLost(undo)
	}
	return l, g.Replayed, nil
}

// inNoAPI returns a denial whose hint does not name the field by which callers of the local API wait: those of a
// dialect know no such field.
func inNoAPI(is *enforcer.Denial) *enforcer.Denial {
	said := *is
	said.Hint = strings.ReplaceAll(is.Hint, " (wait_seconds)", "")
	return &said
}

func (d *desk) Late(r *http.Request) *enforcer.Denial {
	if c := api.DialectCallOf(r.Context()); c != nil {
		return c.Late()
	}
	return nil
}

func (d *desk) Renew(r *enforcer.Renew) (*enforcer.Lease, *enforcer.Denial) {
	q := *r
	q.Owner = d.system
	g, denial := d.c.Slots.Renew(&q)
	if denial == nil && g.Late != nil {
		denial = g.Late(false)
	}
	return g.Lease, denial
}

func (d *desk) Release(r *enforcer.Release) *enforcer.Denial {
	q := *r
	q.Owner, q.Cause = d.system, ""
	dec := d.c.Slots.Do(&q)
	if q.Force && dec.Denial == nil && dec.Lease != nil {
		d.c.Forced(q.Caller, dec.Lease)
	}
	return dec.Denial
}

func (d *desk) Lease(id enforcer.LeaseID, c enforcer.Caller) (*enforcer.Lease, bool) {
	l, ok := d.c.Slots.Lease(id)
	if !ok || !d.owns(l) || !l.Holder.MayAct(c) {
		return nil, false
	}
	return l, true
}

func (d *desk) Leases(c enforcer.Caller) []*enforcer.Lease {
	all := d.c.Slots.OwnedBy(d.system, c)
	slices.SortFunc(all, func(a, b *enforcer.Lease) int {
		return cmp.Or(a.AcquiredAt.Compare(b.AcquiredAt), slices.Compare(a.ID[:], b.ID[:]))
	})
	return all
}

func (d *desk) Bearers() (out []plugin.Bearer) {
	if d.label == "" {
		return nil
	}
	for _, l := range d.c.Slots.Labelled(d.label) {
		out = append(out, plugin.Bearer{Labels: l.Holder.Labels, Items: l.Items, AcquiredAt: l.AcquiredAt})
	}
	return out
}

func (d *desk) SetData(id enforcer.LeaseID, c enforcer.Caller, data []byte) *enforcer.Denial {
	return d.c.Slots.Do(&enforcer.SetData{ID: id, Caller: c, Data: d.data(data)}).Denial
}

func (d *desk) Adjust(meter string, by int64, c enforcer.Caller) (int64, *enforcer.Denial) {
	drawn, denial := d.c.Slots.Shift(&enforcer.Shift{Pool: meter, By: by, Caller: c})
	if denial == nil && by != 0 {
		d.c.Adjusted(c, Adjustment{Dialect: d.system, Meter: meter, By: by, Drawn: drawn})
	}
	return drawn, denial
}
