package brainframe_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/brainframe"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/usher"
)

// place is a dialect at a desk whose documents are verified.
type place struct {
	*plugintest.Desk
	t       *testing.T
	handler http.Handler
}

// open opens a desk for an admin, at noon of the day after the licences' issue.
func open(t *testing.T, d brainframe.Dialect) *place {
	t.Helper()
	desk := plugintest.NewDesk(brainframe.System, issued.Add(24*time.Hour))
	desk.Sender = &enforcer.Caller{UID: 0, Admin: true}
	desk.Check = func(doc []byte) (*enforcer.License, *enforcer.Problem) {
		if f := format(); f.Recognise(doc) {
			return f.Verify(doc, anchors())
		}
		return usher.Format{}.Verify(doc, []plugin.Anchor{{System: usher.System, KeyID: keyID, Algorithm: "EdDSA",
			Key: otherKey.Public()}})
	}
	return &place{desk, t, d.Handler(desk)}
}

func (p *place) send(method, path, body string, header ...string) *httptest.ResponseRecorder {
	p.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.Body = http.MaxBytesReader(w, r.Body, plugin.MaxDialectBody)
	p.handler.ServeHTTP(w, r)
	return w
}

// ok sends a request, which must be answered 200 with a body.
func (p *place) ok(method, path, body, want string) {
	p.t.Helper()
	if w := p.send(method, path, body); w.Code != http.StatusOK || w.Body.String() != want {
		p.t.Errorf("%s %s: %d %s, and not %s", method, path, w.Code, w.Body, want)
	}
}

// refused sends a request, which must be refused with a title.
func (p *place) refused(method, path, body, title string) {
	p.t.Helper()
	w := p.send(method, path, body)
	if err := fault(w); w.Code < 400 || err != nil || !strings.Contains(w.Body.String(), `"title":"`+title+`"`) {
		p.t.Errorf("%s %s: %d %s (%v), and not %s", method, path, w.Code, w.Body, err, title)
	}
}

const (
	noLicence = `{"state":"missing","terms":null}`
	fourTerms = `{"state":"valid","terms":{"online_checkin":false,"max_streams":4,` +
		`"journal_max_allowed_age":86400.0,"expiration_date":"2027-01-31"}}`
)

// The four states and the four terms, to the letter: an absent term is null, no term is ever left out.
func TestLicenseInfo(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.ok("GET", "/api/license", "", noLicence)
	p.ok("PUT", "/api/license", string(key(t, nil)), fourTerms)
	p.ok("GET", "/api/license", "", fourTerms)
	p.ok("GET", "//api/license", "", fourTerms)
	p.ok("GET", "/behind/a/proxy/api//license/", "", fourTerms)
	p.ok("PUT", "/api/license", string(key(t, func(c *usher.Claims) {
		c.Expires, c.Features, c.CheckIn = 0, nil, &usher.CheckIn{Every: 1e7}
		c.Pools["streams"] = usher.Pool{Max: nil, Scope: "host"}
	})), `{"state":"valid","terms":{"online_checkin":true,"max_streams":null,"journal_max_allowed_age":null,`+
		`"expiration_date":null}}`)
	p.ok("PUT", "/api/license", string(key(t, func(c *usher.Claims) {
		c.Pools, c.Features["journal_max_allowed_age"] = nil, usher.Feature{
			Value: enforcer.Value{Kind: enforcer.KindNumber, Number: 1.5, Unit: "h"}}
	})), `{"state":"valid","terms":{"online_checkin":false,"max_streams":0,"journal_max_allowed_age":5400.0,`+
		`"expiration_date":"2027-01-31"}}`)
	p.Pass(400 * 24 * time.Hour)
	p.Judge(licence(t, nil))
	p.ok("GET", "/api/license", "", `{"state":"expired","terms":null}`)
	bad := licence(t, nil)
	bad.Suspended, bad.Expires = true, time.Time{}
	p.Judge(bad)
	p.ok("GET", "/api/license", "", `{"state":"invalid","terms":null}`)
}

// The state turns at the very instant of the end, before anybody has judged again.
func TestStateTurnsByItself(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.ok("PUT", "/api/license", string(key(t, nil)), fourTerms)
	p.Pass(time.Date(2027, 1, 30, 23, 59, 59, 0, time.UTC).Sub(p.Now()))
	p.ok("GET", "/api/license", "", fourTerms)
	p.Pass(time.Second)
	p.ok("GET", "/api/license", "", `{"state":"expired","terms":null}`)
	p.refused("PUT", "/api/streams/1/analyze", "true", brainframe.LicenseRequired)
}

// The day of expiration_date is exclusive, unless the setting says otherwise; an end within a day is never shown late.
func TestExpirationDay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		end                  time.Time
		exclusive, inclusive string
	}{{time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC), "2027-01-31", "2027-01-30"},
		{time.Date(2027, 1, 31, 15, 0, 0, 0, time.UTC), "2027-01-31", "2027-01-30"},
		{time.Date(2027, 1, 30, 23, 59, 59, 0, time.UTC), "2027-01-30", "2027-01-29"},
		{time.Date(2028, 3, 1, 0, 0, 0, 0, time.UTC), "2028-03-01", "2028-02-29"}} {
		for inclusive, want := range map[bool]string{false: c.exclusive, true: c.inclusive} {
			p := open(t, brainframe.Dialect{Inclusive: inclusive})
			p.Judge(licence(t, func(q *usher.Claims) { q.Expires = c.end.Unix() }))
			if got := p.send("GET", "/api/license", "").Body.String(); !strings.Contains(got, `"`+want+`"`) {
				t.Errorf("%s, inclusive %t: %s", c.end, inclusive, got)
			}
		}
	}
}

// Of several documents the terms in force together are shown: summed streams, the earliest end.
func TestSeveralDocuments(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.Documents["more.lic"] = key(t, func(c *usher.Claims) {
		c.ID, c.Role, c.Pools["streams"] = "L2", "add-on", usher.Pool{Max: new(int64(3)), Scope: "host"}
		c.Expires = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Unix()
		c.Features, c.CheckIn = nil, &usher.CheckIn{Every: 1e7}
	})
	p.ok("PUT", "/api/license", string(key(t, nil)), `{"state":"valid","terms":{"online_checkin":true,"max_streams":7,`+
		`"journal_max_allowed_age":86400.0,"expiration_date":"2026-12-01"}}`)
}

// A key that is bad in any way changes nothing, and its error has the title that clients know.
func TestBadKeys(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	good := string(key(t, nil))
	p.ok("PUT", "/api/license", good, fourTerms)
	expired := key(t, func(c *usher.Claims) { c.Expires = issued.Add(time.Hour).Unix() })
	bound := key(t, func(c *usher.Claims) { c.AgentKeys = []string{strings.Repeat("A", 43)} })
	for name, c := range map[string]struct{ key, title string }{
		"empty":             {"", brainframe.LicenseInvalid},
		"white space":       {" \r\n", brainframe.LicenseInvalid},
		"no base64":         {"not-a-key!", brainframe.LicenseInvalid},
		"not in base64":     {string(signed(t, vendorKey, nil)), brainframe.LicenseInvalid},
		"cut off":           {good[:len(good)/2], brainframe.LicenseInvalid},
		"unsigned":          {string(wrap([]byte(bare[0]))), brainframe.LicenseInvalid},
		"another's":         {string(wrap(signed(t, strangerKey, nil))), brainframe.LicenseInvalid},
		"too large":         {strings.Repeat("A", plugin.MaxDialectBody+1), brainframe.LicenseInvalid},
		"expired":           {string(expired), brainframe.LicenseExpired},
		"for another agent": {string(bound), brainframe.LicenseInvalid},
		"an opaque one":     {string(wrap([]byte(strings.Repeat("\x01\xfe", 200)))), brainframe.LicenseInvalid},
	} {
		t.Log(name)
		p.refused("PUT", "/api/license", c.key, c.title)
		p.ok("GET", "/api/license", "", fourTerms)
	}
	if string(p.Documents["brainframe.lic"]) != good || len(p.Documents) != 1 {
		t.Errorf("the documents are %v", p.Documents)
	}
}

// What a key holds may be another system's document, where that system trusts its signer. An earlier key takes the
// place of a later one, as on a server; but not of a later document that lies in the folder.
func TestKeysOfOtherSystems(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	doc := signed(t, otherKey, func(c *usher.Claims) { c.Issued += 60 })
	p.ok("PUT", "/api/license", string(wrap(doc)), fourTerms)
	if l := p.Verdict().Licenses[0].License; l.System != usher.System {
		t.Errorf("it is installed as a licence of %s", l.System)
	}
	p.ok("PUT", "/api/license", string(key(t, nil)), fourTerms)
	if l := p.Verdict().Licenses[0].License; l.System != brainframe.System || len(p.Documents) != 1 {
		t.Errorf("%s is in force, of %d", l.System, len(p.Documents))
	}
	for _, role := range []string{"add-on", "notice"} { // each is good, and none counts alone
		p.refused("PUT", "/api/license", string(key(t, func(c *usher.Claims) {
			c.ID, c.Role = "L2", role
			if role == "notice" {
				c.Pools, c.Features = nil, nil
			}
		})), brainframe.LicenseInvalid)
		p.ok("GET", "/api/license", "", fourTerms)
	}
	p.Documents["later.lic"] = doc
	p.refused("PUT", "/api/license", string(key(t, nil)), brainframe.LicenseInvalid)
}

// A key with a check-in duty is confirmed before it is installed. Whatever its upstream answers but yes, the good one
// stands.
func TestUnconfirmedKeys(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.ok("PUT", "/api/license", string(key(t, nil)), fourTerms)
	demanding := string(key(t, func(c *usher.Claims) {
		c.ID, c.CheckIn = "L2", &usher.CheckIn{Every: 1e7}
		c.Issued++
	}))
	asked := 0
	for _, c := range []struct {
		answer error
		title  string
	}{{plugin.Transiently("it is away"), brainframe.RemoteConnection},
		{fmt.Errorf("something else"), brainframe.RemoteConnection},
		{&plugin.Error{Class: plugin.Misconfigured, Reason: "no upstream", Hint: "name one"},
			brainframe.RemoteConnection},
		{&plugin.Error{Class: plugin.Refused, Code: enforcer.Expired, Reason: "over"}, brainframe.LicenseExpired},
		{&plugin.Error{Class: plugin.Refused, Code: enforcer.Suspended, Reason: "stop"}, brainframe.LicenseInvalid}} {
		p.OnConfirm = func([]byte) error { asked++; return c.answer }
		p.refused("PUT", "/api/license", demanding, c.title)
		p.ok("GET", "/api/license", "", fourTerms)
	}
	p.OnConfirm = func([]byte) error { asked++; return nil }
	p.ok("PUT", "/api/license", demanding, strings.Replace(fourTerms, "false", "true", 1))
	if asked != 6 {
		t.Errorf("the upstream is asked %d times", asked)
	}
	p.Full = true
	p.refused("PUT", "/api/license", string(key(t, nil)), brainframe.UnknownError)
}

// A stream has one slot, however often and by however many requests at once its analysis begins.
func TestStreams(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.Judge(licence(t, nil))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() { p.ok("PUT", fmt.Sprintf("/api/streams/%d/analyze", i%4), "true", "true") })
	}
	wg.Wait()
	p.refused("PUT", "/api/streams/4/analyze", " true\n", brainframe.AnalysisLimit)
	p.ok("PUT", "/api/streams/03/analyze", "true", "true")
	p.ok("PUT", "/api/streams/3/analyze", "false", "false")
	p.ok("PUT", "/api/streams/3/analyze", "false", "false")
	p.ok("GET", "/api/streams/3/analyze", "", "false")
	p.ok("PUT", "/api/streams/4/analyze", "true", "true")
	l := p.Leases(*p.Sender)[0]
	if l.Lifetime != enforcer.LifetimeHeld || l.Holder.Labels["stream"] == "" {
		t.Errorf("the lease is %+v", l)
	}
	p.Do(&enforcer.Release{ID: l.ID, Caller: enforcer.Caller{Admin: true}, Force: true, Owner: brainframe.System})
	p.ok("GET", "/api/streams/"+l.Holder.Labels["stream"]+"/analyze", "", "false")
	for _, body := range []string{"", "1", "null", `"true"`, "[true]", "truefalse"} {
		p.refused("PUT", "/api/streams/9/analyze", body, brainframe.InvalidFormat)
	}
	p.OnLate = func() *enforcer.Denial { return &enforcer.Denial{Code: enforcer.Draining, Detail: "the agent ends"} }
	p.refused("PUT", "/api/streams/9/analyze", "true", brainframe.UnknownError)
}

// What the API does not answer is refused in its form, and never with 502.
func TestOtherCalls(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.ok("GET", "/api/version", "", `"0.30.5"`)
	p.refused("GET", "/api/cloud_user", "", brainframe.CloudUserNotFound)
	for _, c := range [][2]string{{"GET", "/"}, {"GET", "/api"}, {"GET", "/api/oauth2_info"},
		{"PUT", "/api/cloud_tokens"},
		{"DELETE", "/api/license"}, {"POST", "/api/license"}, {"GET", "/api/streams/-1/analyze"},
		{"GET", "/api/streams/+1/analyze"}, {"GET", "/api/streams/x/analyze"},
		{"GET", "/api/streams/99999999999999999999/analyze"}, {"GET", "/api/streams"}, {"OPTIONS", "*"}} {
		p.refused(c[0], c[1], "", brainframe.NotImplemented)
	}
}

const credentials = "# users\nadmin:a-password-of-a-test\nviewer:another-password\u00e9\n\nshort:word\n" +
	"*:a-password-of-a-test\n"

// Over TCP a user shows HTTP Basic, and then the session's cookie, which ends with its time and its password.
func TestSessions(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.Judge(licence(t, nil))
	p.Sender, p.CredentialsFile, p.Installers = nil, []byte(credentials), []string{"admin"}
	get := func(title string, header ...string) *httptest.ResponseRecorder {
		t.Helper()
		w := p.send("GET", "/api/license", "", header...)
		if title == "" && w.Body.String() != fourTerms || title != "" && !strings.Contains(w.Body.String(), title) {
			t.Errorf("%q: %d %s, and not %s", header, w.Code, w.Body, title)
		}
		return w
	}
	basic := func(user, password string) string {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	get(brainframe.Unauthorized)
	for _, c := range [][2]string{{"admin", "wrong"}, {"admin", ""}, {"short", "word"},
		{"nobody", "a-password-of-a-test"},
		{"*", "a-password-of-a-test"}, {"admin", "another-password\u00e9"}} {
		if w := get(brainframe.Unauthorized, "Authorization", basic(c[0], c[1])); w.Code != 401 ||
			len(w.Result().Cookies()) > 0 {
			t.Errorf("%v: %d %v", c, w.Code, w.Result().Cookies())
		}
	}
	get("", "Authorization", basic("viewer", "another-password\u00e9"))
	get("", "Authorization", basic("viewer", "another-password\xe9")) // ISO 8859-1
	w := get("", "Authorization", basic("admin", "a-password-of-a-test"))
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Name != "session_id" || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("the cookies are %v", c)
	}
	session := "session_id=" + c[0].Value
	get("", "Cookie", session)
	p.Restart()
	p.handler = brainframe.Dialect{}.Handler(p.Desk)
	get("", "Cookie", session)
	for _, forged := range []string{"session_id=", "session_id=a.b.c", session + "x", session[:len(session)-1],
		strings.Replace(session, "session_id=YWRtaW4", "session_id=dmlld2Vy", 1)} {
		if w := get(brainframe.InvalidSession, "Cookie", forged); w.Code != 401 {
			t.Errorf("%s: %d", forged, w.Code)
		}
	}
	p.CredentialsFile = []byte(strings.Replace(credentials, "a-password-of-a-test", "a-new-password-of-it", 1))
	get(brainframe.InvalidSession, "Cookie", session)
	p.CredentialsFile = []byte(credentials)
	p.Pass(12 * time.Hour)
	if w := get(brainframe.InvalidSession, "Cookie", session); w.Code != 403 {
		t.Errorf("an old session, which is no guess: %d", w.Code)
	}
}

// Streams belong to the server, so that every user sees and ends them; licences are installed by the users that the
// configuration names alone.
func TestUsers(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	p.Judge(licence(t, nil))
	p.Sender, p.CredentialsFile, p.Installers = nil, []byte(credentials), []string{"admin"}
	as := func(user, password, method, path, body string) string {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth(user, password)
		return p.send(method, path, body, "Authorization", r.Header.Get("Authorization")).Body.String()
	}
	const one, two = "a-password-of-a-test", "another-password\u00e9"
	for _, c := range [][6]string{{"admin", one, "PUT", "/api/streams/7/analyze", "true", "true"},
		{"viewer", two, "GET", "/api/streams/7/analyze", "", "true"},
		{"viewer", two, "PUT", "/api/streams/7/analyze", "true", "true"},
		{"viewer", two, "PUT", "/api/streams/7/analyze", "false", "false"},
		{"admin", one, "PUT", "/api/license", string(key(t, nil)), fourTerms}} {
		if got := as(c[0], c[1], c[2], c[3], c[4]); got != c[5] {
			t.Errorf("%v: %s", c[:4], got)
		}
	}
	if got := as("viewer", two, "PUT", "/api/license", string(key(t, nil))); !strings.Contains(got,
		brainframe.InsufficientRole) {
		t.Errorf("a user that may not install: %s", got)
	}
	if n := p.InUse("streams"); n != 0 {
		t.Errorf("%d streams are in use", n)
	}
}

// What the agent refuses before the API is asked has the API's form, too.
func TestRefusalsBeforeTheHandler(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		code   enforcer.DenialCode
		path   string
		title  string
	}{{401, "unauthenticated", "/api/license", brainframe.Unauthorized},
		{403, enforcer.Forbidden, "/api/license", brainframe.InsufficientRole},
		{413, enforcer.TooLarge, "/api/license", brainframe.LicenseInvalid},
		{413, enforcer.TooLarge, "/api/streams/1/analyze", brainframe.InvalidFormat},
		{429, enforcer.RateLimited, "/", brainframe.UnknownError},
		{500, "internal", "/api/license", brainframe.UnknownError}} {
		w := httptest.NewRecorder()
		brainframe.Dialect{}.Refuse(w, httptest.NewRequest("PUT", c.path, nil), c.status,
			&enforcer.Denial{Code: c.code, Detail: "no"})
		if err := fault(w); err != nil || w.Code < 400 || !strings.Contains(w.Body.String(), c.title) {
			t.Errorf("%s: %d %s (%v)", c.code, w.Code, w.Body, err)
		}
	}
}

// A reason names no person.
func TestDialectHides(t *testing.T) {
	t.Parallel()
	p := open(t, brainframe.Dialect{})
	body := p.send("PUT", "/api/license", string(key(t, func(c *usher.Claims) {
		c.ID, c.Expires = "jane.doe@example.com", issued.Add(time.Hour).Unix()
	}))).Body.String()
	if strings.Contains(body, "jane") || !strings.Contains(body, brainframe.LicenseExpired) {
		t.Error(body)
	}
}

func TestCheckCredentials(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{"a:0123456789abcdef\n": "", "#\n\na:0123456789abcdef:more\n": "",
		"a:0123456789abcdef\nb:short\n": "line 2", "no colon in it at all": "line 1", ":0123456789abcdef": "line 1",
		"*:0123456789abcdef": "line 1", "# nobody\n": "no user", "": "no user"} {
		err := brainframe.Dialect{}.CheckCredentials([]byte(file))
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "short\n")) {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// FuzzDialect fuzzes paths, bodies and cookies: each answer is JSON, and a slot is only ever taken by true.
func FuzzDialect(f *testing.F) {
	f.Add("PUT", "/api/streams/1/analyze", "true", "session_id=YWRtaW4.1.a")
	f.Add("PUT", "//api//license", "e30=", "")
	f.Add("GET", "/api/version", "", "session_id=..")
	f.Fuzz(func(t *testing.T, method, path, body, cookie string) {
		r, err := http.NewRequest(method, "http://localhost", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path = path
		r.Header.Set("Cookie", cookie)
		desk := plugintest.NewDesk(brainframe.System, issued.Add(time.Hour), licence(t, nil))
		for _, sender := range []*enforcer.Caller{nil, {UID: 1000}} {
			desk.Sender, desk.CredentialsFile = sender, []byte(credentials)
			w := httptest.NewRecorder()
			brainframe.Dialect{}.Handler(desk).ServeHTTP(w, r)
			if !json.Valid(w.Body.Bytes()) || w.Code == http.StatusBadGateway {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if n := desk.InUse("streams"); n > 0 && (sender == nil || strings.TrimSpace(body) != "true") {
				t.Error("a slot is taken")
			}
		}
	})
}
