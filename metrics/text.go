package metrics

import (
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

const (
	// textChunk is how many bytes of an answer are made before they are sent, and others are let in.
	textChunk = 128 << 10
	// breath is for how long an answer is made before others are let in.
	breath = 500 * time.Microsecond
	// mostScrapes is how many scrapes are answered at a time.
	mostScrapes = 8
)

// Handler answers scrapes, in the text form or OpenMetrics. An answer is compressed where the caller takes that and it
// goes over a network: on the same host that costs both sides more than it saves.
//
// The series of pools may be a hundred thousand. The library writes them a metric and a chunk at a time, from memory
// that is used again; its registry would make, sort and check an object of each before the first is written. A caller
// that asks for another form than these two, or for some metrics by name, gets the answer of the registry. Where none
// of these names is of a metric of pools, that does not ask the pools.
func (m *Metrics) Handler(network bool) http.Handler {
	o := promhttp.HandlerOpts{EnableOpenMetrics: true, DisableCompression: !network}
	library, rest := promhttp.HandlerFor(m.Gatherer(), o), promhttp.HandlerFor(m.rest, o)
	scrapes := make(chan struct{}, mostScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case scrapes <- struct{}{}:
			defer func() { <-scrapes }()
		default:
			http.Error(w, "there are too many scrapes at a time; try again later", http.StatusServiceUnavailable)
			return
		}
		longest := m.measure()
		defer func() { m.held.Set(longest().Seconds()) }()
		format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
		kind := format.FormatType()
		switch names := r.URL.Query()["name[]"]; {
		case len(names) > 0 && !slices.ContainsFunc(names, isOfPools):
			rest.ServeHTTP(w, r)
			return
		case len(names) > 0 || kind != expfmt.TypeTextPlain && kind != expfmt.TypeOpenMetrics:
			library.ServeHTTP(w, r)
			return
		}
		m.answer(w, format, network && takesGzip(r.Header))
	})
}

// isOfPools reports whether a name is that of a metric of pools.
func isOfPools(name string) bool {
	return slices.ContainsFunc(poolFamilies, func(f poolFamily) bool { return f.full == name })
}

// takesGzip reports whether a caller takes an answer that is compressed.
func takesGzip(h http.Header) bool {
	for part := range strings.SplitSeq(h.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			weight, found := strings.CutPrefix(strings.TrimSpace(q), "q=")
			f, err := strconv.ParseFloat(weight, 64)
			return !found || err == nil && f > 0
		}
	}
	return false
}

// zips are writers that compress, fast rather than well: the same words come again and again.
var zips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a good one
	return z
}}

// answer writes all metrics. An error is the caller's end of the connection.
func (m *Metrics) answer(w http.ResponseWriter, format expfmt.Format, zip bool) {
	families, err := m.rest.Gather()
	if err != nil {
		http.Error(w, "the metrics cannot be gathered: "+err.Error(), http.StatusInternalServerError)
		return
	}
	pools := m.ofPools()
	w.Header().Set("Content-Type", string(format))
	w.Header().Add("Vary", "Accept, Accept-Encoding")
	out := io.Writer(w)
	if zip {
		w.Header().Set("Content-Encoding", "gzip")
		z := zips.Get().(*gzip.Writer)
		defer zips.Put(z)
		z.Reset(w)
		defer z.Close()
		out = z
	}
	t := &text{w: out, giveWay: m.giveWay, since: time.Now()}
	lines := expfmt.NewEncoder(t, format)
	s := spares.Get().(*spare)
	defer spares.Put(s)
	for i := range poolFamilies {
		if f := s.family(&poolFamilies[i], pools, t.breathe); f != nil && lines.Encode(f) != nil {
			return
		}
	}
	for _, f := range families {
		if lines.Encode(f) != nil {
			return
		}
	}
	if c, ok := lines.(expfmt.Closer); ok {
		c.Close()
	}
	t.flush()
}

// text is an answer in the making. The library writes to it line by line.
type text struct {
	w       io.Writer
	giveWay func()
	since   time.Time // when others were let in last
	b       []byte
	err     error // of w
}

// Write adds to the answer.
func (t *text) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	t.sent()
	return len(b), t.err
}

// sent sends what there is of the answer once it is enough.
func (t *text) sent() {
	if len(t.b) >= textChunk {
		t.flush()
		t.letIn()
	} else {
		t.breathe()
	}
}

// breathe lets others in where that was not done for a while: a thread that goes on computes until the kernel takes its
// processor, which may be milliseconds.
func (t *text) breathe() {
	if time.Since(t.since) >= breath {
		t.letIn()
	}
}

func (t *text) letIn() {
	t.giveWay()
	t.since = time.Now()
}

func (t *text) flush() {
	if t.err == nil {
		_, t.err = t.w.Write(t.b)
	}
	t.b = t.b[:0]
}
