package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/pulse"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// openUpstream makes the pulse, and what it speaks with.
func (a *Agent) openUpstream() error {
	cfg := a.config
	var err error
	a.requests = &upstreams.Requests{AgentKey: a.signer.KeyID(), Carries: a.systems.Carries, Host: a.hostForUpstreams,
		Version: func() string { return a.settings().License.Version }, Emergencies: a.history.Reported,
		Pools: a.desk.Pools, Now: a.desk.Now}
	opener, err := a.opener()
	if err != nil {
		return err
	}
	if a.upstreams, err = opener.Open(a.plugins.Upstreams()); err != nil {
		return err
	}
	known := seals.Sealed(a.seals.State, seals.LastKnown)
	if err := a.seals.CheckUpstream(); err != nil {
		return err
	}
	a.pulse, err = pulse.New(pulse.Config{File: filepath.Join(cfg.State.Dir, seals.UpstreamFile), Read: known.Read,
		Write: known.Write, Epoch: a.seals.UpstreamLost().ID, CallWithin: cfg.Upstream.Timeout.Duration(),
		Now: a.desk.Now, Uptime: uptime, Request: a.requests.For, Learnt: a.learnt,
		Renewed: func(_ context.Context, of *enforcer.License, document []byte) error {
			return a.court.Renew(of, document)
		},
		OnChange: func() { a.court.Rejudge() },
		Called: func(c pulse.Call, result string, at time.Time) {
			a.metrics.UpstreamCalled(string(c), result, at)
		}, Log: a.log})
	if err != nil {
		return err
	}
	a.duties = &upstreams.Duties{Pulse: a.pulse, Upstreams: a.upstreams}
	return nil
}

// renewals is the folder of documents that upstreams brought while the licence folder could not be written.
func (a *Agent) renewals() upstreams.Renewals {
	return upstreams.Renewals(filepath.Join(a.settings().State.Dir, "renewed"))
}

// hostForUpstreams returns this host without what single systems call it, and that: it is not keyed by product, and the
// other systems have no business with it.
func (a *Agent) hostForUpstreams() (enforcer.Host, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.host.Facts(), a.host.Fingerprint
}

// vouched keeps the vendor's word for the agent's key. Nothing but proofs to products hangs on it, so that what cannot
// be kept is only logged.
func (a *Agent) vouched(license, word string) {
	if err := a.signer.Attestations.Set(license, word); err != nil {
		a.log.Error("the vendor's word for the agent's key could not be kept; the next activation brings it again",
			"licence", license, "error", err)
	}
}

// opener makes what upstreams are made with.
func (a *Agent) opener() (*upstreams.Opener, error) {
	own, err := identity.Certificate(a.key, a.options.Now())
	if err != nil {
		return nil, err
	}
	return &upstreams.Opener{Settings: a.settings, Key: a.key, Own: own.Certificates[0], Now: a.desk.Now,
		Dated: a.desk.Dated, Activated: a.vouched,
		Anchors: a.verifier.Anchors, Secrets: a.verifier.Secrets}, nil
}

// learnt takes a time that an upstream signed in an answer about a licence.
func (a *Agent) learnt(l *enforcer.License, at time.Time) {
	if a.verifier.TellsTime(l) {
		a.desk.Learn(at)
	}
}

// CallUpstream has every upstream called at once.
func (f front) CallUpstream() { f.pulse.Now() }

// Preview returns what would leave the host with the next call to each upstream.
func (f front) Preview() []wire.UpstreamRequest {
	return upstreams.Preview(append(f.pulse.Preview(), f.shares.Preview()...), f.requests.Carries)
}
