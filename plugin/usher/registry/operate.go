package registry

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/plugin/usher"
)

// Listed is a licence and its hosts.
type Listed struct {
	Licence
	Hosts []Activation `json:"hosts"`
}

// List returns every licence, by its id.
func (g *Registry) List() (out []Listed, err error) {
	err = g.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(licences).ForEach(func(_, v []byte) error {
			var l Listed
			if err := json.Unmarshal(v, &l.Licence); err != nil {
				return err
			}
			l.Hosts = hostsOf(tx.Bucket(activations), l.ID)
			out = append(out, l)
			return nil
		})
	})
	return out, err
}

// record makes the record of a document that verifies.
func (g *Registry) record(document []byte, machines int64, now time.Time) (*Licence, error) {
	l, p := usher.Format{}.Verify(document, g.cfg.Anchors)
	if p != nil {
		return nil, fmt.Errorf("%w (%s): %s", ErrRefused, p.Code, p.Reason)
	}
	if g.cfg.Site && l.SiteServer != g.own {
		return nil, g.notOurs(l.ID)
	}
	return &Licence{ID: l.ID, Product: l.Product, Licensee: l.Licensee, Document: string(document), State: StateActive,
		Machines: machines, Added: now}, nil
}

// AnyNumber is a number of machines without a limit; zero states none.
const AnyNumber = -1

// kept returns how a number of machines is kept: zero is any number.
func kept(machines int64) int64 { return max(0, machines) }

// Add takes a document into the store: a new licence, or a later issue of one that is there. It may be activated on as
// many machines; zero: on as many as before, or where it is new, as Config says.
func (g *Registry) Add(document []byte, machines int64) (*Licence, error) {
	l, err := g.record(document, kept(cmp.Or(machines, g.cfg.Machines)), g.cfg.Now())
	if err != nil {
		return nil, err
	}
	return l, g.db.Update(func(tx *bbolt.Tx) error {
		was, err := get[Licence](tx.Bucket(licences), []byte(l.ID))
		if err != nil {
			return err
		}
		if was != nil {
			if machines == 0 {
				l.Machines = was.Machines
			}
			l.State, l.Reason, l.Added = was.State, was.Reason, was.Added
			if older(document, []byte(was.Document)) {
				return fmt.Errorf("licence %s: a later issue of it is here already", l.ID)
			}
		}
		return put(tx.Bucket(licences), []byte(l.ID), l)
	})
}

// Admit is Add for a document that lies in a folder: one that is no later than the known issue changes nothing.
func (g *Registry) Admit(document []byte) (*Licence, error) {
	l, err := g.record(document, kept(g.cfg.Machines), g.cfg.Now())
	if err != nil {
		return nil, err
	}
	return l, g.db.Update(func(tx *bbolt.Tx) error {
		was, err := get[Licence](tx.Bucket(licences), []byte(l.ID))
		if err != nil || was != nil && !older([]byte(was.Document), document) {
			return err
		}
		if was != nil {
			l.State, l.Reason, l.Added, l.Machines = was.State, was.Reason, was.Added, was.Machines
		}
		return put(tx.Bucket(licences), []byte(l.ID), l)
	})
}

func older(a, b []byte) bool {
	x, y := usher.Describe(a), usher.Describe(b)
	return x != nil && y != nil && x.Issued.Before(y.Issued)
}

// SetState suspends a licence, revokes it, or gives it back to use. A revoked licence stays revoked.
func (g *Registry) SetState(id, state, reason string) (*Licence, error) {
	return g.change(id, func(l *Licence) error {
		if l.State == StateRevoked && state != StateRevoked {
			return fmt.Errorf("licence %s is revoked, and a revocation is for good; issue another", id)
		}
		l.State, l.Reason = state, reason
		return nil
	})
}

// SetMachines says on how many hosts a licence may be activated: a number of at least 1, or AnyNumber.
func (g *Registry) SetMachines(id string, machines int64) (*Licence, error) {
	if machines < 1 && machines != AnyNumber {
		return nil, fmt.Errorf("licence %s: it may be activated on at least 1 host, or on any number, not on %d", id,
			machines)
	}
	machines = kept(machines)
	return g.change(id, func(l *Licence) error { l.Machines = machines; return nil })
}

// Renew issues a licence again with another expiry; its hosts get it at their next check-in.
func (g *Registry) Renew(id string, expires time.Time) (*Licence, error) {
	return g.change(id, func(l *Licence) error {
		claims, err := g.cfg.Signer.Claims([]byte(l.Document))
		if err != nil {
			return err
		}
		// Later than the issue that it replaces, even within the same second.
		claims.Issued = max(g.cfg.Now().Unix(), claims.Issued+1)
		if !expires.IsZero() && expires.Unix() <= claims.Issued {
			return fmt.Errorf("licence %s: its new end, %s, has passed; give a later one", id,
				expires.UTC().Format(time.RFC3339))
		}
		claims.Expires = usher.DateOf(expires)
		doc, err := g.cfg.Signer.Sign(claims)
		if err != nil {
			return err
		}
		l.Document = string(doc)
		return nil
	})
}

func (g *Registry) change(id string, f func(*Licence) error) (l *Licence, err error) {
	err = g.db.Update(func(tx *bbolt.Tx) error {
		if l, err = get[Licence](tx.Bucket(licences), []byte(id)); err != nil {
			return err
		}
		if l == nil {
			return fmt.Errorf("licence %s: %w; `usher upstream list` shows what there is", id, ErrUnknown)
		}
		if err := f(l); err != nil {
			return err
		}
		return put(tx.Bucket(licences), []byte(id), l)
	})
	return l, err
}

// Forget gives up a host's place and forgets the host: one that is gone, or one that is to begin again. agent is the
// beginning of its key's thumbprint. No old request of the host takes the place again.
func (g *Registry) Forget(id, agent string) (n int, err error) {
	return g.each(id, agent, func(tx *bbolt.Tx, a *Activation) error {
		return release(tx, &Activation{License: a.License, AgentKey: a.AgentKey,
			Sequence: Sequence{Issued: a.Issued, Nonces: a.Nonces},
			Blocks:   Sequence{Issued: a.Blocks.Issued, Nonces: a.Blocks.Nonces},
			Draws:    Sequence{Issued: a.Draws.Issued, Nonces: a.Draws.Nonces}}, g.cfg.Now(),
			usher.DefaultReactivations)
	})
}

// Forgive lets a host go on that was refused as a copy, or because it had started again too often. The host that calls
// first goes on, from its present state, and the count begins at 0. It keeps its place.
func (g *Registry) Forgive(id, agent string) (n int, err error) {
	return g.each(id, agent, func(tx *bbolt.Tx, a *Activation) error {
		a.ClonedAt, a.Again = time.Time{}, Again{Forgiven: g.cfg.Now()}
		a.Chain, a.Previous, a.Blocks.Chain, a.Blocks.Previous = "", "", "", ""
		a.Draws.Chain, a.Draws.Previous = "", ""
		return put(tx.Bucket(activations), activationKey(a.License, a.AgentKey), a)
	})
}

// each does something to the hosts of a licence whose keys' thumbprints begin so.
func (g *Registry) each(id, agent string, do func(*bbolt.Tx, *Activation) error) (n int, err error) {
	err = g.db.Update(func(tx *bbolt.Tx) error {
		for _, a := range hostsOf(tx.Bucket(activations), id) {
			if strings.HasPrefix(a.AgentKey, agent) {
				n++
				if err := do(tx, &a); err != nil {
					return err
				}
			}
		}
		if n == 0 {
			return fmt.Errorf("licence %s, host %s: %w", id, agent, ErrUnknown)
		}
		return nil
	})
	return n, err
}
