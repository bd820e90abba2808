package fleet

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Etcd is etcd as a Store, by its API v3.
type Etcd struct {
	config atomic.Pointer[clientv3.Config]

	making turn // for the making of the client, which asks etcd where there is a password
	client atomic.Pointer[clientv3.Client]
	token  atomic.Pointer[string] // that the last sign-in has brought

	reads, writes, signIns patience
}

// connected returns the client. It makes one where there is none yet.
func (e *Etcd) connected(ctx context.Context) (*clientv3.Client, error) {
	if c := e.client.Load(); c != nil {
		return c, nil
	}
	if err := e.making.take(ctx); err != nil {
		return nil, err
	}
	if c := e.client.Load(); c != nil {
		e.making.give()
		return c, nil
	}
	made := make(chan error, 1)
	go func() { // it cannot be cut off, and ends within DialTimeout
		defer e.making.give()
		for {
			config := e.config.Load()
			c, err := clientv3.New(*config)
			if err == nil {
				e.client.Store(c)
				if e.config.Load() != config && e.client.CompareAndSwap(c, nil) {
					c.Close() // of what was renewed meanwhile
					continue
				}
			}
			made <- err
			return
		}
	}()
	select {
	case err := <-made:
		if c := e.client.Load(); c != nil || err != nil {
			return c, err
		}
		return nil, errRenewed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Txn makes one transaction.
func (e *Etcd) Txn(ctx context.Context, t *Txn) (*Result, error) {
	var cmps []clientv3.Cmp
	for _, is := range t.If {
		switch {
		case is.Prefix != "":
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(is.Prefix).WithPrefix(), "<", is.Unchanged+1))
		case is.Absent:
			cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(is.Key), "=", 0))
		case is.Value != nil:
			cmps = append(cmps, clientv3.Compare(clientv3.Value(is.Key), "=", *is.Value))
		default:
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(is.Key), "=", is.Mod))
		}
	}
	then, otherwise := etcdOps(t.Then), etcdOps(t.Else)
	members, waits, settles := e.Members(), &e.reads, (func(*Result) bool)(nil)
	if t.writes() {
		waits, settles = &e.writes, func(r *Result) bool { return r.Done }
	}
	if t.Kind == KindWait {
		members = 1 // it is a help only, and one that comes late would make a ticket that nobody needs any more
	}
	res, _, err := ask(ctx, members, waits, settles, func(ctx context.Context) (*Result, error) {
		c, err := e.connected(ctx)
		if err != nil {
			return nil, err
		}
		res, err := c.Txn(counting(ctx)).If(cmps...).Then(then...).Else(otherwise...).Commit()
		if err != nil {
			return nil, err
		}
		return resultOf(t, (*etcdserverpb.TxnResponse)(res))
	})
	return res, err
}

// resultOf returns the answer to a transaction, if it is one of etcd's.
func resultOf(t *Txn, res *etcdserverpb.TxnResponse) (*Result, error) {
	if res == nil {
		return nil, errStrange
	}
	ops := t.Else
	if res.Succeeded {
		ops = t.Then
	}
	if res.Header == nil || len(res.Responses) != len(ops) || !res.Succeeded && len(t.If) == 0 {
		return nil, errStrange
	}
	out := &Result{Done: res.Succeeded, Rev: res.Header.Revision, Cluster: res.Header.ClusterId}
	for i, r := range res.Responses {
		got := r.GetResponseRange()
		asks := ops[i].Get+ops[i].List+ops[i].Count != ""
		switch {
		case got == nil && !asks:
			continue
		case got == nil:
			return nil, errStrange
		case ops[i].Count != "":
			out.Counted = append(out.Counted, got.Count)
			continue
		}
		kvs := make([]KV, 0, len(got.Kvs))
		for _, kv := range got.Kvs {
			if kv == nil {
				return nil, errStrange
			}
			kvs = append(kvs, KV{string(kv.Key), string(kv.Value), kv.CreateRevision, kv.ModRevision, Lease(kv.Lease)})
		}
		out.Got = append(out.Got, kvs)
	}
	return out, nil
}

func etcdOps(ops []Op) (out []clientv3.Op) {
	for _, o := range ops {
		switch {
		case o.Get != "":
			out = append(out, clientv3.OpGet(o.Get, clientv3.WithRev(o.Rev)))
		case o.List != "":
			out = append(out, clientv3.OpGet(o.List, clientv3.WithPrefix(), clientv3.WithLimit(o.Most),
				clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)))
		case o.Count != "":
			out = append(out, clientv3.OpGet(o.Count, clientv3.WithPrefix(), clientv3.WithCountOnly()))
		case o.Put != "":
			out = append(out, clientv3.OpPut(o.Put, o.Value, clientv3.WithLease(clientv3.LeaseID(o.Lease))))
		default:
			out = append(out, clientv3.OpDelete(o.Delete))
		}
	}
	return out
}

// Grant makes a lease. etcd counts whole seconds. Where it is asked twice, the other lease ends by itself.
func (e *Etcd) Grant(ctx context.Context, ttl time.Duration) (Lease, time.Duration, error) {
	res, _, err := ask(ctx, e.Members(), &e.writes, nil, func(ctx context.Context) (*clientv3.LeaseGrantResponse,
		error) {
		c, err := e.connected(ctx)
		if err != nil {
			return nil, err
		}
		return c.Grant(counting(ctx), int64((ttl+time.Second-1)/time.Second))
	})
	if err != nil {
		return 0, 0, err
	}
	if res.ID == 0 || res.TTL <= 0 {
		return 0, 0, errStrange
	}
	return Lease(res.ID), time.Duration(res.TTL) * time.Second, nil
}

// Renew renews a lease.
func (e *Etcd) Renew(ctx context.Context, l Lease) (ttl, late time.Duration, err error) {
	ttl, late, err = ask(ctx, e.Members(), &e.reads, nil, func(ctx context.Context) (time.Duration, error) {
		c, err := e.connected(ctx)
		if err != nil {
			return 0, err
		}
		res, err := c.KeepAliveOnce(context.WithValue(ctx, renewing{}, true), clientv3.LeaseID(l))
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return 0, nil
		case tokenRefused(err):
			e.token.Store(nil) // the next renewal signs in
			return 0, err
		case err != nil:
			return 0, err
		}
		return time.Duration(res.TTL) * time.Second, nil
	})
	if err == nil && ttl <= 0 {
		err = ErrLeaseGone
	}
	return ttl, late, err
}

// errStrange is the error of an answer that is none of etcd's.
var errStrange = errors.New("the answer lacks what etcd's have; is it an etcd that fleet.endpoints names?")

// errRenewed is the error of a call that comes while a renewed password or certificate is taken.
var errRenewed = errors.New("the way to etcd was renewed just now")

// Left returns for how long a lease lives on if nobody renews it, and for how long it was made.
func (e *Etcd) Left(ctx context.Context, l Lease) (left, made time.Duration, err error) {
	c, err := e.connected(ctx)
	if err != nil {
		return 0, 0, err
	}
	res, err := c.TimeToLive(counting(ctx), clientv3.LeaseID(l))
	switch {
	case err != nil:
		return 0, 0, err
	case res.TTL <= 0:
		return 0, 0, ErrLeaseGone
	}
	return time.Duration(res.TTL) * time.Second, time.Duration(res.GrantedTTL) * time.Second, nil
}

// Watch tells of changes. A member without a leader, or one that hangs, ends it, so that the caller asks another.
func (e *Etcd) Watch(ctx context.Context, prefix string, after int64) <-chan Change {
	out := make(chan Change)
	go func() {
		defer close(out)
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer cancel()
		ctx = context.WithValue(ctx, watchingKey{}, &watching{cancel})
		client, err := e.connected(ctx)
		if err != nil {
			return
		}
		for res := range client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1)) {
			if res.Err() != nil {
				return
			}
			for _, ev := range res.Events {
				if ev == nil || ev.Kv == nil {
					return
				}
				c := Change{KV{string(ev.Kv.Key), string(ev.Kv.Value), ev.Kv.CreateRevision, ev.Kv.ModRevision,
					Lease(ev.Kv.Lease)}, ev.Type == clientv3.EventTypeDelete}
				select {
				case out <- c:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}
