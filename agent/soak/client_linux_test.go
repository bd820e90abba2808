package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// now is CLOCK_MONOTONIC in nanoseconds, which all processes of a host share.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// record is one line of a client's story. The client writes it before it sends a call and after it has the answer, so
// that the story of a killed client says no more than is sure.
type record struct {
	Event  string           `json:"event"` // call, done, paused, lost
	At     int64            `json:"at"`
	Op     string           `json:"op,omitempty"`
	Kind   string           `json:"kind,omitempty"` // acquire, release, draw
	Items  map[string]int64 `json:"items,omitempty"`
	Wait   bool             `json:"wait,omitempty"`
	Lease  string           `json:"lease,omitempty"`
	Result string           `json:"result,omitempty"` // granted, denied, released, missing
	Last   int64            `json:"last,omitempty"`   // when the last attempt was sent
	Why    string           `json:"why,omitempty"`
}

// TestMain plays a client when the environment says so.
func TestMain(m *testing.M) {
	if name := os.Getenv("USHER_SOAK_CLIENT"); name != "" {
		if err := play(name); err != nil {
			fmt.Fprintln(os.Stderr, name, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// player is one client process: one call at a time.
type player struct {
	name    string
	n       int
	out     *json.Encoder
	random  *rand.Rand
	http    *client.Client
	session *client.Session
	held    []holding
	drawn   holding // the latest draw
	waits   bool
	steady  bool // it holds one slot at a time, for seconds, so that restarts of the agent find it held
}

type holding struct {
	id      string
	asked   wire.AcquireRequest
	items   map[string]int64
	session *client.Lease // nil: a ttl lease
	until   time.Time     // a steady client's
}

// ttl is longer than any run: no lease ends by its time.
const ttl = 3 * time.Hour

// errStands is a lease that is still listed after its release.
var errStands = errors.New("it stands")

func (p *player) say(r record) {
	if p.out.Encode(r) != nil {
		os.Exit(0) // nobody listens any more
	}
}

// away says whether an answer leaves the outcome open, or came before the agent had a verdict. Then the client calls
// again.
func away(err error) bool {
	return errors.Is(err, errStands) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, client.ErrAgentAway) || errors.Is(err, client.ErrLicenseMissing) ||
		errors.Is(err, client.ErrDraining)
}

// again makes a call until its outcome is known, and returns when it sent the last attempt.
func again(call func() error) (int64, error) {
	for {
		sent := now()
		if err := call(); !away(err) {
			return sent, err
		}
		<-time.After(3 * time.Millisecond)
	}
}

func (p *player) call(r record) record {
	p.n++
	r.Event, r.Op, r.At = "call", fmt.Sprintf("%s/%d", p.name, p.n), now()
	p.say(r)
	return r
}

func (p *player) done(r record, result, lease string, sent int64) {
	p.say(record{Event: "done", At: now(), Op: r.Op, Result: result, Lease: lease, Last: sent})
}

func (p *player) acquire() error {
	items := map[string]int64{}
	switch x := p.random.IntN(8); {
	case p.steady:
		items[[]string{"streams", "seats"}[x%2]] = 1
	case x == 0:
		items["streams"], items["seats"] = 1+p.random.Int64N(2), 1+p.random.Int64N(2)
	case x < 5:
		items["streams"] = 1 + p.random.Int64N(3)
	default:
		items["seats"] = 1 + p.random.Int64N(3)
	}
	var a wire.AcquireRequest
	for pool, n := range items {
		a.Items = append(a.Items, wire.Item{Pool: pool, N: n})
	}
	process := p.random.IntN(2) == 0
	if !process {
		a.Lifetime, a.TTLSeconds = "ttl", ttl.Seconds()
	}
	if p.waits && p.random.IntN(6) == 0 {
		a.WaitSeconds = 0.05 + p.random.Float64()/4
	}
	r := p.call(record{Kind: "acquire", Items: items, Wait: a.WaitSeconds > 0})
	a.ClientToken, a.Labels = r.Op, map[string]string{"client": p.name, "op": r.Op}
	h := holding{items: items, until: time.Now().Add(time.Second + rand.N(4*time.Second))}
	h.asked = a
	sent, err := again(func() error {
		if process {
			l, err := p.session.Acquire(context.Background(), a)
			if err == nil {
				h.id, h.session = l.ID(), l
			}
			return err
		}
		l, err := p.http.Acquire(context.Background(), a)
		if err == nil {
			h.id = l.ID
		}
		return err
	})
	switch {
	case errors.Is(err, client.ErrNoSlots):
		p.done(r, "denied", "", sent)
	case err != nil:
		return fmt.Errorf("acquire: %w", err)
	default:
		p.done(r, "granted", h.id, sent)
		p.held = append(p.held, h)
	}
	return nil
}

// missing says why a lease of ours that was never given back does not stand; nil: it does.
func (p *player) missing(h holding) error {
	if h.session != nil {
		if err := h.session.Err(); err != nil { // the session attaches by itself
			return err
		}
	}
	if _, err := again(func() error {
		_, err := p.http.Lease(context.Background(), h.id)
		return err
	}); errors.Is(err, client.ErrLeaseUnknown) {
		return err
	}
	return nil
}

func (p *player) release(i int) error {
	h := p.held[i]
	p.held = append(p.held[:i:i], p.held[i+1:]...)
	// A release reports nothing of a lease that is over already: a client that closes one does not mind.
	if why := p.missing(h); why != nil {
		p.say(record{Event: "lost", At: now(), Lease: h.id, Why: why.Error()})
	}
	r := p.call(record{Kind: "release", Lease: h.id, Items: h.items})
	result, tries := "released", 0
	sent, err := again(func() error {
		tries++
		if h.session == nil {
			err := p.http.Release(context.Background(), h.id, false)
			if errors.Is(err, client.ErrLeaseUnknown) {
				if err = nil; tries == 1 {
					result = "missing"
				}
			}
			return err
		}
		if err := h.session.Close(); err != nil {
			return err
		}
		if why := h.session.Err(); why != nil && tries == 1 {
			result = "missing"
		}
		// While the agent is away, Close has only promised it.
		_, err := p.http.Lease(context.Background(), h.id)
		switch {
		case err == nil:
			return errStands
		case errors.Is(err, client.ErrLeaseUnknown):
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	p.done(r, result, h.id, sent)
	return nil
}

// repeat asks again for its grants, as a client would that has not got the answer.
func (p *player) repeat(h holding) {
	var l *wire.Lease
	_, err := again(func() (err error) { l, err = p.http.Acquire(context.Background(), h.asked); return err })
	switch {
	case err != nil:
		p.say(record{Event: "lost", At: now(), Lease: h.id, Why: "asked for again with its token: " + err.Error()})
	case l.ID != h.id:
		p.say(record{Event: "lost", At: now(), Lease: h.id,
			Why: "asked for again with its token, it became lease " + l.ID})
	}
}

func (p *player) draw() error {
	if p.drawn.id != "" && p.random.IntN(3) > 0 {
		p.repeat(p.drawn)
		return nil
	}
	r := p.call(record{Kind: "draw", Items: map[string]int64{"renders": 1 + p.random.Int64N(3)}})
	n := r.Items["renders"]
	h := holding{asked: wire.AcquireRequest{Pool: "renders", N: &n, ClientToken: r.Op}}
	sent, err := again(func() error {
		l, err := p.http.Acquire(context.Background(), h.asked)
		if err == nil {
			h.id = l.ID
		}
		return err
	})
	switch {
	case errors.Is(err, client.ErrMeterEmpty):
		p.done(r, "denied", "", sent)
	case err != nil:
		return fmt.Errorf("draw: %w", err)
	default:
		p.done(r, "granted", h.id, sent)
		p.drawn = h
	}
	return nil
}

// look checks that every lease of ours stands. The release of one that does not reports it.
func (p *player) look() error {
	for i := len(p.held) - 1; i >= 0; i-- {
		if p.missing(p.held[i]) != nil {
			if err := p.release(i); err != nil {
				return err
			}
		} else if h := p.held[i]; h.session == nil {
			p.repeat(h)
		}
	}
	return nil
}

func play(name string) error {
	p := &player{name: name, out: json.NewEncoder(os.Stdout), random: rand.New(rand.NewPCG(rand.Uint64(), 1)),
		http:   client.New(""),
		steady: os.Getenv("USHER_SOAK_STEADY") != ""}
	orders := make(chan string, 8)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			orders <- in.Text()
		}
		os.Exit(0) // the harness has gone
	}()
	if _, err := again(func() (err error) {
		p.session, err = client.Open(context.Background())
		return err
	}); err != nil {
		return err
	}
	o := <-orders
	pause := o == "pause"
	p.waits = strings.HasSuffix(o, "waits")
	for {
		select {
		case o := <-orders:
			pause, p.waits = o == "pause", strings.HasSuffix(o, "waits")
		default:
		}
		if pause {
			for len(p.held) > 0 {
				if err := p.release(0); err != nil {
					return err
				}
			}
			p.say(record{Event: "paused", At: now()})
			o := <-orders
			pause, p.waits = o == "pause", strings.HasSuffix(o, "waits")
			continue
		}
		var err error
		switch x := p.random.IntN(10); {
		case x == 0:
			err = p.draw()
		case x == 1:
			err = p.look()
		case p.steady && len(p.held) > 0:
			if time.Now().After(p.held[0].until) {
				err = p.release(0)
			}
		case len(p.held) == 2 || len(p.held) == 1 && x < 6:
			err = p.release(p.random.IntN(len(p.held)))
		default:
			err = p.acquire()
		}
		if err != nil {
			return err
		}
		<-time.After(time.Duration(p.random.IntN(12)) * time.Millisecond)
	}
}
