package wire

// Keys is the answer to GET /v1/keys: the agent's public key as a JSON Web Key Set (RFC 7517), and the documents that
// vouch for it.
type Keys struct {
	Keys []Key `json:"keys"`
	// Withheld explains which licences the chain lacks, because the caller may not see them whole.
	Withheld []string `json:"withheld,omitempty"`
	// of the licences in force: documents that name the key (cnf.jkt, RFC 7800), and vendors' activations for it
	// (usher-activation+jwt)
	Chain []string `json:"chain"`
}

// Key is an Ed25519 public key (RFC 8037); its id is its RFC 7638 thumbprint.
type Key struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	KeyID     string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	// Dialect is the licence system whose answers the key signs; empty: it is the agent's own key.
	Dialect string `json:"dialect,omitempty"`
}

// Prove has the parameters of session.prove.
type Prove struct {
	Nonce string `json:"nonce" wire:"required"`
}

// Proof is the answer to session.prove: a JWT of type usher-session+jwt, signed with the agent's key.
type Proof struct {
	Token string `json:"token"`
}

// Hello has the parameters of session.hello, which may be left out.
type Hello struct {
	Versions []int             `json:"versions,omitempty"` // the session protocol versions of the client
	Client   string            `json:"client,omitempty"`   // the client's name, for the log
	Labels   map[string]string `json:"labels,omitempty"`   // of leases whose requests have none
}

// HelloAnswer is the answer to session.hello.
type HelloAnswer struct {
	Versions     []int    `json:"versions"` // those of the agent
	Capabilities []string `json:"capabilities"`
	Agent        Health   `json:"agent"`
	You          Holder   `json:"you"` // the client's process as the agent sees it
}

// Subscribe has the parameters of events.subscribe, which may be left out.
type Subscribe struct {
	// Mine limits the events to this process's leases, and leaves out its own actions.
	Mine bool `json:"mine,omitempty"`
}

// Cancel has the parameters of lease.cancel.
type Cancel struct {
	Request any `json:"request" wire:"required"` // the id of the waiting acquire: a number or a text
}

// LeaseRequest has the parameters of lease.renew, lease.release, lease.join and lease.attach.
type LeaseRequest struct {
	ID         string  `json:"id" wire:"required"`
	TTLSeconds float64 `json:"ttl_seconds,omitempty" wire:"positive"` // of lease.renew
	Force      bool    `json:"force,omitempty"`                       // of lease.release, for admins
	// of lease.release with force: for how long the holder gets no slots of the lease's pools; of a lease that was
	// released so: for how long from now, and 0 for no longer
	HoldOffSeconds *float64 `json:"hold_off_seconds,omitempty"`
}
