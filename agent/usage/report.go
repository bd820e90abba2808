package usage

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/client/wire"
)

// reportType is the type of a signed report (RFC 7519 §5.1).
const reportType = "usher-usage+jwt"

// MaxReport is the size in bytes of the largest report that is read.
const MaxReport = 64 << 20

// Claims are a report: what an agent's record has of a period. docs/usage.md describes the members.
type Claims struct {
	Version  int             `json:"v"` // 1
	Issued   time.Time       `json:"issued"`
	Nonce    string          `json:"nonce,omitempty"` // of whoever asked for it
	Product  string          `json:"product"`
	AgentKey string          `json:"agent_key"` // RFC 7638 thumbprint
	Host     string          `json:"host"`      // as usher fingerprint --short has it
	Licenses []ReportLicense `json:"licenses"`  // in force when the report was made
	From     time.Time       `json:"from"`
	To       time.Time       `json:"to"`
	// Record are the closed hours, each a line of the agent's signed chain.
	Record  []json.RawMessage   `json:"record"`
	Open    []wire.UsageHour    `json:"open"`
	Missing []wire.UsageMissing `json:"missing"`
	// Vouchers are documents of the vendor's that name the agent's key.
	Vouchers []string `json:"vouchers"`
	// Users is the same by user and day, where that was asked for: lines of another signed chain.
	Users *ClaimsByUser `json:"users,omitempty"`
}

// ClaimsByUser is what a report says of users.
type ClaimsByUser struct {
	Setting string              `json:"setting"` // privacy.users when the report was made
	From    time.Time           `json:"from"`    // whole days
	To      time.Time           `json:"to"`
	Record  []json.RawMessage   `json:"record"`
	Open    []wire.UsersDay     `json:"open"`
	Missing []wire.UsageMissing `json:"missing"`
}

// ReportLicense is a licence that was in force.
type ReportLicense struct {
	ID       string `json:"id"`
	System   string `json:"system"`
	Issuer   string `json:"issuer"`
	KeyID    string `json:"key_id"`
	Document string `json:"document_sha256"` // in hex
}

// Sign signs a report with the agent's key, as a compact JWS that has the public key in its header.
func Sign(key ed25519.PrivateKey, c *Claims) (string, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{EmbedJWK: true}).WithType(reportType)
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, options)
	if err != nil {
		return "", err
	}
	jws, err := s.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// Report is a report that has been read, and whose signature and chain hold.
type Report struct {
	Claims
	Key   ed25519.PublicKey
	Hours []wire.UsageHour // of the record and the open ones, as they come
	// First and Last are the record's first and last hour in the report, and the digests of the line before the first
	// and of the last; zero where there is none.
	First, Last eventlog.Head
	digests     map[uint64]string
	// Days are what users had in use, of the record and the open ones.
	Days []wire.UsersDay
}

// errReport begins what is wrong with a report.
var errReport = errors.New("the report does not hold")

// ReadReport reads a report and checks all that it says of itself: that the key in it has signed it, that the same key
// has signed each hour, and that each hour follows from the one before. Whose key that is, it cannot know.
func ReadReport(text []byte) (*Report, error) {
	bad := func(format string, args ...any) (*Report, error) {
		return nil, fmt.Errorf("%w: %w", errReport, fmt.Errorf(format, args...))
	}
	if len(text) > MaxReport {
		return bad("it has %d bytes, and the most is %d", len(text), MaxReport)
	}
	jws, err := jose.ParseSignedCompact(strings.TrimSpace(string(text)), []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return bad("it is not a signed report (usher report --sign writes one): %v", err)
	}
	h := jws.Signatures[0].Protected
	if typ, _ := h.ExtraHeaders[jose.HeaderType].(string); typ != reportType {
		return bad("it is not of type %s", reportType)
	}
	if h.JSONWebKey == nil {
		return bad("it does not name its key")
	}
	key, ok := h.JSONWebKey.Key.(ed25519.PublicKey)
	if !ok {
		return bad("it is not signed by an Ed25519 key, so it is no agent's")
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return bad("its signature does not match: it was changed after it was signed")
	}
	r := &Report{Key: key, digests: map[uint64]string{}}
	if err := json.Unmarshal(payload, &r.Claims); err != nil {
		return bad("it cannot be read: %v", err)
	}
	if r.Version != 1 {
		return bad("it is of version %d, and this program knows version 1; use a newer one", r.Version)
	}
	if thumb := identity.Thumbprint(key); thumb != r.AgentKey {
		return bad("it names agent key %s, and %s has signed it", r.AgentKey, thumb)
	}
	if err := r.chain(); err != nil {
		return bad("%w", err)
	}
	r.Hours = append(r.Hours, r.Open...)
	if r.Users != nil {
		if err := r.days(); err != nil {
			return bad("%w", err)
		}
	}
	return r, nil
}

// chain checks the hours of the record.
func (r *Report) chain() (err error) {
	r.First, r.Last, err = links("hour", HourClosed, r.Record, r.Missing, r.Key,
		func(e eventlog.Event, digest string) error {
			var h wire.UsageHour
			if err := json.Unmarshal(e.Body, &h); err != nil {
				return err
			}
			h.Sequence, h.Hour = e.Sequence, h.Hour.UTC()
			r.digests[e.Sequence] = digest
			r.Hours = append(r.Hours, h)
			return nil
		})
	return err
}

// days checks the days of the record by user.
func (r *Report) days() error {
	_, _, err := links("day", DayClosed, r.Users.Record, r.Users.Missing, r.Key,
		func(e eventlog.Event, _ string) error {
			var d wire.UsersDay
			if err := json.Unmarshal(e.Body, &d); err != nil {
				return err
			}
			d.Sequence, d.Day = e.Sequence, d.Day.UTC()
			r.Days = append(r.Days, d)
			return nil
		})
	r.Days = append(r.Days, r.Users.Open...)
	return err
}

// links checks the lines of a record, each of a stretch of time that what names: that the key has signed each, and that
// each follows from the one before, but for those that are missing. first has the digest of the line before the first.
func links(what, typ string, record []json.RawMessage, missing []wire.UsageMissing, key ed25519.PublicKey,
	see func(e eventlog.Event, digest string) error) (first, last eventlog.Head, err error) {
	gone := map[uint64]bool{} // the agent itself says that lines are missing before these
	for _, m := range missing {
		gone[m.Before] = true
	}
	for i, raw := range record {
		raw = bytes.TrimSpace(raw)
		var e eventlog.Event
		none := json.Unmarshal(raw, &e) != nil || e.Type != typ
		switch {
		case none:
			return first, last, fmt.Errorf("the %d. line of its record is no %s", i+1, what)
		case !eventlog.Signed(raw, key):
			return first, last, fmt.Errorf("%s %d of its record is not signed by the agent's key: it was changed", what,
				e.Sequence)
		case i == 0:
			first = eventlog.Head{Sequence: e.Sequence, Digest: e.Previous}
		case e.Sequence <= last.Sequence:
			return first, last,
				fmt.Errorf("%s %d of its record comes after %s %d", what, e.Sequence, what, last.Sequence)
		case (e.Sequence != last.Sequence+1 || e.Previous != last.Digest) && !gone[e.Sequence]:
			return first, last, fmt.Errorf("%s %d of its record does not follow from %s %d: %ss were taken out", what,
				e.Sequence, what, last.Sequence, what)
		}
		last = eventlog.Head{Sequence: e.Sequence, Digest: eventlog.Digest(raw)}
		if see(e, last.Digest) != nil {
			return first, last, fmt.Errorf("the %d. line of its record is no %s", i+1, what)
		}
	}
	return first, last, nil
}

// Usage returns a report in the API's form.
func (r *Report) Usage() wire.Usage {
	u := wire.Usage{From: r.From, To: r.To, Product: r.Product, AgentKey: r.AgentKey, Host: r.Host,
		Hours: []wire.UsageHour{}, Missing: r.Missing}
	for _, h := range r.Hours {
		if !h.Hour.Before(r.From) && h.Hour.Before(r.To) {
			u.Hours = append(u.Hours, h)
		}
	}
	u.Gaps = Gaps(u.Hours, r.From, r.To, r.Issued)
	if x := r.Users; x != nil {
		u.UsersSetting, u.UsersMissing = x.Setting, x.Missing
		for _, d := range r.Days {
			if !d.Day.Before(x.From) && d.Day.Before(x.To) {
				u.Users = append(u.Users, d)
			}
		}
	}
	return u
}
