package keygen

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
)

// The server's bounds for a file's time to live, in seconds.
const (
	leastTTL   = 3600
	usualTTL   = 2629746 // a month
	longestTTL = 100 * 365 * 24 * 3600
)

// checkOut is the meta of a request for a file.
type checkOut struct {
	Encrypt   *bool          `json:"encrypt"`
	Algorithm *string        `json:"algorithm"`
	TTL       jsontext.Value `json:"ttl"`
	Include   *[]string      `json:"include"`
}

// fileWanted describes a file to be made.
type fileWanted struct {
	algorithm string
	ttl       int64 // seconds; 0: no end
	include   []string
}

// asked reads the query and the meta. The meta takes precedence.
func (x *request) asked(may []string) (f fileWanted, a *response) {
	q := x.r.URL.Query()
	var in checkOut
	if x.r.Method == http.MethodPost {
		if a := x.meta(&in); a != nil {
			return f, a
		}
	}
	f.algorithm = "base64+" + algEd25519
	if in.Encrypt == nil && (q.Get("encrypt") == "true" || q.Get("encrypt") == "1") ||
		in.Encrypt != nil && *in.Encrypt {
		f.algorithm = "aes-256-gcm+" + algEd25519
	}
	algorithm := q.Get("algorithm")
	if in.Algorithm != nil {
		algorithm = *in.Algorithm
	}
	switch algorithm {
	case "":
	case "base64+" + algEd25519, "aes-256-gcm+" + algEd25519:
		f.algorithm = algorithm
	default:
		return f, problem(http.StatusBadRequest, "CHECKOUT_ALGORITHM_INVALID",
			"invalid encryption and/or signing algorithm: here it is base64+ed25519 or aes-256-gcm+ed25519",
			"parameter", "algorithm")
	}
	f.ttl = usualTTL
	ttl := string(in.TTL)
	if ttl == "" && q.Has("ttl") {
		if ttl = q.Get("ttl"); ttl == "" {
			ttl = "null"
		}
	}
	switch n, err := strconv.ParseInt(ttl, 10, 64); {
	case ttl == "":
	case ttl == "null":
		f.ttl = 0
	case err != nil || n < leastTTL || n > longestTTL:
		return f, problem(http.StatusBadRequest, "CHECKOUT_TTL_INVALID",
			"must be greater than or equal to 3600 (1 hour)", "parameter", "ttl")
	default:
		f.ttl = n
	}
	if in.Include != nil {
		f.include = *in.Include
	} else if s := q.Get("include"); s != "" {
		f.include = strings.Split(s, ",")
	}
	for _, name := range f.include {
		if !slices.Contains(may, name) {
			return f, problem(http.StatusBadRequest, "CHECKOUT_INCLUDE_INVALID", "invalid includes", "parameter",
				"include")
		}
	}
	return f, nil
}

// with returns the resources to include in a file. prefix precedes the names that belong to the licence.
func (x *request) with(include []string, prefix string, m *kept) []object {
	out := []object{}
	for _, name := range include {
		switch {
		case name == "license":
			out = append(out, x.licenseObject())
		case name == "components":
			for i := range m.Components {
				out = append(out, x.componentObject(m, &m.Components[i]))
			}
		case name == prefix+"entitlements":
			out = append(out, x.entitlements()...)
		case name == prefix+"policy":
			out = append(out, x.policyObject())
		case name == prefix+"product":
			out = append(out, x.productObject())
		default: // groups, owners and users, if Keygen's file has them
			kind := map[string]string{"group": "groups", "owner": "users", "users": "users",
				"environment": "environments"}[strings.TrimPrefix(name, prefix)]
			for _, o := range x.about.included {
				if o["type"] == kind && !slices.ContainsFunc(out, func(p object) bool {
					return p["type"] == kind && p["id"] == o["id"]
				}) {
					out = append(out, x.resource(o))
				}
			}
		}
	}
	return out
}

func (x *request) checkOutLicense() *response {
	f, a := x.asked([]string{"entitlements", "environment", "product", "policy", "group", "owner", "users"})
	if a != nil {
		return a
	}
	out := x.checkOut(&f, licenseFile, x.about.id, x.licenseObject(), x.with(f.include, "", nil), x.about.secret())
	if out.status == http.StatusOK {
		x.noteTime(func(t *times) { t.CheckedOut = x.now }, 0)
	}
	return out
}

func (x *request) checkOutMachine() *response {
	m := x.machine(x.args[0])
	if m == nil {
		return noMachineOf(x.args[0])
	}
	if a := x.noSlot(m); a != nil {
		return a
	}
	f, a := x.asked([]string{"license", "license.entitlements", "license.product", "license.policy", "license.owner",
		"license.users", "components", "environment", "group", "owner"})
	if a != nil {
		return a
	}
	secret := x.about.secret()
	if secret != "" {
		secret += m.Fingerprint
	}
	out := x.checkOut(&f, machineFile, m.ID, x.machineObject(m, ""), x.with(f.include, "license.", m), secret)
	if out.status == http.StatusOK {
		m.CheckedOut = x.now
		x.note(m)
	}
	return out
}

func (f *fileWanted) encrypted() bool { return strings.HasPrefix(f.algorithm, "aes") }

// checkOut answers with a file.
func (x *request) checkOut(f *fileWanted, k kind, id string, about object, included []object,
	secret string) *response {
	s := x.about
	switch {
	case !s.judged.InForce || !s.verdict.Good():
		return forbidden("", "a license that is not in force cannot be checked out: "+s.judged.Reason)
	case f.encrypted() && secret == "":
		return invalid("LICENSE_NOT_ENCRYPTABLE",
			"an encrypted file needs the license key, and the request shows none: authenticate with it, or leave "+
				"encrypt out",
			"/data/attributes/key")
	}
	certificate, m, err := x.sealed(f, k, about, included, secret)
	if err != nil {
		return problem(http.StatusInternalServerError, "", "the file cannot be written", "", "")
	}
	if x.r.Method == http.MethodGet {
		return &response{status: http.StatusOK, bare: []byte(certificate), name: quotable(id) + ".lic"}
	}
	if f.include == nil {
		f.include = []string{}
	}
	related := object{"account": x.ofAccount(), "license": x.relate("licenses", s.id, "licenses", s.id)}
	if k == machineFile {
		related["machine"] = x.relate("machines", id, "machines", id)
	}
	return show(object{"type": string(k) + "-files", "id": newID(),
		"attributes": object{"certificate": certificate, "algorithm": f.algorithm, "includes": f.include,
			"ttl":    m["ttl"],
			"issued": m["issued"], "expiry": m["expiry"]}, "relationships": related})
}

// calendar adds a time to live as the server does: it splits the seconds into years, months, weeks and so on, and
// counts these by the calendar. A month of seconds is a calendar month.
func calendar(t time.Time, seconds int64) time.Time {
	const year, month, day = 31556952, 2629746, 86400
	years, seconds := seconds/year, seconds%year
	months, seconds := seconds/month, seconds%month
	t = enforcer.Period{Months: int(12*years + months)}.After(t)
	return t.AddDate(0, 0, int(seconds/day)).Add(time.Duration(seconds%day) * time.Second)
}

// sealed makes a file, signed with the dialect's key, and returns it with its meta. It never outlasts the licences.
func (x *request) sealed(f *fileWanted, k kind, about object, included []object,
	secret string) (certificate string, meta object, err error) {
	issued := x.now.UTC().Truncate(time.Millisecond)
	ttl := f.ttl
	var expiry time.Time
	if ttl > 0 {
		expiry = calendar(issued, ttl)
	}
	if end := x.about.verdict.HoldsUntil; !end.IsZero() && (expiry.IsZero() || end.Before(expiry)) {
		expiry = end
		ttl = max(1, int64(end.Sub(issued)/time.Second))
	}
	meta = object{"issued": stamp(issued), "expiry": stamp(expiry), "ttl": nil}
	if ttl > 0 {
		meta["ttl"] = ttl
	}
	dataset, err := json.Marshal(object{"data": x.resourceOf(about, false),
		"included": x.resourcesOf(included), "meta": meta}, json.Deterministic(true))
	if err != nil {
		return "", nil, err
	}
	enc := base64.StdEncoding.EncodeToString(dataset)
	if f.encrypted() {
		enc = encrypt(secret, dataset)
	}
	sig := ed25519.Sign(x.signer, []byte(string(k)+"/"+enc))
	return armour(k, envelope{Enc: enc, Sig: base64.StdEncoding.EncodeToString(sig), Alg: f.algorithm}), meta, nil
}

// encrypt is the inverse of gcm, in the form of a file.
func encrypt(secret string, plain []byte) string {
	key := sha256.Sum256([]byte(secret))
	block, err := aes.NewCipher(key[:])
	if err != nil { // only for another key length
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil { // only for another block size
		panic(err)
	}
	iv := make([]byte, aead.NonceSize())
	rand.Read(iv) // never fails: see crypto/rand
	sealed := aead.Seal(nil, iv, plain, nil)
	n := len(sealed) - aead.Overhead()
	text := base64.StdEncoding.EncodeToString
	return text(sealed[:n]) + "." + text(iv) + "." + text(sealed[n:])
}

// lineLength is the length in bytes of the lines of Keygen's files.
const lineLength = 60

// armour writes the form that strip and open read.
func armour(k kind, e envelope) string {
	b, err := json.Marshal(e)
	if err != nil { // three texts of base64
		panic(err)
	}
	body := base64.StdEncoding.EncodeToString(b)
	name := strings.ToUpper(string(k)) + armourTail
	var out strings.Builder
	out.WriteString(armourBegin + name + "\n")
	for len(body) > 0 {
		n := min(lineLength, len(body))
		out.WriteString(body[:n] + "\n")
		body = body[n:]
	}
	out.WriteString(armourEnd + name + "\n")
	return out.String()
}
