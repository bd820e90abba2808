package plugintest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// DialectSamples is the material for trying a dialect. Each call makes new requests.
type DialectSamples struct {
	// License grants Slots slots of Pool on this host, without an expiry: at least 2.
	License *enforcer.License
	Pool    string
	Slots   int
	// Prepare completes a desk before its first request; nil: nothing is to be done.
	Prepare func(*Desk)
	// Now is where the desk's clock starts; zero: a day after the licence's issue.
	Now time.Time
	// Take takes a slot for the i-th thing that the system's API counts: a machine, a consumer, a stream. nil: the API
	// takes no slots. Then Read stands in for it, and Pool, Slots, Give, Held and NoSlots have no meaning.
	Take func(i int) *http.Request
	// Read asks for what the API tells of a licence: it is answered 2xx, and refused where there is none.
	Read func() *http.Request
	// Give releases the slot that Take was answered with.
	Give func(i int, taken *httptest.ResponseRecorder) *http.Request
	// Held gets a 2xx answer while that slot is held, and otherwise a refusal.
	Held func(i int, taken *httptest.ResponseRecorder) *http.Request
	// Says reports what a 2xx answer to Held says of the slot, for a system that refuses no such question; nil: it is
	// held.
	Says func(*httptest.ResponseRecorder) bool
	// NoSlots is part of the refusal at the limit: the system's own code or words.
	NoSlots string
	// Refusal says why an answer has not the form of a refusal of the system; nil: it has.
	Refusal func(*httptest.ResponseRecorder) error
	// Send is a request with a body of the caller's choice, such as Take's.
	Send func(body io.Reader) *http.Request
	// Headers are the names of further headers that the dialect reads.
	Headers []string
	// Calls are the calls with a JSON body.
	Calls []DialectCall
	// Reads are the targets of calls without a body: all that lists or shows.
	Reads []string
}

// Dialect fails the test for each promise of every dialect that this one does not keep.
func Dialect(t testing.TB, d plugin.Dialect, s DialectSamples) {
	t.Helper()
	report(t, CheckDialect(d, s))
}

// CheckDialect returns each promise that a dialect does not keep: slots up to the limit and no further, callers apart,
// acknowledged leases outlive the agent, refusals have the system's own form, and no body and no text does harm.
func CheckDialect(d plugin.Dialect, s DialectSamples) []error {
	out := &faults{}
	if err := plugin.CheckName(d.System()); err != nil {
		out.add("its name: %w", err)
	}
	if s.Now.IsZero() {
		s.Now = s.License.Issued.Add(24 * time.Hour)
	}
	for _, c := range []struct {
		name  string
		slots bool // it is about slots
		run   func(*dialectCheck)
	}{
		{"limit", true, (*dialectCheck).limit},
		{"callers", true, (*dialectCheck).callers},
		{"restart", true, (*dialectCheck).restart},
		{"full disk", true, (*dialectCheck).full},
		{"no licence", false, (*dialectCheck).noLicense},
		{"expiry", true, (*dialectCheck).expiry},
		{"nobody vouches", false, (*dialectCheck).unvouched},
		{"bodies", false, (*dialectCheck).bodies},
		{"members", false, (*dialectCheck).members},
		{"texts", false, (*dialectCheck).texts},
	} {
		if c.slots && s.Take == nil {
			continue
		}
		times, sent := 1, new(atomic.Int64)
		if !c.slots { // each call is bounded by itself, too, and sooner
			times += 2 * len(s.Calls)
		}
		out.inTimeOf(times, sent, c.name, func() {
			k := &dialectCheck{faults: out, dialect: d, samples: s, what: c.name, desk: NewDesk(d.System(), s.Now),
				sent: sent}
			if s.Prepare != nil {
				s.Prepare(k.desk)
			}
			k.desk.Judge(s.License)
			k.handler = d.Handler(k.desk)
			c.run(k)
		})
	}
	return *out
}

type dialectCheck struct {
	*faults
	dialect plugin.Dialect
	samples DialectSamples
	what    string
	desk    *Desk
	handler http.Handler
	sent    *atomic.Int64 // how many requests were answered
}

func (c *dialectCheck) fault(format string, args ...any) {
	c.add("%s: %w", c.what, fmt.Errorf(format, args...))
}

func (c *dialectCheck) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.Body = http.MaxBytesReader(w, r.Body, plugin.MaxDialectBody) // as the agent's listeners do
	c.handler.ServeHTTP(w, r)
	c.sent.Add(1)
	return w
}

func good(w *httptest.ResponseRecorder) bool { return w.Code/100 == 2 }

// take takes a slot, which must succeed.
func (c *dialectCheck) take(i int) *httptest.ResponseRecorder {
	w := c.send(c.samples.Take(i))
	if !good(w) {
		c.fault("slot %d of %d is not granted: %d %s", i+1, c.samples.Slots, w.Code, w.Body)
	}
	return w
}

// refused checks that an answer is a refusal in the system's form.
func (c *dialectCheck) refused(when string, w *httptest.ResponseRecorder) {
	if w.Code < 400 {
		c.fault("%s: the answer is %d, not a refusal: %s", when, w.Code, w.Body)
		return
	}
	if err := c.samples.Refusal(w); err != nil {
		c.fault("%s: the refusal %d %s has not the system's form: %w", when, w.Code, w.Body, err)
	}
}

// inUse checks how many slots are in use.
func (c *dialectCheck) inUse(when string, want int) {
	if got := c.desk.InUse(c.samples.Pool); got != int64(want) {
		c.fault("%s: %d slots of %s are in use, and it should be %d", when, got, c.samples.Pool, want)
	}
}

func (c *dialectCheck) held(when string, i int, taken *httptest.ResponseRecorder, want bool) {
	w := c.send(c.samples.Held(i, taken))
	is := good(w) && (c.samples.Says == nil || c.samples.Says(w))
	if is != want {
		c.fault("%s: slot %d held: %t, and it should be %t (%d %s)", when, i+1, is, want, w.Code, w.Body)
	}
	if c.samples.Says != nil && !good(w) {
		c.fault("%s: whether slot %d is held is not answered: %d %s", when, i+1, w.Code, w.Body)
	}
	if !want && !good(w) {
		c.refused(when, w)
	}
}

func (c *dialectCheck) limit() {
	n := c.samples.Slots
	var taken []*httptest.ResponseRecorder
	for i := range n {
		taken = append(taken, c.take(i))
	}
	c.inUse("at the limit", n)
	w := c.send(c.samples.Take(n))
	c.refused("at the limit", w)
	if !strings.Contains(w.Body.String(), c.samples.NoSlots) {
		c.fault("the refusal at the limit does not say %q: %s", c.samples.NoSlots, w.Body)
	}
	c.inUse("after the refusal", n)
	if w := c.send(c.samples.Give(0, taken[0])); !good(w) {
		c.fault("a slot cannot be given back: %d %s", w.Code, w.Body)
	}
	c.inUse("after a slot was given back", n-1)
	c.held("after it was given back", 0, taken[0], false)
	c.take(n)
	c.inUse("after it was taken by another", n)
}

func (c *dialectCheck) callers() {
	taken := c.take(0)
	c.desk.Sender = &enforcer.Caller{UID: 2000}
	c.held("another caller asks", 0, taken, false)
	if w := c.send(c.samples.Give(0, taken)); good(w) && c.desk.InUse(c.samples.Pool) == 0 {
		c.fault("another caller gives the slot back")
	}
	c.inUse("after another caller's release", 1)
	c.desk.Sender = &enforcer.Caller{UID: 1000}
	c.held("its own caller asks", 0, taken, true)
}

func (c *dialectCheck) restart() {
	taken := c.take(0)
	c.desk.Restart()
	c.handler = c.dialect.Handler(c.desk)
	c.inUse("after a restart", 1)
	c.held("after a restart", 0, taken, true)
	if w := c.send(c.samples.Give(0, taken)); !good(w) {
		c.fault("after a restart the slot cannot be given back: %d %s", w.Code, w.Body)
	}
	c.inUse("after a restart and a release", 0)
}

func (c *dialectCheck) full() {
	taken := c.take(0)
	c.desk.Full = true
	c.refused("the disk is full", c.send(c.samples.Take(1)))
	c.inUse("the disk is full", 1)
	c.desk.Full = false
	c.held("the disk was full", 0, taken, true)
	c.take(1)
}

// ask is a request that a licence is needed for.
func (c *dialectCheck) ask() *http.Request {
	if c.samples.Take == nil {
		return c.samples.Read()
	}
	return c.samples.Take(0)
}

func (c *dialectCheck) noLicense() {
	if c.samples.Read != nil {
		if w := c.send(c.samples.Read()); !good(w) {
			c.fault("the licence cannot be read: %d %s", w.Code, w.Body)
		}
	}
	c.desk.Judge()
	c.refused("there is no licence", c.send(c.ask()))
}

func (c *dialectCheck) expiry() {
	taken := c.take(0)
	l := *c.samples.License
	l.Expires = c.desk.Now().Add(time.Minute)
	c.desk.Judge(&l)
	c.desk.Pass(2 * time.Minute)
	c.desk.Judge(&l)
	c.refused("the licence has expired", c.send(c.samples.Take(1)))
	if w := c.send(c.samples.Give(0, taken)); !good(w) {
		c.fault("the licence has expired, and a slot cannot be given back: %d %s", w.Code, w.Body)
	}
	if n := c.desk.InUse(c.samples.Pool); n > 0 {
		c.fault("the licence has expired, and %d slots stay in use after the release", n)
	}
}

func (c *dialectCheck) unvouched() {
	if _, own := c.dialect.(plugin.Authenticator); !own {
		return
	}
	c.desk.Sender = nil
	c.refused("nobody vouches for the caller, who shows no credential", c.send(c.ask()))
	if n := c.desk.InUse(c.samples.Pool); n > 0 {
		c.fault("a caller without a credential has a slot")
	}
}

func (c *dialectCheck) bodies() {
	for name, body := range map[string]io.Reader{
		"no body":            strings.NewReader(""),
		"no JSON":            strings.NewReader("\x00\xff{"),
		"null":               strings.NewReader("null"),
		"a list":             strings.NewReader("[]"),
		"nested too deep":    strings.NewReader(strings.Repeat(`{"data":`, 20_000)),
		"a body too large":   strings.NewReader(`{"data":"` + strings.Repeat("a", plugin.MaxDialectBody) + `"}`),
		"a body that breaks": io.MultiReader(strings.NewReader(`{"da`), brokenReader{}),
	} {
		w := c.send(c.samples.Send(body))
		if w.Code < 400 || w.Code >= 500 {
			c.fault("%s is answered %d", name, w.Code)
			continue
		}
		c.refused(name, w)
	}
	if c.samples.Take != nil {
		c.inUse("after bad bodies", 0)
	}
}

// brokenReader is a body whose sender goes away.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the connection is gone") }
