package awslm_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/remote"
)

func TestUpstream(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bad := granted()
	bad.LicenseArn, bad.Status = otherID, "SUSPENDED"
	sealed := newSite(t, func(l *awslm.License) { l.LicenseArn = otherID })
	s.Put(bad)
	refused := func() *plugin.Request {
		r := s.request()
		r.LicenseID, r.Document = otherID, sealed.doc
		return r
	}
	away := newSite(t)
	hang := make([]awstest.Fault, 100)
	for i := range hang {
		hang[i] = awstest.Hang
	}
	away.Fail(awslm.OpListReceived, hang...)
	samples := plugintest.UpstreamSamples{Request: s.request, Pool: "streams", Meter: "renders", Refused: refused,
		Away: away.Client}
	plugintest.Upstream(t, s.Client, samples)
	if n := s.Used(arn, "renders"); n != 3 {
		t.Errorf("%d were drawn, and 3 were asked for", n)
	}
	plugintest.Upstream(t, plugintest.Serve(t, remote.System{Format: awslm.Format{}, Upstream: s.Client}).Upstream(),
		samples)
}

// A seal is dated by the service's clock, whatever this host believes.
func TestSealTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	wrong := client(t, s.Server, func(c *awslm.Config) { c.Now = func() time.Time { return s.Now().AddDate(3, 0, 0) } })
	for range 2 {
		r, err := wrong.Fetch(t.Context(), &plugin.Request{AgentKey: agentThumb})
		if err != nil {
			t.Fatal(err)
		}
		if l, p := (awslm.Format{}).Verify(r.Document, []plugin.Anchor{sealedAnchor(t)}); p != nil ||
			!l.Issued.Equal(s.Now()) {
			t.Errorf("%+v %+v", l, p)
		}
		wrong = client(t, s.Server, func(c *awslm.Config) { c.LicenseArn = arn })
		s.Fail(awslm.OpListReceived, awstest.Deny) // and by GetLicense
	}
}

// What goes wrong on the way takes no second seat, and none is thought to be had that is not.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		faults []awstest.Fault
		class  plugin.Class // empty: it succeeds
		code   string
		out    int64
	}{
		"throttled once": {[]awstest.Fault{awstest.Throttle}, "", "", 2},
		"throttled": {[]awstest.Fault{awstest.Throttle, awstest.Throttle, awstest.Throttle},
			plugin.Transient, awslm.ErrRateLimit, 0},
		"a fault of theirs once": {[]awstest.Fault{awstest.Internal}, "", "", 2},
		"a fault of theirs": {[]awstest.Fault{awstest.Internal, awstest.Internal, awstest.Internal},
			plugin.Transient, awslm.ErrServerInternal, 0},
		"dropped once":              {[]awstest.Fault{awstest.Drop}, "", "", 2},
		"dropped after it was done": {[]awstest.Fault{awstest.DropAfter}, "", "", 2},
		"dropped each time": {[]awstest.Fault{awstest.DropAfter, awstest.DropAfter, awstest.DropAfter},
			plugin.Transient, "", 2},
		"silent once": {[]awstest.Fault{awstest.Hang}, "", "", 2},
		"silent": {[]awstest.Fault{awstest.Hang, awstest.Hang, awstest.Hang}, plugin.Transient,
			"", 0},
		"an answer of nothing":    {[]awstest.Fault{awstest.Empty}, plugin.Transient, "", 2},
		"an answer of {}":         {[]awstest.Fault{awstest.EmptyObject}, plugin.Transient, "", 2},
		"not allowed, and yet no": {[]awstest.Fault{awstest.Partial}, plugin.Transient, "", 0},
		"fewer than asked":        {[]awstest.Fault{awstest.Few}, plugin.Transient, "", 0},
		"a proxy's page":          {[]awstest.Fault{awstest.Page}, plugin.Transient, "", 0},
		"no permission":           {[]awstest.Fault{awstest.Deny}, plugin.Misconfigured, awslm.ErrAccessDenied, 0},
		"an account without the role": {[]awstest.Fault{awstest.NoService}, plugin.Misconfigured,
			awslm.ErrAccessDenied, 0},
		"throttled, then done, silent": {[]awstest.Fault{awstest.Throttle, awstest.DropAfter}, "", "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c := client(t, s.Server, func(c *awslm.Config) {
				if strings.HasPrefix(name, "silent") {
					c.TryWithin = 2 * time.Second
				}
			})
			ask := func() (*plugin.Block, error) {
				return c.CheckOut(t.Context(),
					&plugin.CheckOut{Request: *s.request(), Pool: "streams", Slots: 2, For: time.Hour, Token: "a"})
			}
			s.Fail(awslm.OpCheckout, row.faults...)
			b, err := ask()
			switch {
			case row.class == "" && (err != nil || b.Slots != 2):
				t.Fatalf("%+v, %v", b, err)
			case row.class != "":
				failed(t, err, row.class, row.code)
			}
			if n := s.Used(arn, "streams"); n != row.out {
				t.Errorf("%d are out, want %d", n, row.out)
			}
			// A repetition brings everything, once.
			s.Heal()
			if b, err := ask(); err != nil || b.Slots != 2 || s.Used(arn, "streams") != 2 {
				t.Errorf("again: %+v, %v; %d are out", b, err, s.Used(arn, "streams"))
			}
		})
	}
}

// Extend shows a licence that is no longer good.
func TestSuspended(t *testing.T) {
	t.Parallel()
	for status, code := range map[string]enforcer.Code{"SUSPENDED": enforcer.Suspended,
		"DEACTIVATED": enforcer.Suspended, "EXPIRED": enforcer.Expired,
		"DELETED": enforcer.Revoked, "PENDING_DELETE": enforcer.Revoked} {
		s := newSite(t)
		b, err := s.checkOut(t, 1, 0, "a")
		if err != nil {
			t.Fatal(err)
		}
		l := granted()
		l.Status = status
		s.Put(l)
		_, err = s.Extend(t.Context(), &plugin.Extend{Request: *s.request(), Block: b.ID, For: time.Hour})
		if e := failed(t, err, plugin.Refused, status); e.Code != code {
			t.Errorf("%s: %s", status, e.Code)
		}
		_, err = s.CheckIn(t.Context(), s.request())
		failed(t, err, plugin.Refused, status)
	}
	for status, class := range map[string]plugin.Class{"DISABLED": plugin.Misconfigured,
		"PENDING_ACCEPT": plugin.Misconfigured, "PENDING_WORKFLOW": plugin.Transient,
		"REJECTED": plugin.Refused, "DELETED": plugin.Refused, "SOMETHING": plugin.Transient} {
		s := newSite(t)
		l := granted()
		l.ReceivedMetadata = &awslm.ReceivedMetadata{ReceivedStatus: status}
		s.Put(l)
		_, err := s.CheckIn(t.Context(), s.request())
		failed(t, err, class, status)
	}
}

// A check-in brings the licence when it has changed, and nothing when it has not.
func TestCheckIn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r, err := s.CheckIn(t.Context(), s.request())
	if err != nil || r.Document != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	s.Fail(awslm.OpListReceived, awstest.Deny) // with GetLicense alone it is the same
	if r, err := s.CheckIn(t.Context(), s.request()); err != nil || r.Document != nil ||
		s.Calls(awslm.OpGetLicense) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	l := granted()
	l.Version, l.Validity.End, l.Entitlements[0].MaxCount = "2", "2037-01-01T00:00:00Z", count(12)
	s.Put(l)
	s.Advance(time.Second)
	if r, err = s.CheckIn(t.Context(), s.request()); err != nil || r.Document == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	was, _ := awslm.Format{}.Verify(s.doc, []plugin.Anchor{sealedAnchor(t)})
	is, p := awslm.Format{}.Verify(r.Document, []plugin.Anchor{sealedAnchor(t)})
	if p != nil || is.Expires.Year() != 2037 || is.Pools["streams"].Max != 12 || is.ID != was.ID ||
		!is.Issued.After(was.Issued) {
		t.Errorf("%+v %+v", is, p)
	}
	if r, err := s.Heartbeat(t.Context(), s.request()); err != nil || r.Document != nil {
		t.Errorf("%+v, %v", r, err)
	}
	s.Fail(awslm.OpListReceived, awstest.Internal, awstest.Internal, awstest.Internal)
	_, err = s.CheckIn(t.Context(), s.request())
	failed(t, err, plugin.Transient, awslm.ErrServerInternal)
	s.Fail(awslm.OpListReceived, awstest.EmptyObject)
	s.Fail(awslm.OpGetLicense, awstest.Empty)
	_, err = s.CheckIn(t.Context(), s.request())
	failed(t, err, plugin.Transient, "", "without the licence")
}

// Of several licences the usable and latest is found, over the pages.
func TestFetch(t *testing.T) {
	t.Parallel()
	s := awstest.New(t, time.Now())
	c := client(t, s)
	fetch := func(c *awslm.Client) (*enforcer.License, error) {
		r, err := c.Fetch(t.Context(), &plugin.Request{AgentKey: agentThumb})
		if err != nil {
			return nil, err
		}
		l, p := awslm.Format{}.Verify(r.Document, []plugin.Anchor{sealedAnchor(t)})
		if p != nil {
			t.Fatalf("%+v", p)
		}
		return l, nil
	}
	_, err := fetch(c)
	failed(t, err, plugin.Misconfigured, "", "received no licence", "accepted and activated")
	for i := range 5 {
		l := granted()
		l.LicenseArn = fmt.Sprintf("%s%d", arn[:len(arn)-1], i)
		l.CreateTime = fmt.Sprintf("2026-0%d-01T00:00:00Z", i+1)
		switch i {
		case 4:
			l.Status = "EXPIRED"
		case 3:
			l.Issuer.KeyFingerprint = "aws:111111111111:Else:issuer-fingerprint"
		}
		s.Put(l)
	}
	l, err := fetch(c)
	if err != nil || l.ID != arn[:len(arn)-1]+"2" {
		t.Fatalf("%+v, %v", l, err)
	}
	one := client(t, s, func(c *awslm.Config) { c.LicenseArn = arn[:len(arn)-1] + "1" })
	if l, err = fetch(one); err != nil || l.ID != arn[:len(arn)-1]+"1" {
		t.Errorf("%+v, %v", l, err)
	}
	s.Fail(awslm.OpListReceived, awstest.Deny)
	_, err = fetch(c)
	failed(t, err, plugin.Misconfigured, awslm.ErrAccessDenied, "license_arn")
	s.Fail(awslm.OpListReceived, awstest.NoService)
	_, err = fetch(c)
	failed(t, err, plugin.Misconfigured, awslm.ErrAccessDenied, "never onboarded")
	gone := client(t, s, func(c *awslm.Config) { c.LicenseArn = otherID })
	_, err = fetch(gone)
	failed(t, err, plugin.Misconfigured, awslm.ErrInvalidParameter)
	expired := client(t, s, func(c *awslm.Config) { c.LicenseArn = arn[:len(arn)-1] + "4" })
	_, err = fetch(expired)
	failed(t, err, plugin.Refused, "EXPIRED")
}

// A borrow is the document, bound to the agent that took it.
func TestBorrow(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := client(t, s.Server, func(c *awslm.Config) { c.Borrow = map[string]int64{"streams": 3, "hd": 0} })
	request := &plugin.Request{AgentKey: agentThumb}
	s.Fail(awslm.OpBorrow, awstest.DropAfter, awstest.DropAfter, awstest.DropAfter)
	_, err := c.Fetch(t.Context(), request)
	failed(t, err, plugin.Transient, "")
	r, err := c.Fetch(t.Context(), request)
	if err != nil || s.Used(arn, "streams") != 3 {
		t.Fatalf("%v; %d used", err, s.Used(arn, "streams"))
	}
	l, p := awslm.Format{}.Verify(r.Document, []plugin.Anchor{sellerAnchor(t, s.Server, sku)})
	if p != nil || l.Pools["streams"].Max != 3 || !l.Features["hd"].Bool || len(l.AgentKeys) != 1 ||
		l.AgentKeys[0] != agentThumb || l.Product != sku || !l.Expires.Equal(s.Now().Add(24*time.Hour)) {
		t.Fatalf("%+v %+v", l, p)
	}
	request.LicenseID, request.Document = arn, r.Document
	if r, err := c.CheckIn(t.Context(), request); err != nil || r.Document != nil {
		t.Errorf("%+v, %v", r, err)
	}
	for range 2 {
		if _, err := c.Deactivate(t.Context(), request); err != nil || s.Used(arn, "streams") != 0 {
			t.Errorf("%v; %d used", err, s.Used(arn, "streams"))
		}
	}
	if again, err := c.Fetch(t.Context(), request); err != nil || string(again.Document) == string(r.Document) {
		t.Errorf("%v", err)
	}
	lost := client(t, s.Server, func(c *awslm.Config) { c.Borrow = map[string]int64{"streams": 6} })
	_, err = lost.Fetch(t.Context(), request)
	failed(t, err, plugin.Misconfigured, awslm.ErrNoEntitlements, "whole or not at all")
	none := client(t, s.Server, func(c *awslm.Config) { c.Borrow = map[string]int64{"channels": 1} })
	_, err = none.Fetch(t.Context(), request)
	failed(t, err, plugin.Misconfigured, "", "channels")
	s.Fail(awslm.OpBorrow, awstest.EmptyObject)
	_, err = client(t, s.Server, func(c *awslm.Config) {
		c.Borrow = map[string]int64{"hd": 0}
	}).Fetch(t.Context(), request)
	failed(t, err, plugin.Transient, "", "not known")
	l2 := granted()
	l2.ConsumptionConfiguration.BorrowConfiguration = nil
	s.Put(l2)
	_, err = c.Fetch(t.Context(), request)
	failed(t, err, plugin.Misconfigured, "", "cannot be borrowed")
}

// The seller's refresh token is traded for a role; nobody but its owner may read it, and nothing repeats it.
func TestRefreshToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"`+arn+`"}`)) + ".c2lnbmVkLXNlY3JldA"
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	with := func() *awslm.Client {
		return client(t, s.Server, func(c *awslm.Config) {
			c.RefreshTokenFile, c.RoleARN, c.STSEndpoint = file, "arn:aws:iam::123456789012:role/usher", s.URL
		})
	}
	fetch := func() error {
		_, err := with().Fetch(t.Context(), &plugin.Request{AgentKey: agentThumb})
		return err
	}
	failed(t, fetch(), plugin.Misconfigured, "", "cannot be read")
	write(token+"\n", 0o600)
	e := failed(t, fetch(), plugin.Misconfigured, awslm.ErrValidation, "Invalid token")
	if strings.Contains(e.Reason+e.Hint, "c2lnbmVk") {
		t.Errorf("it repeats the token: %v", e)
	}
	s.Refresh(token)
	if err := fetch(); err != nil { // the licence is the one that the token names
		t.Fatal(err)
	}
	if s.Calls(awslm.OpGetAccessToken) < 2 {
		t.Error("the token was not traded")
	}
	s.Fail(awslm.OpGetAccessToken, awstest.Internal, awstest.Internal, awstest.Internal)
	failed(t, fetch(), plugin.Transient, awslm.ErrServerInternal)
	write("a b", 0o600)
	failed(t, fetch(), plugin.Misconfigured, "", "no refresh token")
	if runtime.GOOS != "windows" {
		write(token, 0o644)
		failed(t, fetch(), plugin.Misconfigured, "", "others can read", "chmod 600")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := awslm.Config{Key: agentKey, ProductSKU: sku, KeyFingerprint: issuer}
	if _, err := awslm.NewClient(good); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*awslm.Config){
		"SKU":             func(c *awslm.Config) { c.ProductSKU = "" },
		"fingerprint":     func(c *awslm.Config) { c.KeyFingerprint = "aws" },
		"not the ARN":     func(c *awslm.Config) { c.LicenseArn = "l-1" },
		"role":            func(c *awslm.Config) { c.RefreshTokenFile = "x" },
		"not an address":  func(c *awslm.Config) { c.Endpoint = "unix:///x" },
		"is not an addre": func(c *awslm.Config) { c.STSEndpoint = "sts" },
		"cannot be borro": func(c *awslm.Config) { c.Borrow = map[string]int64{"a": -1} },
	} {
		c := good
		change(&c)
		if _, err := awslm.NewClient(c); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// A call is given up in time, and when its context ends.
func TestTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Fail(awslm.OpListReceived, awstest.Hang, awstest.Hang, awstest.Hang)
	c := client(t, s.Server, func(c *awslm.Config) { c.CallWithin = 200 * time.Millisecond })
	_, err := c.CheckIn(t.Context(), s.request())
	failed(t, err, plugin.Transient, "", "no answer in time")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.CheckIn(gone, s.request())
	failed(t, err, plugin.Transient, "")
	if errors.Is(err, context.Canceled) {
		t.Error("the context's error is told bare")
	}
	for _, doc := range [][]byte{nil, []byte("x"), []byte("{}"), []byte("a.b.c")} {
		r := s.request()
		r.Document = doc
		_, err := s.CheckIn(t.Context(), r)
		failed(t, err, plugin.Misconfigured, "")
	}
	_, err = s.Extend(t.Context(), &plugin.Extend{Request: *s.request(), Block: "x", For: time.Hour})
	failed(t, err, plugin.Misconfigured, "")
}
