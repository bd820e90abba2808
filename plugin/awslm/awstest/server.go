// Package awstest is a License Manager for tests: it counts, lets checkouts run out, deduplicates by ClientToken, and
// fails on demand. It answers the JSON 1.1 API over HTTP, and STS's AssumeRoleWithWebIdentity.
package awstest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin/awslm"
)

// Fault is the failure of one call.
type Fault int

// The faults.
const (
	Throttle    Fault = iota + 1 // RateLimitExceededException, nothing done
	Internal                     // ServerInternalException with status 500, nothing done
	Drop                         // the connection breaks, nothing done
	DropAfter                    // all is done, and the connection breaks before the answer
	Empty                        // all is done, and the answer is 200 without a body
	EmptyObject                  // … and the answer is {}
	Partial                      // the last entitlement that was asked for is not allowed
	NewToken                     // Extend gives another token to go on with
	Page                         // 400 with HTML
	Hang                         // no answer before the caller gives up
	Deny                         // AccessDeniedException
	NoService                    // AccessDeniedException of an account that was never onboarded
	Few                          // one less is allowed than was asked for
)

// Checkout is a granted checkout.
type Checkout struct {
	Token   string
	License string
	Type    string
	Taken   []awslm.EntitlementData
	Until   time.Time // zero: for ever
	Node    string
}

type answered struct {
	request string
	answer  []byte
	token   string
}

// Server is a License Manager.
type Server struct {
	URL string
	Key *rsa.PrivateKey // the seller's, which signs borrowed licences

	mu       sync.Mutex
	now      time.Time
	licenses map[string]*awslm.License
	out      map[string]*Checkout
	spent    map[string]map[string]int64 // by licence and entitlement: drawn for good
	done     map[string]answered         // by ClientToken
	faults   map[string][]Fault
	calls    map[string]int
	tokens   []string // that were asked with
	refresh  string
	n        int
	closing  chan struct{}
}

var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// New starts a server. Its clock stands still at now until Advance.
func New(t testing.TB, now time.Time) *Server {
	t.Helper()
	s := &Server{Key: signingKey(), now: now, licenses: map[string]*awslm.License{}, out: map[string]*Checkout{},
		spent: map[string]map[string]int64{},
		done:  map[string]answered{}, faults: map[string][]Fault{}, calls: map[string]int{},
		closing: make(chan struct{})}
	h := httptest.NewServer(s)
	s.URL = h.URL
	t.Cleanup(func() {
		close(s.closing)
		h.Close()
	})
	return s
}

// Put adds a licence, or replaces it.
func (s *Server) Put(l awslm.License) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.licenses[l.LicenseArn] = &l
}

// Refresh sets the valid refresh token.
func (s *Server) Refresh(token string) { s.mu.Lock(); s.refresh = token; s.mu.Unlock() }

// Advance moves the clock.
func (s *Server) Advance(d time.Duration) { s.mu.Lock(); s.now = s.now.Add(d); s.mu.Unlock() }

// Now tells the server's time.
func (s *Server) Now() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.now }

// Fail makes the next calls of an operation fail, in turn; with 0, a call succeeds.
func (s *Server) Fail(op string, f ...Fault) {
	s.mu.Lock()
	s.faults[op] = append(s.faults[op], f...)
	s.mu.Unlock()
}

// Heal removes the faults that have not happened yet.
func (s *Server) Heal() { s.mu.Lock(); s.faults = map[string][]Fault{}; s.mu.Unlock() }

// Calls returns the number of calls of an operation.
func (s *Server) Calls(op string) int { s.mu.Lock(); defer s.mu.Unlock(); return s.calls[op] }

// ClientTokens returns the ClientTokens of all checkouts.
func (s *Server) ClientTokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tokens)
}

// Out returns the checkouts that are not over.
func (s *Server) Out() (out []Checkout) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	for _, c := range s.out {
		out = append(out, *c)
	}
	return out
}

// Used returns how much of an entitlement is consumed.
func (s *Server) Used(arn, name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	return s.used(arn, name)
}

func (s *Server) used(arn, name string) (n int64) {
	n = s.spent[arn][name]
	for _, c := range s.out {
		for _, e := range c.Taken {
			if c.License == arn && e.Name == name && c.Type != awslm.Perpetual {
				v, _ := awslm.ParseValue(e.Value)
				n += v
			}
		}
	}
	return n
}

// expire removes checkouts that are over.
func (s *Server) expire() {
	for token, c := range s.out {
		if !c.Until.IsZero() && !c.Until.After(s.now) {
			delete(s.out, token)
		}
	}
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		s.sts(w, string(body))
		return
	}
	op, ok := strings.CutPrefix(r.Header.Get(awslm.TargetHeader), awslm.TargetPrefix)
	if !ok || r.Method != http.MethodPost || r.Header.Get("Content-Type") != awslm.ContentType {
		http.Error(w, "not of this API", http.StatusNotFound)
		return
	}
	s.mu.Lock()
	s.calls[op]++
	fault := Fault(0)
	if list := s.faults[op]; len(list) > 0 {
		fault, s.faults[op] = list[0], list[1:]
	}
	var answer []byte
	var f *awslm.Fault
	switch signed := r.Header.Get("Authorization") != ""; {
	case fault == Throttle:
		f = &awslm.Fault{Code: awslm.ErrRateLimit, Message: "Rate exceeded"}
	case fault == Internal:
		f = &awslm.Fault{Code: awslm.ErrServerInternal, Message: "internal"}
	case fault == Deny:
		f = &awslm.Fault{Code: awslm.ErrAccessDenied, Message: "User is not authorized to perform it"}
	case fault == NoService:
		f = &awslm.Fault{Code: awslm.ErrAccessDenied,
			Message: "Service role not found. Consult setup procedures in Service User Guide to create the required " +
				"role for your account."}
	case fault == Drop, fault == Page, fault == Hang:
	case signed == (op == awslm.OpGetAccessToken):
		f = &awslm.Fault{Code: awslm.ErrAccessDenied, Message: "signed, and must not be, or the other way round"}
	default:
		s.expire()
		answer, f = s.answer(op, body, fault)
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", awslm.ContentType)
	w.Header().Set(awslm.RequestIDHeader, "00000000-0000-4000-8000-000000000000")
	w.Header().Set("Date", s.Now().UTC().Format(http.TimeFormat))
	switch {
	case fault == Hang:
		select {
		case <-r.Context().Done():
		case <-s.closing:
		}
	case fault == Drop, fault == DropAfter:
		panic(http.ErrAbortHandler)
	case fault == Page:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "<html>proxy</html>")
	case f != nil:
		if !awslm.Declared(op, f.Code) && f.Code != awslm.ErrUnknownOperation {
			panic("undeclared: " + op + " " + f.Code)
		}
		b, _ := json.Marshal(f)
		w.WriteHeader(f.Status())
		_, _ = w.Write(b)
	case fault == Empty:
	case fault == EmptyObject:
		_, _ = io.WriteString(w, "{}")
	default:
		_, _ = w.Write(answer)
	}
}

// do decodes, validates and answers one operation.
func do[T any, P interface {
	*T
	Validate() *awslm.Fault
}](body []byte, answer func(P) (any, *awslm.Fault)) ([]byte, *awslm.Fault) {
	in, f := awslm.Decode[T](body)
	if f == nil {
		f = P(in).Validate()
	}
	if f != nil {
		return nil, f
	}
	out, f := answer(P(in))
	if f != nil {
		return nil, f
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, &awslm.Fault{Code: awslm.ErrServerInternal, Message: err.Error()}
	}
	return b, nil
}

func (s *Server) answer(op string, body []byte, fault Fault) ([]byte, *awslm.Fault) {
	switch op {
	case awslm.OpCheckout:
		return do(body, func(r *awslm.CheckoutRequest) (any, *awslm.Fault) {
			return s.once(r.ClientToken, string(body), func() (any, string, *awslm.Fault) {
				return s.checkout(r, fault)
			})
		})
	case awslm.OpBorrow:
		return do(body, func(r *awslm.BorrowRequest) (any, *awslm.Fault) {
			return s.once(r.ClientToken, string(body), func() (any, string, *awslm.Fault) { return s.borrow(r) })
		})
	case awslm.OpExtend:
		return do(body, func(r *awslm.ExtendRequest) (any, *awslm.Fault) { return s.extend(r, fault) })
	case awslm.OpCheckIn:
		return do(body, s.checkIn)
	case awslm.OpGetLicense:
		return do(body, func(r *awslm.LicenseRequest) (any, *awslm.Fault) {
			l, f := s.license(r.LicenseArn)
			if f != nil {
				return nil, f
			}
			plain := *l
			plain.ReceivedMetadata = nil
			return awslm.LicenseResponse{License: plain}, nil
		})
	case awslm.OpGetUsage:
		return do(body, s.usage)
	case awslm.OpListReceived:
		return do(body, s.list)
	case awslm.OpGetAccessToken:
		return do(body, func(r *awslm.AccessTokenRequest) (any, *awslm.Fault) {
			if s.refresh == "" || r.Token != s.refresh {
				return nil, &awslm.Fault{Code: awslm.ErrValidation, Message: "Invalid token " + r.Token}
			}
			return awslm.AccessTokenResponse{AccessToken: "access." + strconv.Itoa(s.calls[op]) + ".token"}, nil
		})
	}
	return nil, &awslm.Fault{Code: awslm.ErrUnknownOperation, Message: op}
}

// once answers a repeated ClientToken as the first time, unless its checkout is over.
func (s *Server) once(token, request string, do func() (any, string, *awslm.Fault)) (any, *awslm.Fault) {
	s.tokens = append(s.tokens, token)
	if was, ok := s.done[token]; ok {
		if was.request != request {
			return nil, &awslm.Fault{Code: awslm.ErrValidation, Message: "ClientToken was used with another request."}
		}
		if s.out[was.token] != nil {
			return raw(was.answer), nil
		}
	}
	out, consumption, f := do()
	if f != nil {
		return nil, f
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, &awslm.Fault{Code: awslm.ErrServerInternal, Message: err.Error()}
	}
	s.done[token] = answered{request, b, consumption}
	return out, nil
}

type raw []byte

func (r raw) MarshalJSON() ([]byte, error) { return r, nil }

// consumable reports whether a licence can be checked out.
func (s *Server) consumable(l *awslm.License) bool {
	end, _ := awslm.ParseTime(l.Validity.End)
	return l.Status == awslm.StatusAvailable && (l.ReceivedMetadata == nil ||
		l.ReceivedMetadata.ReceivedStatus == awslm.ReceivedActive) && (end.IsZero() || end.After(s.now))
}

func (s *Server) allowed(l *awslm.License, asked []awslm.EntitlementData) (out []awslm.EntitlementData) {
	for _, a := range asked {
		for _, e := range l.Entitlements {
			if e.Name != a.Name || e.Unit != a.Unit {
				continue
			}
			n, _ := awslm.ParseValue(a.Value)
			if e.Unit == awslm.UnitNone || e.Overage ||
				e.MaxCount != nil && n <= *e.MaxCount-s.used(l.LicenseArn, e.Name) {
				out = append(out, a)
			}
		}
	}
	return out
}

func (s *Server) token() string {
	s.n++
	return fmt.Sprintf("%032x", s.n)
}

func (s *Server) checkout(r *awslm.CheckoutRequest, fault Fault) (any, string, *awslm.Fault) {
	var l *awslm.License
	for _, x := range s.licenses {
		if x.ProductSKU == r.ProductSKU && x.Issuer.KeyFingerprint == r.KeyFingerprint &&
			x.Beneficiary == r.Beneficiary && s.consumable(x) && (l == nil || x.CreateTime > l.CreateTime) {
			l = x
		}
	}
	if l == nil {
		return nil, "", &awslm.Fault{Code: awslm.ErrResourceNotFound, Message: "License not found"}
	}
	asked := r.Entitlements
	if fault == Partial {
		asked = asked[:len(asked)-1]
	}
	list := s.allowed(l, asked)
	if fault == Few && len(list) > 0 {
		n, _ := awslm.ParseValue(list[0].Value)
		list[0].Value = strconv.FormatInt(n-1, 10)
	}
	if len(list) == 0 && fault != Partial {
		return nil, "", &awslm.Fault{Code: awslm.ErrNoEntitlements, Message: "No Entitlements Allowed"}
	}
	p := l.ConsumptionConfiguration.ProvisionalConfiguration
	if r.CheckoutType == awslm.Provisional && p == nil {
		return nil, "", &awslm.Fault{Code: awslm.ErrNoEntitlements, Message: "No Entitlements Allowed"}
	}
	c := &Checkout{Token: s.token(), License: l.LicenseArn, Type: r.CheckoutType, Taken: list, Node: r.NodeID}
	end := s.now.Add(time.Hour)
	if r.CheckoutType == awslm.Provisional {
		end = s.now.Add(time.Duration(p.MaxTimeToLiveInMinutes) * time.Minute)
		c.Until = end
	} else {
		if s.spent[l.LicenseArn] == nil {
			s.spent[l.LicenseArn] = map[string]int64{}
		}
		for _, e := range list {
			n, _ := awslm.ParseValue(e.Value)
			s.spent[l.LicenseArn][e.Name] += n
		}
	}
	s.out[c.Token] = c
	return awslm.CheckoutResponse{CheckoutType: r.CheckoutType, LicenseArn: l.LicenseArn,
		LicenseConsumptionToken: c.Token, EntitlementsAllowed: list, NodeID: r.NodeID,
		IssuedAt: awslm.LocalTime(s.now), Expiration: awslm.LocalTime(end)}, c.Token, nil
}

func (s *Server) extend(r *awslm.ExtendRequest, fault Fault) (any, *awslm.Fault) {
	c := s.out[r.LicenseConsumptionToken]
	if c == nil || !s.consumable(s.licenses[c.License]) {
		return nil, &awslm.Fault{Code: awslm.ErrResourceNotFound, Message: "No such consumption token"}
	}
	if c.Type != awslm.Provisional {
		return nil, &awslm.Fault{Code: awslm.ErrInvalidParameter, Message: "It cannot be extended."}
	}
	end := s.now.Add(time.Duration(
		s.licenses[c.License].ConsumptionConfiguration.ProvisionalConfiguration.MaxTimeToLiveInMinutes) * time.Minute)
	if !r.DryRun {
		c.Until = end
		if fault == NewToken {
			delete(s.out, c.Token)
			sum := sha512.Sum384([]byte(c.Token))
			c.Token = hex.EncodeToString(sum[:])
			s.out[c.Token] = c
		}
	}
	return awslm.ExtendResponse{LicenseConsumptionToken: c.Token, Expiration: awslm.ZonedTime(end)}, nil
}

func (s *Server) checkIn(r *awslm.CheckInRequest) (any, *awslm.Fault) {
	c := s.out[r.LicenseConsumptionToken]
	if c == nil {
		return nil, &awslm.Fault{Code: awslm.ErrResourceNotFound, Message: "No such consumption token"}
	}
	b := s.licenses[c.License].ConsumptionConfiguration.BorrowConfiguration
	if c.Type == awslm.Perpetual || c.Type == "BORROW" && (b.AllowEarlyCheckIn == nil || !*b.AllowEarlyCheckIn) {
		return nil, &awslm.Fault{Code: awslm.ErrInvalidParameter, Message: "It cannot be checked in."}
	}
	delete(s.out, c.Token)
	return struct{}{}, nil
}
