package awslm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/awslm/awstest"
)

// Each checkout is a block of its own. It has all or part of the requested slots, and ends at AWS's time.
func TestBlocks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, err := s.checkOut(t, 5, 0, "a")
	if err != nil || first.Slots != 5 || first.Pool != "streams" || first.For != time.Hour {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := s.checkOut(t, 5, 0, "a"); err != nil || again.ID != first.ID || s.Used(arn, "streams") != 5 {
		t.Errorf("with the same token: %+v, %v; %d used", again, err, s.Used(arn, "streams"))
	}
	_, err = s.checkOut(t, 4, 0, "b")
	failed(t, err, plugin.Transient, "NO_SLOTS", "5 of 8", "4 more")
	rest, err := s.checkOut(t, 4, 2, "c")
	if err != nil || rest.Slots != 3 || s.Used(arn, "streams") != 8 {
		t.Fatalf("the rest: %+v, %v", rest, err)
	}
	_, err = s.checkOut(t, 1, 1, "d")
	failed(t, err, plugin.Transient, "NO_SLOTS", "8 of 8")
	for _, c := range s.Out() {
		if c.Node != agentThumb || c.Type != awslm.Provisional {
			t.Errorf("%+v", c)
		}
	}
	// An extended block outlives the other, which AWS takes back.
	extend := func(b *plugin.Block) (*plugin.Block, error) {
		r := s.request()
		r.State = b.State
		return s.Extend(t.Context(), &plugin.Extend{Request: *r, Block: b.ID, Slots: 7, For: 2 * time.Hour})
	}
	s.Advance(50 * time.Minute)
	if b, err := extend(first); err != nil || b.ID != first.ID || b.Slots != 5 || b.For != time.Hour {
		t.Fatalf("%+v, %v", b, err)
	}
	s.Advance(20 * time.Minute)
	if n := s.Used(arn, "streams"); n != 5 {
		t.Errorf("%d used after the second has run out", n)
	}
	_, err = extend(rest)
	failed(t, err, plugin.Transient, "BLOCK_LAPSED")
	for range 2 { // a lost answer is asked for once more
		if err := s.Return(t.Context(), &plugin.Return{Request: *s.request(), Block: first.ID}); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Used(arn, "streams"); n != 0 {
		t.Errorf("%d used after all was returned", n)
	}
	// After a block has ended, its request's token brings another block.
	if b, err := s.checkOut(t, 5, 0, "a"); err != nil || b.ID == first.ID {
		t.Errorf("%+v, %v", b, err)
	}
	for _, tok := range s.ClientTokens() {
		if len(tok) != 64 || strings.Trim(tok, "0123456789abcdef") != "" {
			t.Errorf("client token %q", tok)
		}
	}
}

// After Extend, its new token counts.
func TestNewToken(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, err := s.checkOut(t, 1, 0, "a")
	if err != nil {
		t.Fatal(err)
	}
	if b.State != nil {
		t.Errorf("the state is %s, where the id says all", b.State)
	}
	s.Fail(awslm.OpExtend, awstest.NewToken, awstest.NewToken)
	r := s.request()
	for range 3 {
		next, err := s.Extend(t.Context(), &plugin.Extend{Request: *r, Block: b.ID, For: time.Hour})
		if err != nil || next.ID != b.ID {
			t.Fatalf("%+v, %v", next, err)
		}
		r.State = next.State
	}
	// The check-in passes the state on.
	reply, err := s.CheckIn(t.Context(), r)
	if err != nil || string(reply.State) != string(r.State) {
		t.Errorf("%+v, %v", reply, err)
	}
	if err := s.Return(t.Context(), &plugin.Return{Request: *r, Block: b.ID}); err != nil || len(s.Out()) != 0 {
		t.Errorf("%v, %v", err, s.Out())
	}
}

// A no of the service has many reasons, and each its word.
func TestDenied(t *testing.T) {
	t.Parallel()
	checkOut := func(s *site, pool string) error {
		_, err := s.CheckOut(t.Context(),
			&plugin.CheckOut{Request: *s.request(), Pool: pool, Slots: 2, For: time.Hour, Token: "a"})
		return err
	}
	change := func(s *site, f func(*awslm.License)) {
		l := granted()
		f(&l)
		s.Put(l)
	}
	s := newSite(t)
	change(s, func(l *awslm.License) { l.Entitlements[0].Name = "channels" })
	failed(t, checkOut(s, "streams"), plugin.Misconfigured, awslm.ErrNoEntitlements, "does not give", "check-in")
	change(s, func(l *awslm.License) { l.Entitlements[0].Unit = "Megabytes" })
	failed(t, checkOut(s, "streams"), plugin.Misconfigured, awslm.ErrNoEntitlements, "in Count")
	change(s, func(l *awslm.License) { l.ConsumptionConfiguration.ProvisionalConfiguration = nil })
	failed(t, checkOut(s, "streams"), plugin.Transient, awslm.ErrNoEntitlements, "0 of 8 are in use, and still")
	change(s, func(l *awslm.License) { l.Entitlements[0].MaxCount = count(1) })
	failed(t, checkOut(s, "streams"), plugin.Transient, "NO_SLOTS", "0 of 1")
	s.Fail(awslm.OpGetUsage, awstest.Deny)
	failed(t, checkOut(s, "streams"), plugin.Transient, "NO_SLOTS", "allow the role GetLicenseUsage")
	change(s, func(l *awslm.License) { l.Status = "SUSPENDED" })
	if e := failed(t, checkOut(s, "streams"), plugin.Refused, "SUSPENDED"); e.Code != enforcer.Suspended {
		t.Error(e.Code)
	}
	failed(t, checkOut(s, "renders"), plugin.Misconfigured, "", "no pool")
	// The licence is of two grants, and AWS chooses the latest.
	change(s, func(*awslm.License) {})
	other := granted()
	other.LicenseArn, other.CreateTime = otherID, "2027-01-01T00:00:00Z"
	s.Put(other)
	failed(t, checkOut(s, "streams"), plugin.Misconfigured, "", otherID, "latest")
	if n := len(s.Out()); n != 0 {
		t.Errorf("%d checkouts are left", n)
	}
	// Overage is AWS's to grant.
	s = newSite(t)
	b, err := s.CheckOut(t.Context(), &plugin.CheckOut{Request: *s.request(), Pool: awslm.TermName("Named Users"),
		Slots: 7, For: time.Hour, Token: "a"})
	if err != nil || b.Slots != 7 || s.Used(arn, "Named Users") != 7 {
		t.Errorf("%+v, %v", b, err)
	}
}

// Draws are taken once, whatever happens on the way.
func TestDraw(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	draw := func(meter string, n int64, token string) (*plugin.Drawn, error) {
		return s.Draw(t.Context(), &plugin.Draw{Request: *s.request(), Meter: meter, N: n, Token: token})
	}
	for range 2 {
		if d, err := draw("renders", 600, "a"); err != nil || d.N != 600 || s.Used(arn, "renders") != 600 {
			t.Fatalf("%+v, %v; %d drawn", d, err, s.Used(arn, "renders"))
		}
	}
	// The agent dies between call and answer, and asks again with the token of its journal.
	s.Fail(awslm.OpCheckout, awstest.DropAfter, awstest.DropAfter, awstest.DropAfter)
	_, err := draw("renders", 100, "b")
	failed(t, err, plugin.Transient, "")
	for _, f := range []awstest.Fault{awstest.Empty, awstest.EmptyObject} {
		s.Fail(awslm.OpCheckout, f)
		_, err = draw("renders", 100, "b")
		failed(t, err, plugin.Transient, "", "not known")
	}
	again := client(t, s.Server)
	if d, err := again.Draw(t.Context(), &plugin.Draw{Request: *s.request(), Meter: "renders", N: 100,
		Token: "b"}); err != nil || d.N != 100 || s.Used(arn, "renders") != 700 {
		t.Errorf("%+v, %v; %d drawn", d, err, s.Used(arn, "renders"))
	}
	_, err = draw("renders", 301, "c")
	failed(t, err, plugin.Transient, "NO_SLOTS", "700 of 1000")
	s.Advance(48 * time.Hour) // an Expiration is said, and means nothing here
	if n := s.Used(arn, "renders"); n != 700 {
		t.Errorf("%d drawn", n)
	}
	if d, err := draw(drawn, 7, "d"); err != nil || d.N != 7 || s.Used(arn, drawn) != 7 {
		t.Errorf("%+v, %v", d, err)
	}
	for _, row := range []struct {
		meter string
		n     int64
		token string
	}{{"streams", 1, "x"}, {"hd", 1, "x"}, {"renders", 0, "x"}, {"renders", -1, "x"}, {"renders", 1, ""},
		{"nothing", 1, "x"}} {
		_, err := draw(row.meter, row.n, row.token)
		failed(t, err, plugin.Misconfigured, "")
	}
}
