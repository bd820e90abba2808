package ucloud

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

// ErrorHeader carries the text of a refusal on the provider's socket. Its clients ignore the body.
const ErrorHeader = "ucloud-ipc-error"

// Server is a licence server: where a product's own licence manager listens, and the key for it. The keys of the
// provider's socket are capitalised.
type Server struct {
	Name    string
	Address *string
	Port    *int64
	License *string
}

// Parameter returns what a job gets as the parameter license_server: address:port/key. "null" stands for what is
// missing, and a missing key is left out with its slash.
func (s *Server) Parameter() string {
	text := func(p *string) string {
		if p == nil {
			return "null"
		}
		return *p
	}
	port := "null"
	if s.Port != nil {
		port = strconv.FormatInt(*s.Port, 10)
	}
	out := text(s.Address) + ":" + port
	if s.License != nil {
		out += "/" + *s.License
	}
	return out
}

// ipc answers an operation of the provider's local socket.
func (x *request) ipc(w http.ResponseWriter, op string) {
	out, f := x.operate(op)
	if f != nil {
		w.Header().Set(ErrorHeader, f.Why)
		write(w, f.Status, f)
		return
	}
	write(w, http.StatusOK, out)
}

func (x *request) operate(op string) (any, *Fault) {
	if f := x.read(); f != nil {
		return nil, f
	}
	var f *Fault
	if x.who, f = x.identify(); f != nil {
		return nil, f
	}
	serve := map[string]func() (any, *Fault){"browse": x.servers, "retrieve": x.server, "update": x.setServer,
		"remove": x.removeServer}[op]
	switch {
	case serve == nil:
		return nil, errGone
	case op != "retrieve" && !x.who.admin:
		return nil, refuse(http.StatusForbidden, "This is for admins of the agent")
	}
	return serve()
}

func (x *request) servers() (any, *Fault) {
	out := []Server{}
	x.Store().Range(keyServer, func(_ string, value []byte) bool {
		var s Server
		if json.Unmarshal(value, &s) == nil {
			out = append(out, s)
		}
		return true
	})
	return out, nil
}

// server returns the server of a licence to admins, and to callers that hold a slot of it.
func (x *request) server() (any, *Fault) {
	var id string
	if f := decode(x.body, &id); f != nil {
		return nil, f
	}
	r := x.may(id, Read)
	if r == nil {
		return nil, refuse(http.StatusNotFound, "Unable to find product for license")
	}
	if !x.who.admin && !x.holds(r) {
		return nil, refuse(http.StatusForbidden, "Only a caller that holds a slot of the licence is told its server")
	}
	b, ok := x.Store().Get(keyServer + r.Product.ID)
	var s Server
	if !ok || json.Unmarshal(b, &s) != nil {
		return nil, refuse(http.StatusNotFound, "Unable to find license details")
	}
	return struct {
		Server    `json:",inline"`
		Parameter string
	}{s, s.Parameter()}, nil
}

// holds reports whether the caller holds a slot of a licence.
func (x *request) holds(r *record) bool {
	for _, b := range x.bound(r) {
		if b.holder == holderOf(x.who.caller) {
			return true
		}
	}
	return false
}

func (x *request) setServer() (any, *Fault) {
	var s Server
	if f := decode(x.body, &s); f != nil {
		return nil, f
	}
	short := func(p *string) bool { return p == nil || len(*p) <= 4096 }
	switch {
	case s.Name == "" || len(s.Name) > maxName-len(keyServer):
		return nil, refuse(http.StatusBadRequest, "Name is missing or too long")
	case s.Port != nil && (*s.Port < 1 || *s.Port > 65535):
		return nil, refuse(http.StatusBadRequest, fmt.Sprintf("Port %d is none", *s.Port))
	case !short(s.Address) || !short(s.License):
		return nil, refuse(http.StatusBadRequest, "Address or License is longer than 4096 bytes")
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, errBad
	}
	if f := x.apply([]plugin.Change{{Key: keyServer + s.Name, Value: b}}); f != nil {
		return nil, f
	}
	return Empty{}, nil
}

func (x *request) removeServer() (any, *Fault) {
	var name string
	if f := decode(x.body, &name); f != nil {
		return nil, f
	}
	if len(name) > maxName-len(keyServer) {
		return Empty{}, nil
	}
	if f := x.apply([]plugin.Change{{Key: keyServer + name}}); f != nil {
		return nil, f
	}
	return Empty{}, nil
}
