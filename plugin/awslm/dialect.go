package awslm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"unicode"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
	"github.com/usher-agent/usher/plugin/textual"
)

// Dialect answers License Manager's API from the agent's own pools, meters and features, for products that speak it
// through one of AWS's SDKs. Its zero value is ready.
type Dialect struct{}

var _ plugin.CredentialsChecker = Dialect{}

// SigningKeyPath is the path of the public key of borrowed licences, in PEM. GET needs no credential.
const SigningKeyPath = "/signing-key"

// System returns "awslm".
func (Dialect) System() string { return System }

// CheckCredentials names the line of a credentials_file whose secret is too short, or has white space in it. Some of
// AWS's SDKs take a comment on the line for a part of the value, and others cut it off.
func (Dialect) CheckCredentials(file []byte) error {
	in := bufio.NewScanner(bytes.NewReader(file))
	for n := 1; in.Scan(); n++ {
		name, value, _ := strings.Cut(textual.Value(in.Text()), "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), textual.Value(value)
		switch {
		case name != "aws_secret_access_key" && name != "aws_access_key_id":
		case strings.ContainsFunc(value, unicode.IsSpace):
			return fmt.Errorf("line %d: the value of %s has white space in it; "+
				"put a comment on a line of its own, because botocore and the AWS CLI take it for a part of the value",
				n, name)
		case name == "aws_secret_access_key" && len(value) < minSecret:
			return fmt.Errorf(
				"line %d: the secret has %d bytes, and must have at least %d; `openssl rand -hex 20` makes one", n,
				len(value), minSecret)
		}
	}
	return in.Err()
}

// Credential describes the credential of callers over TCP: they sign requests (Signature Version 4) with a key of the
// credentials_file.
func (Dialect) Credential() string { return "an access key of credentials_file" }

// Handler answers the API.
func (Dialect) Handler(d plugin.Desk) http.Handler {
	h := &local{Desk: d, leases: map[string]leaseRef{}, known: map[string]bool{}, records: map[string]*record{},
		byClient: map[string]string{},
		kept:     map[string]load{}}
	h.loadRecords()
	return h
}

// local is the API of one agent.
type local struct {
	plugin.Desk
	one [64]sync.Mutex // by ClientToken: two requests with one token run one after the other

	mu       sync.Mutex          // guards the fields below
	leases   map[string]leaseRef // by client key: the lease that was checked out with it
	known    map[string]bool     // callers whose leases are in leases
	swept    int                 // the number of leases that the last sweep left
	records  map[string]*record  // by consumption token: the store's content
	byClient map[string]string   // by client key: the consumption token of a record
	kept     map[string]load     // of records, by caller
	bytes    int                 // of all records
	seen     *enforcer.Verdict   // the verdict that shown was made from
	shown    []*view

	keyOnce sync.Mutex
}

func (h *local) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && r.URL.Path == SigningKeyPath {
		h.publishKey(w)
		return
	}
	op, answer, f := h.serve(r)
	var id [16]byte
	rand.Read(id[:]) // never fails: see crypto/rand
	s := hex.EncodeToString(id[:])
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set(RequestIDHeader, s[:8]+"-"+s[8:12]+"-"+s[12:16]+"-"+s[16:20]+"-"+s[20:])
	if f == nil {
		b, err := json.Marshal(answer)
		d := h.Late(r)
		if err == nil && d == nil {
			_, _ = w.Write(b) // a repetition with the same ClientToken finds a grant whose answer was lost
			return
		}
		if err != nil {
			f = &Fault{ErrServerInternal, "The answer cannot be written: " + err.Error()}
		} else {
			f = faultOf(d)
		}
	}
	f = f.declaredFor(op)
	w.Header().Set(ErrorTypeHeader, f.Code)
	b, err := json.Marshal(f)
	if err != nil { // only for invalid UTF-8, which no message has
		b = []byte(`{"__type":"` + f.Code + `"}`)
	}
	w.WriteHeader(f.Status())
	_, _ = w.Write(b) // as above
}

// declaredFor returns an error with a code that the operation may answer and a message that the caller may read.
func (f *Fault) declaredFor(op string) *Fault {
	out := &Fault{f.Code, redact.Text(strings.ToValidUTF8(f.Message, "?"))}
	if _, known := declared[op]; !known || Declared(op, f.Code) {
		return out
	}
	if out.Code = ErrValidation; Declared(op, ErrInvalidParameter) {
		out.Code = ErrInvalidParameter
	}
	return out
}

// serve reads a request, identifies the caller, and answers.
func (h *local) serve(r *http.Request) (op string, answer any, f *Fault) {
	op, ok := strings.CutPrefix(r.Header.Get(TargetHeader), TargetPrefix)
	if _, known := declared[op]; r.Method != http.MethodPost || !ok || !known {
		return "", nil, &Fault{ErrUnknownOperation,
			"There is no such operation here; Usher answers the operations that consume licences, by POST with the " +
				"header X-Amz-Target."}
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != ContentType {
		return op, nil, invalid("The Content-Type must be %s.", ContentType)
	}
	body, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return op, nil, invalid("The request has more than %d bytes.", large.Limit)
	case err != nil:
		return op, nil, invalid("The request could not be read to its end.")
	case op == OpGetAccessToken: // it is never signed
		answer, f = as(body, h.accessToken)
		return op, answer, f
	}
	c, f := h.caller(r, body)
	if f != nil {
		return op, nil, f
	}
	switch op {
	case OpCheckout:
		answer, f = as(body, func(in *CheckoutRequest) (any, *Fault) { return h.checkout(lasting(r), c, in) })
	case OpBorrow:
		answer, f = as(body, func(in *BorrowRequest) (any, *Fault) { return h.borrow(lasting(r), c, in) })
	case OpExtend:
		answer, f = as(body, func(in *ExtendRequest) (any, *Fault) { return h.extend(c, in) })
	case OpCheckIn:
		answer, f = as(body, func(in *CheckInRequest) (any, *Fault) { return h.checkIn(c, in) })
	case OpGetLicense:
		answer, f = as(body, h.getLicense)
	case OpGetUsage:
		answer, f = as(body, h.getUsage)
	case OpListReceived:
		answer, f = as(body, h.listReceived)
	}
	return op, answer, f
}

// lasting returns a request's context without its end. So a lost answer does not undo a checkout: the caller repeats
// the request with its ClientToken, or the checkout ends with its time.
func lasting(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

// as decodes, validates and answers a request.
func as[T any, P interface {
	*T
	Validate() *Fault
}](body []byte, answer func(P) (any, *Fault)) (any, *Fault) {
	in, f := Decode[T](body)
	if f == nil {
		f = P(in).Validate()
	}
	if f != nil {
		return nil, f
	}
	return answer(P(in))
}

// caller identifies the caller, by the kernel or the listener, or else by the request's signature.
func (h *local) caller(r *http.Request, body []byte) (enforcer.Caller, *Fault) {
	if c, ok := h.Caller(r); ok {
		return c, nil
	}
	file, err := h.Credentials(r)
	if err != nil {
		h.Log().Error("the credentials file cannot be read", "error", err)
		return enforcer.Caller{},
			&Fault{ErrServerInternal, "The credentials of this listener cannot be read; the agent's log says more."}
	}
	key, err := verifySignature(r, body, file)
	if err != nil {
		return enforcer.Caller{}, &Fault{ErrAccessDenied, "The request is refused: " + err.Error() + "."}
	}
	return h.CallerBy(r, key), nil
}

func (h *local) accessToken(*AccessTokenRequest) (any, *Fault) {
	return nil, &Fault{ErrAuthorization,
		"This is a licence agent (Usher), which trades no refresh tokens: call it with the credentials of its " +
			"listener instead."}
}

// faultOf translates a denial into an error of the API.
func faultOf(d *enforcer.Denial) *Fault {
	code := ErrInvalidParameter
	switch d.Code {
	case enforcer.NoSlots, enforcer.NotShared, enforcer.MeterEmpty, enforcer.PoolUnknown, enforcer.HeldOff:
		code = ErrNoEntitlements
	case enforcer.LicenseMissing, enforcer.LicenseInvalid, enforcer.LicenseExpired, enforcer.LeaseUnknown,
		enforcer.NotHolder:
		code = ErrResourceNotFound
	case enforcer.DeniedByPolicy:
		code = ErrAccessDenied
	case enforcer.TooLarge:
		code = ErrValidation
	case enforcer.RateLimited:
		code = ErrRateLimit
	case enforcer.Storage, enforcer.Draining:
		code = ErrServerInternal
	default: // forbidden, and mistakes of this dialect
	}
	return &Fault{code, sentence(d)}
}

func sentence(d *enforcer.Denial) string {
	if d.Hint == "" {
		return d.Detail
	}
	return d.Detail + "; " + d.Hint
}

func storeFault(err error) *Fault {
	if errors.Is(err, plugin.ErrStoreFull) {
		return &Fault{ErrRateLimit, "There is no room to record another checkout; try again later."}
	}
	return &Fault{ErrServerInternal, fmt.Sprintf("The checkout could not be stored: %v.", err)}
}
