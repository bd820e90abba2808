package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
)

// How often an upstream is asked for a first document: while it has none to give, and how often it is looked whether one is needed.
const (
	fetchLeast = time.Second
	fetchMost  = 5 * time.Minute
	fetchLook  = 30 * time.Second
	// fetchAhead is how long before its end a borrowed licence is borrowed anew, or a tenth of its time where that is less.
	fetchAhead = 10 * time.Minute
)

// openAWS makes the upstream of licences in AWS License Manager.
func (a *Agent) openAWS(c config.Upstream) (*awslm.Client, error) {
	cas, err := upstreamCAs(a.config)
	if err != nil {
		return nil, err
	}
	borrow := map[string]int64{}
	for name, n := range c.AWS.Borrow {
		if borrow[name], err = strconv.ParseInt(n, 10, 64); err != nil {
			return nil, fmt.Errorf("borrow: %w", err)
		}
	}
	// The variables are those that AWS's own samples read.
	token := cmp.Or(c.AWS.RefreshTokenFile, os.Getenv("AWS_WEB_IDENTITY_REFRESH_TOKEN_FILE"), os.Getenv("AWS_LICENSE_ACCESS_FILE"))
	if token != "" {
		if _, err := a.config.ReadFile(token, maxNamed); err != nil {
			return nil, fmt.Errorf("the seller's refresh token: %w", err)
		}
	}
	role := c.AWS.RoleARN
	if token != "" {
		role = cmp.Or(role, os.Getenv("AWS_ROLE_ARN"))
	}
	return awslm.NewClient(awslm.Config{Key: a.key, ProductSKU: c.AWS.ProductSKU, KeyFingerprint: c.AWS.KeyFingerprint, LicenseArn: c.AWS.LicenseARN, Beneficiary: c.AWS.Beneficiary,
		NodeID: c.AWS.NodeID, Borrow: borrow, Region: c.AWS.Region, Endpoint: c.AWS.Endpoint, RefreshTokenFile: token, RoleARN: role, STSEndpoint: c.AWS.STSEndpoint,
		RootCAs: cas, CallWithin: c.Timeout.Duration(), Now: a.desk.time})
}

// fetchFirst asks those upstreams for a document that can give one and have none here that counts.
func (a *Agent) fetchFirst(ctx context.Context) error {
	select {
	case <-a.judged:
	case <-ctx.Done():
		return nil
	}
	wait, said := fetchLeast, ""
	for {
		next := fetchLook
		for _, u := range a.upstreams {
			f, ok := u.(plugin.Fetcher)
			if !ok || !a.lacks(u.System()) {
				continue
			}
			err := a.fetch(ctx, f)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				wait, said = fetchLeast, ""
				continue
			}
			next, wait = wait/2+rand.N(wait/2+1), min(2*wait, fetchMost)
			if said != err.Error() {
				said = err.Error()
				a.log.Warn("no licence could be fetched; it is tried again", "system", u.System(), "why", err)
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// lacks reports whether no licence of a system is at hand that can be in force, now or once its upstream says so.
func (a *Agent) lacks(system string) bool {
	v := a.desk.Verdict()
	a.mu.Lock()
	borrows := len(a.config.Upstream.AWS.Borrow) > 0
	a.mu.Unlock()
	return v == nil || !slices.ContainsFunc(v.Licenses, func(j enforcer.Judged) bool {
		return j.License != nil && j.License.System == system && j.Code != enforcer.Expired && !(borrows && ending(j.License, a.desk.time()))
	})
}

// ending reports whether it is time to have another licence in the place of one that ends.
func ending(l *enforcer.License, now time.Time) bool {
	return !l.Expires.IsZero() && !now.Before(l.Expires.Add(-min(fetchAhead, l.Expires.Sub(l.Issued)/10)))
}

// fetch brings a document into the licence folder.
func (a *Agent) fetch(ctx context.Context, f plugin.Fetcher) error {
	a.mu.Lock()
	within := a.config.Upstream.Timeout.Duration()
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, err := f.Fetch(ctx, &plugin.Request{Product: a.product(), AgentKey: a.agentKey(), Document: a.former(f.System())})
	if err != nil {
		var e *plugin.Error
		if errors.As(err, &e) && e.Hint != "" {
			return fmt.Errorf("%w; %s", err, e.Hint)
		}
		return err
	}
	if err := r.Check(a.desk.time()); err != nil {
		return err
	}
	v := a.court.verify(r.Document)
	if v.problem != nil {
		return fmt.Errorf("%s: %s; %s", v.problem.Code, v.problem.Reason, v.problem.Hint)
	}
	if v.license.System != f.System() {
		return fmt.Errorf("the document is a licence of the system %s, and was fetched for the system %s", v.license.System, f.System())
	}
	return a.renewed(ctx, v.license, r.Document)
}

// former returns the document of a system's licence that another is to replace; nil: there is none.
func (a *Agent) former(system string) []byte {
	v := a.desk.Verdict()
	if v == nil {
		return nil
	}
	a.court.mu.Lock()
	defer a.court.mu.Unlock()
	for _, j := range v.Licenses {
		if j.License != nil && j.License.System == system {
			return a.court.document(j.Document)
		}
	}
	return nil
}
