package registry

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Probes need no certificate where agents do, and nothing else is let through.
func TestProbesNeedNoCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(certified(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	defer s.Close()
	for what, want := range map[string]int{"GET /healthz": 200, "GET /metrics": 200, "POST /healthz": 403,
		"POST /v1/activate": 403, "GET /v1/activate": 403, "GET /": 403} {
		var method, path string
		for i := range what {
			if what[i] == ' ' {
				method, path = what[:i], what[i+1:]
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s answers %d, want %d", what, res.StatusCode, want)
		}
	}
}
