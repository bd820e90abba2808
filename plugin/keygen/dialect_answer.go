package keygen

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
)

// object is a JSON object of an answer.
type object = map[string]any

// response is the answer to a request.
type response struct {
	status   int
	doc      object // nil: no body
	bare     []byte // instead of doc: a file
	name     string // of bare
	location string
	media    string            // of doc; empty: JSON:API
	header   map[string]string // in addition to those of every answer
}

func reply(doc object) *response { return &response{status: http.StatusOK, doc: doc} }

func show(o object) *response { return reply(object{"data": o}) }

// problem is a refusal in the server's form. source is "pointer", "parameter" or "header", and at names the place.
func problem(status int, code, detail, source, at string) *response {
	title := map[int]string{http.StatusBadRequest: "Bad request", http.StatusUnauthorized: "Unauthorized",
		http.StatusForbidden: "Access denied",
		http.StatusNotFound:  "Not found", http.StatusConflict: "Conflict",
		http.StatusUnprocessableEntity: "Unprocessable resource"}[status]
	e := object{"title": cmp.Or(title, http.StatusText(status)), "detail": detail}
	if code != "" {
		e["code"] = code
	}
	if source != "" {
		e["source"] = object{source: at}
	}
	return &response{status: status, doc: object{"meta": object{"id": newID()}, "errors": []object{e}}}
}

func notFound(detail string) *response {
	return problem(http.StatusNotFound, "NOT_FOUND", detail, "", "")
}

func unauthorized(code, detail string) *response {
	return problem(http.StatusUnauthorized, code, detail, "", "")
}

func forbidden(code, detail string) *response {
	return problem(http.StatusForbidden, code, detail, "", "")
}

// invalid answers 422 for the value at pointer.
func invalid(code, detail, pointer string) *response {
	return problem(http.StatusUnprocessableEntity, code, detail, "pointer", pointer)
}

// denied translates a denial of the desk for Keygen's clients. limits has the code for each pool that may be full.
func denied(d *enforcer.Denial, limits map[string]string) *response {
	detail := d.Detail
	if d.Hint != "" {
		detail += "; " + d.Hint
	}
	switch d.Code {
	case enforcer.NoSlots, enforcer.NotShared, enforcer.MeterEmpty:
		code := cmp.Or(limits[d.Pool], limits[""])
		return invalid(code, exceeded(code, d)+detail, "/data")
	case enforcer.PoolUnknown, enforcer.DeniedByPolicy, enforcer.HeldOff, enforcer.Forbidden, enforcer.NotHolder:
		return forbidden("", detail)
	case enforcer.LicenseExpired:
		return forbidden("LICENSE_EXPIRED", detail)
	case enforcer.LicenseInvalid, enforcer.LicenseMissing:
		return forbidden("", detail)
	case enforcer.LeaseUnknown:
		return notFound(detail)
	case enforcer.BadRequest, enforcer.TooLarge:
		return invalid("", detail, "/data")
	case enforcer.RateLimited:
		return problem(http.StatusTooManyRequests, "TOO_MANY_REQUESTS", detail, "", "")
	default: // Storage, Draining, and later codes
		return problem(http.StatusServiceUnavailable, "", detail, "", "")
	}
}

// counted says in the server's words what a full pool counts.
var counted = map[string]string{"MACHINE_LIMIT_EXCEEDED": "machine count has",
	"MACHINE_CORE_LIMIT_EXCEEDED":    "machine core count has",
	"MACHINE_MEMORY_LIMIT_EXCEEDED":  "machine memory has",
	"MACHINE_DISK_LIMIT_EXCEEDED":    "machine disk has",
	"MACHINE_PROCESS_LIMIT_EXCEEDED": "process count has",
	"USES_LIMIT_EXCEEDED":            "usage has"}

// exceeded is the server's sentence for a limit that is exceeded, with the limit; empty: the code has none.
func exceeded(code string, d *enforcer.Denial) string {
	what, ok := counted[code]
	switch {
	case !ok:
		return ""
	case !d.HasUsage || d.Limit == enforcer.Unlimited:
		return what + " exceeded maximum allowed for license: "
	}
	return fmt.Sprintf("%s exceeded maximum allowed for license (%d; %d in use): ", what, d.Limit, d.InUse)
}

// write sends an answer. It asks the desk last whether the grant still stands: if it is over, the answer is a denial.
func (x *request) write(w http.ResponseWriter, a *response) {
	body := x.prepare(w.Header(), a)
	if d := x.Late(x.r); d != nil {
		if a.media != "" {
			a = relayError(http.StatusGone, relayNone, d.Detail)
		} else {
			a = denied(d, x.limits)
		}
		clear(w.Header())
		body = x.prepare(w.Header(), a)
	}
	w.WriteHeader(a.status)
	w.Write(body)
}

// prepare makes an answer's header and body, signed as Keygen signs: over the request target and Host as received. The
// SDKs verify these (keygen-go signs its host with the port, unlike the official server). See [VerifyResponse].
func (x *request) prepare(h http.Header, a *response) (body []byte) {
	body = a.bare
	switch {
	case a.doc != nil:
		x.conceal(a.doc)
		doc := a.doc
		if a.media == "" && x.about != nil {
			doc = x.shaped(doc, a.status == http.StatusCreated)
		}
		if x.key != "" || x.about != nil {
			h.Set("Cache-Control", "no-store")
		}
		h.Set("Content-Type", cmp.Or(a.media, x.media()))
		var err error
		// the readers have made sure that every text is UTF-8
		if body, err = json.Marshal(doc, json.Deterministic(true)); err != nil {
			x.Log().Error("an answer cannot be written", "error", err)
			a.status, body = http.StatusInternalServerError, nil
		}
	case a.bare != nil:
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Disposition", `attachment; filename="`+a.name+`"`)
	}
	for name, value := range a.header {
		h.Set(name, value)
	}
	if a.location != "" {
		h.Set("Location", a.location)
	}
	v, _ := askedVersion(x.r)
	h.Set("Keygen-Version", quotable(v))
	h.Set("Keygen-Edition", "CE")
	h.Set("Keygen-Mode", "singleplayer")
	account := x.accountID()
	h.Set(x.headerName("Keygen-Account"), account)
	if x.key != "" && x.about != nil {
		h.Set(x.headerName("Keygen-Bearer"), x.about.id)
	}
	h.Set("X-Request-Id", newID())
	date := time.Now().UTC().Format(http.TimeFormat)
	sum := sha256.Sum256(body)
	digest := "sha-256=" + base64.StdEncoding.EncodeToString(sum[:])
	message := fmt.Sprintf("(request-target): %s %s\nhost: %s\ndate: %s\ndigest: %s", strings.ToLower(x.r.Method),
		target(x.r), x.r.Host, date, digest)
	sig := base64.StdEncoding.EncodeToString(ed25519.Sign(x.signer, []byte(message)))
	h.Set("Date", date)
	h.Set("Digest", digest)
	h.Set("Keygen-Date", date)
	h.Set("Keygen-Digest", digest)
	h.Set("Keygen-Signature", fmt.Sprintf(
		`keyid=%q, algorithm="ed25519", signature=%q, headers="(request-target) host date digest"`, account, sig))
	if a.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	return body
}

// target is the path and query as sent.
func target(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	return r.URL.RequestURI() // a proxy's absolute form
}

// accountID names the account in answers.
func (x *request) accountID() string {
	if x.about != nil && x.about.license.Issuer != "" {
		return quotable(x.about.license.Issuer)
	}
	return quotable(cmp.Or(x.account, "usher"))
}

// quotable makes a text fit to stand in a header.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '"' || r == '\\' {
			return '-'
		}
		return r
	}, s[:min(len(s), 256)])
}

// newID returns a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return uuid(b)
}

// uuid writes 128 bits as a UUID.
func uuid(b [16]byte) string {
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// namedID makes an id for a resource that has none: always the same for the same names.
func namedID(names ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(names, "\x00")))
	b := [16]byte(sum[:16])
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80 // version 8
	return uuid(b)
}

// parseUUID reads a UUID.
func parseUUID(s string) (b [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return b, false
	}
	_, err := hex.Decode(b[:], []byte(strings.ReplaceAll(s, "-", "")))
	return b, err == nil && uuid(b) == s
}

// stamp writes a time as Keygen does; nil for none.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// relate is a relationship to one resource; an empty id for none. The path leads to the related resource.
func (x *request) relate(kind, id string, path ...string) object {
	out := object{"data": nil, "links": object{"related": x.at(path...)}}
	if id != "" {
		out["data"] = object{"type": kind, "id": id}
	}
	return out
}

// ofAccount is the relationship to the account.
func (x *request) ofAccount() object {
	return object{"data": object{"type": "accounts", "id": x.accountID()},
		"links": object{"related": "/v1/accounts/" + x.accountID()}}
}
