package shares_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
)

const (
	issuer = "aws:294406891311:AWS/Marketplace:issuer-fingerprint"
	arn    = "arn:aws:license-manager::294406891311:license:l-0123456789abcdef0123456789abcdef"
)

// The steps of a draw, between any two of which an agent may die.
const (
	beforePending = iota + 1 // nothing is on the disk
	afterPending             // the token is, and the call is not made
	afterCommit              // AWS has counted, and the answer is not there
	beforeTaken              // the answer is there, and not on the disk
	afterTaken               // it is, and nothing was handed out
)

// mortal is one life of an agent: at one step it goes no further, and changes nothing from then on.
type mortal struct {
	*shares.Keeper
	plugin.Drawer
	file   string
	diesAt int
	reach  sync.Once
	hit    chan struct{} // closed when it has come to the step
	dead   chan struct{}
	drawn  atomic.Int64 // all that was taken
}

func (m *mortal) System() string { return awslm.System }

func (m *mortal) at(step int) error {
	if step == m.diesAt {
		m.reach.Do(func() { close(m.hit) })
		<-m.dead
	}
	select {
	case <-m.dead:
		return errors.New("dead")
	default:
		return nil
	}
}

func (m *mortal) Draw(ctx context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	if err := m.at(afterPending); err != nil {
		return nil, err
	}
	got, err := m.Drawer.Draw(ctx, r)
	if dead := m.at(afterCommit); dead != nil {
		return nil, dead
	}
	return got, err
}

func (m *mortal) write(file string, data []byte) error {
	before, after := beforeTaken, afterTaken
	if strings.Contains(string(data), `"pending"`) {
		before, after = beforePending, 0
	}
	if err := m.at(before); err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	return m.at(after)
}

// live begins a life, which ends with the test at the latest.
func live(t *testing.T, file string, diesAt int, u plugin.Drawer, doc []byte) *mortal {
	t.Helper()
	m := &mortal{Drawer: u, file: file, diesAt: diesAt, hit: make(chan struct{}), dead: make(chan struct{})}
	changed := func() { m.drawn.Store(int64(m.Taken()[enforcer.Share{License: "awslm/" + arn, Pool: "renders"}].N)) }
	began := time.Now()
	var err error
	m.Keeper, err = shares.New(shares.Config{Draws: shares.File{Path: file, Write: m.write}, Time: time.Now,
		Now: func() time.Duration { return time.Since(began) }, OnChange: changed,
		Jitter: func() float64 {
			return 0
		},
		// There is always need of three more.
		Meter: func(string) shares.MeterDemand {
			n := m.drawn.Load()
			return shares.MeterDemand{Drawn: n, Capacity: n, Waiting: 3}
		},
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Document: doc, AgentKey: "a"}
		}})
	if err != nil {
		t.Fatal(err)
	}
	m.Set([]shares.Licence{{License: &enforcer.License{ID: arn, System: awslm.System,
		Meters: map[string]enforcer.MeterTerm{"renders": {Max: 10000, Scope: enforcer.ScopeSite}}}, Document: doc,
		Drawer: m}})
	changed()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() { m.die(); cancel(); <-done })
	return m
}

func (m *mortal) die() {
	select {
	case <-m.dead:
	default:
		close(m.dead)
	}
}

// record is what is on the disk.
func (m *mortal) record(t *testing.T) (taken int64, pending bool) {
	t.Helper()
	var r struct {
		Licences map[string]struct{ Meters map[string]shares.Meter }
	}
	b, err := os.ReadFile(m.file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false
	}
	if err != nil || json.Unmarshal(b, &r) != nil {
		t.Fatalf("%s, %v", b, err)
	}
	x := r.Licences["awslm/"+arn].Meters["renders"]
	return x.Taken, x.Pending != nil
}

// An agent dies at every step of its draws, its network fails at some: AWS counts what was taken, once.
func TestCrashAtEveryStep(t *testing.T) {
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_PROFILE": ""} {
		t.Setenv(k, v)
	}
	s := awstest.New(t, time.Now())
	most := int64(10000)
	s.Put(awslm.License{LicenseArn: arn, ProductSKU: "acme", Status: awslm.StatusAvailable,
		Issuer: awslm.Issuer{KeyFingerprint: issuer}, Version: "1",
		Entitlements: []awslm.Entitlement{{Name: "renders", Unit: "Count", MaxCount: &most}},
		ConsumptionConfiguration: awslm.ConsumptionConfiguration{
			ProvisionalConfiguration: &awslm.Consumption{MaxTimeToLiveInMinutes: 60}},
		ReceivedMetadata: &awslm.ReceivedMetadata{ReceivedStatus: awslm.ReceivedActive}})
	u, err := awslm.NewClient(awslm.Config{Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
		ProductSKU: "acme", KeyFingerprint: issuer, Endpoint: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	r, err := u.Fetch(t.Context(), &plugin.Request{AgentKey: "a"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "shares.json")
	asked := map[string]bool{}
	for round := range 3 {
		for _, step := range []int{beforePending, afterPending, afterCommit, beforeTaken, afterTaken} {
			switch round {
			case 1: // the client tries thrice: what it gives up was counted
				s.Fail(awslm.OpCheckout, awstest.DropAfter, awstest.DropAfter, awstest.DropAfter, awstest.DropAfter)
			case 2: // or was not
				s.Fail(awslm.OpCheckout, awstest.Drop, awstest.Internal, awstest.Drop, awstest.Throttle)
			}
			m := live(t, file, step, u, r.Document)
			select {
			case <-m.hit:
			case <-time.After(time.Minute):
				t.Fatalf("round %d: step %d is not reached", round, step)
			}
			m.die()
			was, pending := m.record(t)
			up := s.Used(arn, "renders")
			if up < was || up > was && !pending {
				t.Fatalf("round %d, dead at step %d: %d are taken upstream, %d on the disk (pending: %v)", round, step,
					up, was, pending)
			}
			if wantPending := step == afterPending || step == afterCommit || step == beforeTaken; pending !=
				wantPending {
				t.Errorf("round %d, dead at step %d: a call on the disk: %v", round, step, pending)
			}
			// Its next life goes on until it has more, and dies after a draw, so that nothing is open.
			next := live(t, file, afterTaken, u, r.Document)
			select {
			case <-next.hit:
			case <-time.After(time.Minute):
				t.Fatalf("round %d, after step %d: nothing more is taken", round, step)
			}
			next.die()
			taken, pending := next.record(t)
			if up := s.Used(arn, "renders"); pending || taken <= was || up != taken {
				t.Fatalf("round %d, after step %d: %d are taken upstream, and %d on the disk (before: %d; pending: %v)",
					round, step, up, taken, was, pending)
			}
			if step != beforePending && step != afterTaken && taken != was+4 {
				t.Errorf("round %d, after step %d: %d more were taken, not those of the call that was open", round,
					step, taken-was)
			}
		}
	}
	for _, token := range s.ClientTokens() {
		asked[token] = true
	}
	if taken := s.Used(arn, "renders"); int64(len(asked))*4 != taken {
		t.Errorf("%d requests of 4, and %d are taken", len(asked), taken)
	}
}
