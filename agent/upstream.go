package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/pulse"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// openUpstream makes the pulse, and what it speaks with.
func (o *opening) openUpstream() error {
	o.requests = &upstreams.Requests{AgentKey: o.signer.KeyID(), Carries: o.systems.Carries, Host: o.hostForUpstreams,
		Version: func() string { return o.settings().License.Version }, Emergencies: o.history.Reported,
		Pools: o.desk.Pools, Now: o.desk.Now}
	opener, err := o.opener()
	if err != nil {
		return err
	}
	if o.upstreams, err = opener.Open(o.plugins.Upstreams()); err != nil {
		return err
	}
	known := seals.Sealed(o.seals.State, seals.LastKnown)
	if err := o.seals.CheckUpstream(); err != nil {
		return err
	}
	beat, err := pulse.New(pulse.Config{File: filepath.Join(o.cfg.State.Dir, seals.UpstreamFile), Read: known.Read,
		Write: known.Write, Epoch: o.seals.UpstreamLost().ID, CallWithin: o.cfg.Upstream.Timeout.Duration(),
		Now: o.desk.Now, Uptime: uptime, Request: o.requests.For, Learnt: o.learnt,
		Renewed: func(_ context.Context, of *enforcer.License, document []byte) error {
			return o.court.RenewFrom(o.upstreams[of.System], of, document)
		},
		OnChange: func() { o.court.Rejudge() },
		Called: func(c pulse.Call, result string, at time.Time) {
			o.metrics.UpstreamCalled(string(c), result, at)
		}, Log: o.log})
	if err != nil {
		return err
	}
	o.duties = &upstreams.Duties{Pulse: beat, Upstreams: o.upstreams}
	o.running.task("upstream", beat.Run)
	return nil
}

// renewals is the folder of documents that upstreams brought while the licence folder could not be written.
func (a *Agent) renewals() upstreams.Renewals {
	return upstreams.Renewals(filepath.Join(a.settings().State.Dir, "renewed"))
}

// hostForUpstreams returns this host without what single systems call it, and that: it is not keyed by product, and the
// other systems have no business with it.
func (a *Agent) hostForUpstreams() (enforcer.Host, string) {
	r := a.hostReport()
	return r.Facts(), r.Fingerprint
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
func (o *opening) opener() (*upstreams.Opener, error) {
	own, err := identity.Certificate(o.key, o.options.Now())
	if err != nil {
		return nil, err
	}
	return &upstreams.Opener{Settings: o.settings, Key: o.key, Own: own.Certificates[0], Now: o.desk.Now,
		Dated: o.desk.Dated, Activated: o.vouched,
		Anchors: o.verifier.Anchors, Secrets: o.verifier.Secrets,
		Verify: o.verifier.Verify, FileRefused: o.named.fileRefused}, nil
}

// learnt takes a time that an upstream signed in an answer about a licence.
func (o *opening) learnt(l *enforcer.License, at time.Time) {
	if o.verifier.TellsTime(l) {
		o.desk.Learn(at)
	}
}

// callsWithin is how many calls' time may pass until an operator is told what came of those that were asked for.
const callsWithin = 3

// CallUpstream has every upstream called at once, and who lends slots about each pool, and says what came of it.
func (f front) CallUpstream(ctx context.Context) wire.UpstreamCalls {
	ctx, cancel := context.WithTimeout(ctx, callsWithin*f.settings().Upstream.Timeout.Duration())
	defer cancel()
	shared := make(chan []shares.Outcome, 1)
	go func() { shared <- f.shares.Ask(ctx) }()
	duties := f.duties.Pulse.Ask(ctx)
	return upstreams.Outcomes(duties, <-shared)
}

// Preview returns what would leave the host with the next call to each upstream.
func (f front) Preview() []wire.UpstreamRequest {
	out := upstreams.Preview(append(f.duties.Pulse.Preview(), f.shares.Preview()...), f.requests.Carries)
	all, labels := f.reports.Preview()
	for i, r := range all {
		out = append(out, upstreams.PreviewReport(&r, f.product(), labels[i]))
	}
	return out
}
