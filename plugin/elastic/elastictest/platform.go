package elastictest

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// Platform is an ECE and an Elasticsearch in one, which show their licences to whoever shows the credential. It is safe
// for concurrent use.
type Platform struct {
	// Authorization is the header that is let in; empty: any.
	Authorization string

	mu      sync.Mutex
	license map[string]any // as the document has it; nil: there is none
	status  int            // that all is answered with; 0: none
	calls   []string       // the paths that were asked for
}

// Put has the platform have another licence: a document of a Signer's; nil: none.
func (p *Platform) Put(document []byte) {
	var doc struct{ License map[string]any }
	if document != nil {
		d := json.NewDecoder(strings.NewReader(string(document)))
		d.UseNumber()
		if err := d.Decode(&doc); err != nil {
			panic(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.license = doc.License
}

// Answer has all be answered with a status; 0: as it is right.
func (p *Platform) Answer(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
}

// Calls returns the paths that were asked for.
func (p *Platform) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.calls...)
}

func (p *Platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, r.URL.Path)
	ece := strings.HasPrefix(r.URL.Path, "/api/v1/")
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		if !ece {
			w.Header().Set("X-Elastic-Product", "Elasticsearch")
		}
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body)
	}
	failed := func(status int, code string) {
		answer(status, map[string]any{"errors": []any{map[string]string{"code": code, "message": "…"}}})
	}
	switch {
	case p.status != 0:
		w.Header().Set("Retry-After", "7")
		failed(p.status, "root.other")
	case p.Authorization != "" && r.Header.Get("Authorization") != p.Authorization:
		failed(http.StatusUnauthorized, "root.unauthenticated")
	case p.license == nil && ece:
		failed(http.StatusNotFound, "license.license_not_found")
	case p.license == nil:
		answer(http.StatusNotFound, map[string]any{})
	case ece:
		answer(http.StatusOK, map[string]any{"license": p.license,
			"usage_stats": map[string]any{"total_connected_memory_total": 0}})
	default:
		shown := map[string]any{"status": "active"}
		for k, v := range p.license {
			if k != "signature" {
				shown[k] = v
			}
		}
		answer(http.StatusOK, map[string]any{"license": shown})
	}
}
