package metrics

import (
	"compress/gzip"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

const (
	// textChunk is how many bytes of an answer are made before they are sent, and others are let in.
	textChunk = 128 << 10
	// mostScrapes is how many scrapes are answered at a time.
	mostScrapes = 8
)

// Handler answers scrapes, in the text form or OpenMetrics. An answer is compressed where the caller takes that and it
// goes over a network: on the same host that costs both sides more than it saves.
//
// The series of pools may be a hundred thousand. They are written as they are made, a chunk at a time; the library
// would make, sort and check an object of each before it writes the first. Whoever asks for another form than these
// two, or for some metrics by name, gets the library's answer.
func (m *Metrics) Handler(network bool) http.Handler {
	library := promhttp.HandlerFor(m.Gatherer(), promhttp.HandlerOpts{EnableOpenMetrics: true,
		DisableCompression: !network})
	scrapes := make(chan struct{}, mostScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case scrapes <- struct{}{}:
			defer func() { <-scrapes }()
		default:
			http.Error(w, "there are too many scrapes at a time; try again later", http.StatusServiceUnavailable)
			return
		}
		format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
		kind := format.FormatType()
		if kind != expfmt.TypeTextPlain && kind != expfmt.TypeOpenMetrics || r.URL.Query().Has("name[]") {
			library.ServeHTTP(w, r)
			return
		}
		m.answer(w, format, network && takesGzip(r.Header))
	})
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
	t := &text{w: out, giveWay: m.giveWay, open: format.FormatType() == expfmt.TypeOpenMetrics}
	for i := range poolFamilies {
		t.family(&poolFamilies[i], pools)
	}
	rest := expfmt.NewEncoder(t, format)
	for _, f := range families {
		if err := rest.Encode(f); err != nil {
			return
		}
	}
	if c, ok := rest.(expfmt.Closer); ok {
		c.Close()
	}
	t.flush()
}

// text is an answer in the making, in the [text form] or in [OpenMetrics].
//
// [text form]: https://prometheus.io/docs/instrumenting/exposition_formats/
// [OpenMetrics]: https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
type text struct {
	w       io.Writer
	giveWay func()
	open    bool // OpenMetrics
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
		t.giveWay()
	}
}

func (t *text) flush() {
	if t.err == nil {
		_, t.err = t.w.Write(t.b)
	}
	t.b = t.b[:0]
}

// escape writes a label's value as both forms have it between quotes.
var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// family writes a metric of pools; nothing where it has no series.
func (t *text) family(f *poolFamily, pools []pool) {
	headed := false
	for i, value := range f.values {
		before, after := "usher_"+f.name+`{pool="`, `"} `
		switch { // labels come by name
		case f.label == "":
		case f.label < "pool":
			before = "usher_" + f.name + "{" + f.label + `="` + escape.Replace(value) + `",pool="`
		default:
			after = `",` + f.label + `="` + escape.Replace(value) + `"} `
		}
		for _, p := range pools {
			v, ok := f.of(p, i)
			if !ok {
				continue
			}
			if !headed {
				headed = true
				t.head(f)
			}
			t.b = append(append(t.b, before...), escape.Replace(p.name)...)
			t.b = append(t.number(append(t.b, after...), v), '\n')
			t.sent()
			if t.err != nil {
				return
			}
		}
	}
}

// head writes what a metric is.
func (t *text) head(f *poolFamily) {
	kind, name := "gauge", "usher_"+f.name
	if f.kind == prometheus.CounterValue {
		kind = "counter"
		if t.open {
			name = strings.TrimSuffix(name, "_total") // the suffix is the series' there
		}
	}
	t.b = append(t.b, "# HELP "+name+" "+f.help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// number writes a value.
func (t *text) number(b []byte, v float64) []byte {
	switch {
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case v == math.Trunc(v) && math.Abs(v) < 1e6: // nearly all are
		b = strconv.AppendInt(b, int64(v), 10)
		if t.open {
			b = append(b, ".0"...)
		}
		return b
	}
	from := len(b)
	b = strconv.AppendFloat(b, v, 'g', -1, 64)
	if t.open && !strings.ContainsAny(string(b[from:]), "e.") {
		b = append(b, ".0"...)
	}
	return b
}
