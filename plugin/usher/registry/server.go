package registry

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Handler answers agents: see docs/upstream.md. It tells a stranger nothing of a licence.
func (g *Registry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/{call}", g.serve)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		// Metrics name licences. This text is no exposition format, so that a scraper of this listener fails and shows
		// why.
		io.WriteString(w,
			"Metrics have a listener of their own: usher upstream --metrics-listen ADDR\n")
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "ok\n")
	})
	return mux
}

func (g *Registry) serve(w http.ResponseWriter, req *http.Request) {
	call := req.PathValue("call")
	fail := func(status int, detail string) {
		g.cfg.Answered(callLabel(call), "bad_request")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"status": status, "title": http.StatusText(status),
			"detail": detail})
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, req.Body, online.MaxMessage))
	if err != nil {
		fail(http.StatusRequestEntityTooLarge, "the request cannot be read, or is larger than 2 MiB")
		return
	}
	r, agent, err := online.OpenRequest(strings.TrimSpace(string(b)))
	if err != nil {
		fail(http.StatusBadRequest, err.Error())
		return
	}
	if r.Call != call {
		fail(http.StatusBadRequest, "the request is for another call than its address")
		return
	}
	// Over mutual TLS the two proofs must be of one agent.
	if req.TLS != nil && len(req.TLS.PeerCertificates) > 0 {
		if thumb, err := plugin.Thumbprint(req.TLS.PeerCertificates[0].PublicKey); err != nil || thumb != agent {
			fail(http.StatusBadRequest, "the request is signed by another key than the client certificate's")
			return
		}
	}
	var answer *Answer
	if call == online.CallWatch {
		answer, err = g.watch(req.Context(), r, agent)
	} else {
		answer, err = g.Handle(r, agent)
	}
	if err != nil {
		g.cfg.Log.Error("a request could not be answered", "call", call, "licence", r.License, "error", err)
		g.cfg.Answered(callLabel(call), "error")
		http.Error(w, "the upstream has a fault of its own", http.StatusInternalServerError)
		return
	}
	if answer.Reply == nil {
		fail(answer.Status, answer.Detail)
		return
	}
	payload, err := json.Marshal(answer.Reply)
	if err != nil {
		http.Error(w, "the upstream has a fault of its own", http.StatusInternalServerError)
		return
	}
	sign := g.cfg.Signer.SignAs
	if g.cfg.Site {
		sign = g.cfg.Signer.SignBare
	}
	token, err := sign(online.ReplyType, payload)
	if err != nil {
		g.cfg.Log.Error("a reply could not be signed", "error", err)
		http.Error(w, "the upstream cannot sign", http.StatusInternalServerError)
		return
	}
	status, result := http.StatusOK, "ok"
	if answer.Reply.Refused != nil {
		status, result = http.StatusForbidden, "refused"
	}
	g.cfg.Answered(callLabel(call), result)
	w.Header().Set("Content-Type", "application/jose")
	w.WriteHeader(status)
	io.WriteString(w, token)
}

// callLabel keeps callers' texts out of metrics.
func callLabel(call string) string {
	for _, c := range online.Calls() {
		if c == call {
			return c
		}
	}
	return "other"
}
