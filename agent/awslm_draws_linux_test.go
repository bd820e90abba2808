package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
)

const (
	marketplace = "aws:294406891311:AWS/Marketplace:issuer-fingerprint"
	awsArn      = "arn:aws:license-manager::294406891311:license:l-0123456789abcdef0123456789abcdef"
)

// openAWSCrashing is an agent that can be killed, with a License Manager as its upstream that has 8 streams and 10,000
// renders a month.
func openAWSCrashing(t *testing.T) (*crashing, *awstest.Server) {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	s := awstest.New(t, time.Now())
	streams, renders := int64(8), int64(10000)
	s.Put(awslm.License{LicenseArn: awsArn, ProductSKU: "acme", Status: awslm.StatusAvailable,
		Issuer: awslm.Issuer{KeyFingerprint: marketplace}, Version: "1",
		Entitlements: []awslm.Entitlement{{Name: "streams", Unit: "Count", MaxCount: &streams, AllowCheckIn: true},
			{Name: "renders", Unit: "Count", MaxCount: &renders}},
		ConsumptionConfiguration: awslm.ConsumptionConfiguration{RenewType: awslm.RenewMonthly,
			ProvisionalConfiguration: &awslm.Consumption{MaxTimeToLiveInMinutes: 60}},
		ReceivedMetadata: &awslm.ReceivedMetadata{ReceivedStatus: awslm.ReceivedActive}})
	h := open(t, "    - {system: awslm, alg: sealed, kid: '"+marketplace+
		"'}\nupstream: {aws: {product_sku: acme, key_fingerprint: '"+marketplace+"', endpoint: '"+s.URL+"'}}\n")
	h.until("fetched", code("VALID"))
	h.stop()
	if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &crashing{house: h, bin: bin}
	c.run()
	t.Cleanup(func() {
		c.kill()
		h.Close()
	})
	return c, s
}

// Blocks of AWS's slots: up to the limit, re-adopted by an agent that was killed, and AWS's again when their time is
// over.
func TestAWSBlocks(t *testing.T) {
	t.Parallel()
	c, s := openAWSCrashing(t)
	if _, err := c.Acquire(t.Context(),
		wire.AcquireRequest{Pool: "streams", N: new(int64(5)), Lifetime: "held", WaitSeconds: 60}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Acquire(t.Context(),
		wire.AcquireRequest{Pool: "streams", N: new(int64(4)), WaitSeconds: 1}); !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("beyond the limit: %v", err)
	}
	c.kill()
	blocks := map[string]bool{}
	for _, o := range s.Out() {
		if o.Type == awslm.Provisional {
			blocks[o.Token] = true
		}
	}
	if n := s.Used(awsArn, "streams"); n < 5 || n > 8 {
		t.Fatalf("5 slots are in use, and %d checked out", n)
	}
	c.run()
	c.eventually("the blocks are had again", func() bool {
		p, err := c.Pool(context.Background(), "streams")
		return err == nil && p.InUse == 5 && p.Budget != nil && *p.Budget >= 5
	})
	again := 0
	for _, o := range s.Out() {
		if blocks[o.Token] {
			again++
		}
	}
	if again != len(blocks) || s.Used(awsArn, "streams") > 8 {
		t.Errorf("%d of %d blocks are kept, and %d slots checked out", again, len(blocks), s.Used(awsArn, "streams"))
	}
	c.kill() // and it does not come back
	s.Advance(61 * time.Minute)
	if n := s.Used(awsArn, "streams"); n != 0 {
		t.Errorf("%d slots are pinned by a dead agent beyond the time that they were given for", n)
	}
}

// Clients draw from an agent that is killed again and again, over a network that loses answers: each draw is drawn
// once, and never more here than AWS has counted.
func TestAWSDraws(t *testing.T) {
	kills, clients, each := 5, 4, 12
	if testing.Short() {
		kills = 2
	}
	c, s := openAWSCrashing(t)
	var drawn atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			cl := client.New(c.Socket())
			defer cl.Close()
			for j := range each {
				token, deadline := fmt.Sprint(i, " ", j), time.Now().Add(2*time.Minute)
				for {
					_, err := cl.Acquire(context.Background(),
						wire.AcquireRequest{Pool: "renders", N: new(int64(1 + j%3)), WaitSeconds: 20,
							ClientToken: token})
					if err == nil {
						drawn.Add(int64(1 + j%3))
						break
					}
					if time.Now().After(deadline) {
						t.Errorf("draw %s: %v", token, err)
						return
					}
					<-time.After(5 * time.Millisecond)
				}
			}
		})
	}
	total := int64(clients * each * 2)
	for i := range kills {
		for drawn.Load() < total*int64(i+1)/int64(kills+1) && !t.Failed() {
			<-time.After(time.Millisecond)
		}
		s.Fail(awslm.OpCheckout, awstest.DropAfter, awstest.DropAfter, awstest.DropAfter)
		c.kill()
		c.run()
	}
	all.Wait()
	var p *wire.Pool
	c.eventually("nothing is open", func() bool {
		var err error
		p, err = c.Pool(context.Background(), "renders")
		return err == nil && p.Budget != nil && *p.Budget == s.Used(awsArn, "renders")
	})
	if drawn.Load() != total || p.InUse != total || *p.Budget < total {
		t.Errorf("%d draws were acknowledged of %d, %d are drawn, and AWS has counted %d", drawn.Load(), total, p.InUse,
			*p.Budget)
	}
	t.Logf("%d kills, %d draws, %d taken of AWS", kills, p.InUse, *p.Budget)
}
