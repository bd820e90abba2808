package awslm_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/plugintest"
)

const local = "aws:123456789012:Acme:issuer-fingerprint"

// native is a licence of another system, of every kind of term.
func native() *enforcer.License {
	return &enforcer.License{ID: "lic-1", System: "usher", Product: "acme", Licensee: "ACME Corp", Issuer: local,
		Issued: time.Now().Add(-time.Hour).Truncate(time.Second), KeyID: "k",
		Pools: map[string]enforcer.PoolTerm{"streams": {Max: 4, Scope: enforcer.ScopeHost},
			"seats": {Max: 2, Scope: enforcer.ScopeHost}, "over": {Max: 1, Overage: 2, Scope: enforcer.ScopeHost},
			"globex/streams":                    {Max: 1, Scope: enforcer.ScopeHost},
			awslm.TermName("bob@x.org/streams"): {Max: 1, Scope: enforcer.ScopeHost}},
		Meters: map[string]enforcer.MeterTerm{"data": {Max: 10, Scope: enforcer.ScopeHost, Unit: "Gigabytes"},
			"renders": {Max: 3, Scope: enforcer.ScopeHost}},
		Features: map[string]enforcer.Value{"hd": {Kind: enforcer.KindBool, Bool: true},
			"beta": {Kind: enforcer.KindBool}, "tier": {Kind: enforcer.KindText, Text: "gold"},
			"bandwidth": {Kind: enforcer.KindNumber, Number: 100, Unit: "Megabits/Second"}},
		MaxBorrow: 24 * time.Hour, EarlyReturn: true}
}

func ent(name, unit string, value ...string) awslm.EntitlementData {
	return awslm.EntitlementData{Name: name, Unit: unit, Value: strings.Join(value, "")}
}

func out(token, kind string, list ...awslm.EntitlementData) awslm.CheckoutRequest {
	return awslm.CheckoutRequest{ProductSKU: "acme", CheckoutType: kind, KeyFingerprint: local, ClientToken: token,
		Entitlements: list, NodeID: "node"}
}

func names(list []awslm.EntitlementData) string {
	var s []string
	for _, e := range list {
		s = append(s, strings.TrimSuffix(e.Name+"="+e.Value, "="))
	}
	return strings.Join(s, " ")
}

// The answer names the allowed entitlements of a checkout, under one consumption token.
func TestDialectPartial(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	for _, row := range []struct {
		kind    string
		asked   []awslm.EntitlementData
		allowed string // empty: none
		says    string
	}{
		{awslm.Provisional, []awslm.EntitlementData{ent("streams", "Count", "3"), ent("seats", "Count", "3"),
			ent("hd", "None"), ent("beta", "None"), ent("tier", "None"), ent("vr", "None")},
			"streams=3 hd=Enabled tier=gold", ""},
		{awslm.Provisional, []awslm.EntitlementData{ent("streams", "Count", "2"), ent("seats", "Count", "2")},
			"seats=2", ""},
		{awslm.Provisional, []awslm.EntitlementData{ent("streams", "Count", "2")}, "", "3 of 4 slots are in use"},
		{awslm.Provisional, []awslm.EntitlementData{ent("streams", "None")}, "", "in Count"},
		{awslm.Provisional, []awslm.EntitlementData{ent("data", "Megabytes", "1")}, "", "in Gigabytes"},
		{awslm.Provisional, []awslm.EntitlementData{ent("data", "Gigabytes", "1")}, "", "PERPETUAL"},
		{awslm.Provisional, []awslm.EntitlementData{ent("rivers", "Count", "1"), ent("beta", "None")}, "",
			"no such entitlement"},
		{awslm.Provisional, []awslm.EntitlementData{ent("streams", "Count", "0")}, "streams=0", ""},
		{awslm.Provisional, []awslm.EntitlementData{ent("streams", "Count", "9223372036854775807")}, "",
			"one checkout may take"},
		{awslm.Provisional, []awslm.EntitlementData{ent("bandwidth", "Megabits/Second", "100")}, "bandwidth=100", ""},
		{awslm.Provisional, []awslm.EntitlementData{ent("bandwidth", "Megabits/Second", "101")}, "", "more than"},
		{awslm.Provisional, []awslm.EntitlementData{ent("over", "Count", "3")}, "over=3", ""},
		{awslm.Perpetual, []awslm.EntitlementData{ent("streams", "Count", "1")}, "", "PROVISIONAL"},
		{awslm.Perpetual, []awslm.EntitlementData{ent("data", "Gigabytes", "7"), ent("renders", "Count", "4"),
			ent("hd", "None")}, "data=7 hd=Enabled", ""},
		{awslm.Perpetual, []awslm.EntitlementData{ent("data", "Gigabytes", "4"), ent("renders", "Count", "4")}, "",
			"3 draws are left"},
		{awslm.Perpetual, []awslm.EntitlementData{ent("data", "Gigabytes", "4"), ent("hd", "None")}, "hd=Enabled", ""},
		{awslm.Perpetual, []awslm.EntitlementData{ent("data", "Gigabytes", "3"), ent("renders", "Count", "3")},
			"data=3 renders=3", ""},
		{awslm.Perpetual, []awslm.EntitlementData{ent("hd", "None")}, "hd=Enabled", ""},
	} {
		in := out(fmt.Sprint(row), row.kind, row.asked...)
		in.ClientToken = strings.ReplaceAll(in.ClientToken, " ", "_")
		if row.allowed == "" {
			c.bad(awslm.OpCheckout, in, awslm.ErrNoEntitlements, row.says)
			continue
		}
		var got, again awslm.CheckoutResponse
		c.good(awslm.OpCheckout, in, &got)
		if names(got.EntitlementsAllowed) != row.allowed || got.LicenseConsumptionToken == "" || got.NodeID != "node" ||
			got.CheckoutType != row.kind || got.SignedToken != "" {
			t.Errorf("%v: %+v", row, got)
		}
		c.restart()
		c.desk.Pass(9 * time.Second)
		if c.good(awslm.OpCheckout, in, &again); !reflect.DeepEqual(got, again) {
			t.Errorf("again: %+v is answered %+v", got, again)
		}
		in.NodeID = "another"
		c.bad(awslm.OpCheckout, in, awslm.ErrValidation, "ClientToken")
	}
	for pool, n := range map[string]int64{"streams": 3, "seats": 2, "over": 3, "data": 10, "renders": 3} {
		if got := c.used(pool); got != n {
			t.Errorf("%s: %d used, want %d", pool, got, n)
		}
	}
}

// A checkout lives for its time, and longer if extended. After its end, its ClientToken can be used again.
func TestDialectLife(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	for _, in := range []awslm.CheckoutRequest{out("a", awslm.Provisional, ent("streams", "Count", "4")),
		out("b", awslm.Provisional, ent("hd", "None"))} {
		var first, second awslm.CheckoutResponse
		c.good(awslm.OpCheckout, in, &first)
		began := c.desk.Now()
		if first.IssuedAt != awslm.LocalTime(began) || first.Expiration != awslm.LocalTime(began.Add(time.Hour)) {
			t.Errorf("from %s to %s", first.IssuedAt, first.Expiration)
		}
		c.desk.Pass(50 * time.Minute)
		token := awslm.ExtendRequest{LicenseConsumptionToken: first.LicenseConsumptionToken}
		dry := token
		dry.DryRun = true
		var extended awslm.ExtendResponse
		c.good(awslm.OpExtend, dry, &extended)
		if extended.Expiration != awslm.ZonedTime(c.desk.Now().Add(time.Hour)) ||
			extended.LicenseConsumptionToken != first.LicenseConsumptionToken {
			t.Errorf("%+v", extended)
		}
		c.good(awslm.OpExtend, token, &extended)
		c.desk.Pass(50 * time.Minute) // beyond what was answered first
		if c.good(awslm.OpCheckout, in, &second); !reflect.DeepEqual(first, second) {
			t.Errorf("%+v is answered %+v", first, second)
		}
		c.good(awslm.OpExtend, dry, &extended)
		c.desk.Pass(11 * time.Minute) // a dry run extends nothing
		c.bad(awslm.OpExtend, token, awslm.ErrResourceNotFound)
		c.bad(awslm.OpCheckIn, awslm.CheckInRequest{LicenseConsumptionToken: first.LicenseConsumptionToken},
			awslm.ErrResourceNotFound)
		if c.good(awslm.OpCheckout, in, &second); second.LicenseConsumptionToken == first.LicenseConsumptionToken {
			t.Error("what is over is answered")
		}
		back := awslm.CheckInRequest{LicenseConsumptionToken: second.LicenseConsumptionToken}
		other := *c.desk.Sender
		c.desk.Sender = &enforcer.Caller{UID: 8}
		c.bad(awslm.OpCheckIn, back, awslm.ErrResourceNotFound)
		c.bad(awslm.OpExtend, awslm.ExtendRequest{LicenseConsumptionToken: back.LicenseConsumptionToken},
			awslm.ErrResourceNotFound)
		c.desk.Sender = &other
		wrong := back
		wrong.Beneficiary = "x"
		c.bad(awslm.OpCheckIn, wrong, awslm.ErrInvalidParameter, "beneficiary")
		c.good(awslm.OpCheckIn, back, nil)
		c.bad(awslm.OpCheckIn, back, awslm.ErrResourceNotFound)
		third := second
		if c.good(awslm.OpCheckout, in, &third); third.LicenseConsumptionToken == second.LicenseConsumptionToken {
			t.Error("what was checked in is answered")
		}
		c.good(awslm.OpCheckIn, awslm.CheckInRequest{LicenseConsumptionToken: third.LicenseConsumptionToken}, nil)
	}
	var drawn, again awslm.CheckoutResponse
	in := out("d", awslm.Perpetual, ent("data", "Gigabytes", "4"))
	c.good(awslm.OpCheckout, in, &drawn)
	c.bad(awslm.OpExtend, awslm.ExtendRequest{LicenseConsumptionToken: drawn.LicenseConsumptionToken},
		awslm.ErrInvalidParameter, "PERPETUAL")
	c.bad(awslm.OpCheckIn, awslm.CheckInRequest{LicenseConsumptionToken: drawn.LicenseConsumptionToken},
		awslm.ErrInvalidParameter, "PERPETUAL")
	c.desk.Pass(11 * time.Hour)
	if c.good(awslm.OpCheckout, in, &again); !reflect.DeepEqual(drawn, again) || c.used("data") != 4 {
		t.Errorf("%+v, %+v, %d drawn", drawn, again, c.used("data"))
	}
	c.desk.Pass(2 * time.Hour)
	if c.good(awslm.OpCheckout, in, &again); again.LicenseConsumptionToken == drawn.LicenseConsumptionToken ||
		c.used("data") != 8 {
		t.Errorf("%+v, %d drawn", again, c.used("data"))
	}
	if n := c.desk.Stored(); n > 2 {
		t.Errorf("the store has %d keys; what is over is to be forgotten", n)
	}
}

// Wherever the agent dies, a repeated request gets its grant once, and the same answer.
func TestDialectCrashes(t *testing.T) {
	t.Parallel()
	ask := map[string]any{
		awslm.OpCheckout + " slots": out("t", awslm.Provisional, ent("streams", "Count", "2"),
			ent("seats", "Count", "9"), ent("hd", "None")),
		awslm.OpCheckout + " draws": out("t", awslm.Perpetual, ent("data", "Gigabytes", "2"),
			ent("renders", "Count", "9")),
		awslm.OpCheckout + " features": out("t", awslm.Provisional, ent("hd", "None")),
		awslm.OpBorrow + " slots":      lend("t", ent("streams", "Count", "2")),
		awslm.OpBorrow + " features":   lend("t", ent("hd", "None")),
	}
	want := map[string]string{"slots": "streams", "draws": "data"}
	for name, in := range ask {
		op, what, _ := strings.Cut(name, " ")
		for _, step := range []plugintest.Step{plugintest.StepAcquired, plugintest.StepStored, plugintest.StepData} {
			c := counter(t, native())
			c.desk.DieAt = step
			var first, second map[string]any
			if f := c.call(op, in, &first); f != nil && f.Code != "died" {
				t.Fatalf("%s, %s: %v", name, step, f)
			}
			c.good(op, in, &first)
			c.restart()
			if c.good(op, in, &second); !reflect.DeepEqual(first, second) {
				t.Errorf("%s, %s: %v is answered %v", name, step, first, second)
			}
			if pool := want[what]; pool != "" && c.used(pool) != 2 {
				t.Errorf("%s, %s: %d used of %s", name, step, c.used(pool), pool)
			}
		}
	}
}

// A draw that was stored but not made, and is no longer possible, is decided again.
func TestDialectDrawThatWasNot(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	in := out("t", awslm.Perpetual, ent("data", "Gigabytes", "6"), ent("renders", "Count", "2"))
	c.desk.DieAt = plugintest.StepStored
	if f := c.call(awslm.OpCheckout, in, nil); f == nil || f.Code != "died" {
		t.Fatal(f)
	}
	c.good(awslm.OpCheckout, out("another", awslm.Perpetual, ent("data", "Gigabytes", "6")), nil)
	var got awslm.CheckoutResponse
	if c.good(awslm.OpCheckout, in, &got); names(got.EntitlementsAllowed) != "renders=2" || c.used("data") != 6 ||
		c.used("renders") != 2 {
		t.Errorf("%+v, %d and %d drawn", got, c.used("data"), c.used("renders"))
	}
	c.desk.Full = true
	c.bad(awslm.OpCheckout, out("third", awslm.Perpetual, ent("renders", "Count", "1")), awslm.ErrServerInternal)
	if c.used("renders") != 2 {
		t.Error("it was drawn without being stored")
	}
}

const other = "aws:000000000000:Other:issuer-fingerprint"

// addOns returns an add-on of another product and issuer, and one of the native licence.
func addOns() (addOn, more *enforcer.License) {
	addOn = &enforcer.License{ID: "lic-2", System: "usher", Product: "acme-hdr", Issuer: "Other",
		Role: enforcer.RoleAddOn, Issued: native().Issued, KeyID: "k",
		Pools: map[string]enforcer.PoolTerm{"hdr": {Max: 1, Scope: enforcer.ScopeHost}}}
	more = &enforcer.License{ID: "lic-3", System: "usher", Product: "acme", Issuer: local, Role: enforcer.RoleAddOn,
		Issued: native().Issued, KeyID: "k",
		Pools: map[string]enforcer.PoolTerm{"streams": {Max: 3, Scope: enforcer.ScopeHost}}}
	return addOn, more
}

// askOf asks for entitlements of a product.
func askOf(sku, print, beneficiary string, list ...awslm.EntitlementData) awslm.CheckoutRequest {
	in := out(strings.ReplaceAll("t-"+sku+beneficiary+list[0].Name+list[0].Value, " ", "-"), awslm.Provisional,
		list...)
	in.ProductSKU, in.KeyFingerprint, in.Beneficiary = sku, print, beneficiary
	return in
}

// The dialect keeps products and issuers apart, and beneficiaries have entitlements of their own.
func TestDialectFinds(t *testing.T) {
	t.Parallel()
	addOn, more := addOns()
	c := counter(t, native(), addOn, more)
	c.good(awslm.OpCheckout, askOf("acme", local, "", ent("streams", "Count", "7")), nil) // base and add-on are one
	c.good(awslm.OpCheckout, askOf("acme-hdr", other, "", ent("hdr", "Count", "1")), nil)
	c.bad(awslm.OpCheckout, askOf("acme-hdr", other, "", ent("streams", "Count", "1")), awslm.ErrNoEntitlements,
		"no such entitlement")
	c.bad(awslm.OpCheckout, askOf("acme", other, "", ent("streams", "Count", "1")), awslm.ErrResourceNotFound,
		"another issuer")
	c.bad(awslm.OpCheckout, askOf("nothing", local, "", ent("streams", "Count", "1")), awslm.ErrResourceNotFound,
		"no licence for product")
	c.good(awslm.OpCheckout, askOf("acme", local, "ACME Corp", ent("seats", "Count", "1")), nil)
	c.good(awslm.OpCheckout, askOf("acme", local, "globex", ent("streams", "Count", "1")), nil)
	c.good(awslm.OpCheckout, askOf("acme", local, "bob@x.org", ent("streams", "Count", "1")), nil)
	c.bad(awslm.OpCheckout, askOf("acme", local, "globex", ent("streams", "Count", "2")), awslm.ErrNoEntitlements)
	c.bad(awslm.OpCheckout, askOf("acme", local, "initech", ent("streams", "Count", "1")), awslm.ErrResourceNotFound,
		`beneficiary "initech"`)
	if c.used("globex/streams") != 1 || c.used("seats") != 1 || c.used("streams") != 7 {
		t.Error("what beneficiaries have is not their own")
	}
}

func TestDialectLists(t *testing.T) {
	t.Parallel()
	addOn, more := addOns()
	c := counter(t, native(), addOn, more)
	var all, page awslm.ListResponse
	c.good(awslm.OpListReceived, awslm.ListRequest{}, &all)
	if len(all.Licenses) != 2 || all.NextToken != "" {
		t.Fatalf("%+v", all)
	}
	one := 1
	c.good(awslm.OpListReceived, awslm.ListRequest{MaxResults: &one}, &page)
	if len(page.Licenses) != 1 || page.NextToken == "" {
		t.Fatalf("%+v", page)
	}
	first := page.Licenses[0].LicenseArn
	next := page.NextToken
	page = awslm.ListResponse{}
	c.good(awslm.OpListReceived, awslm.ListRequest{MaxResults: &one, NextToken: next}, &page)
	if len(page.Licenses) != 1 || page.NextToken != "" || page.Licenses[0].LicenseArn == first {
		t.Errorf("%+v", page)
	}
	c.bad(awslm.OpListReceived, awslm.ListRequest{NextToken: "?"}, awslm.ErrInvalidParameter)
	for name, row := range map[string]struct {
		values []string
		n      int
	}{awslm.FilterSKU: {[]string{"acme-hdr"}, 1}, awslm.FilterStatus: {[]string{"AVAILABLE"}, 2},
		awslm.FilterFingerprint: {[]string{local, other}, 2}, awslm.FilterIssuer: {[]string{"Acme"}, 1},
		awslm.FilterBeneficiary: {[]string{"acme corp"}, 0}} {
		var got awslm.ListResponse
		if c.good(awslm.OpListReceived, awslm.ListRequest{Filters: []awslm.Filter{{Name: name, Values: row.values}}},
			&got); len(got.Licenses) != row.n {
			t.Errorf("%s: %d", name, len(got.Licenses))
		}
	}
	var got awslm.LicenseResponse
	arn := byProduct(t, all, "acme").LicenseArn
	c.good(awslm.OpGetLicense, awslm.LicenseRequest{LicenseArn: arn}, &got)
	l := got.License
	if l.ProductSKU != "acme" || l.Issuer.KeyFingerprint != local || l.Issuer.Name != "Acme" ||
		l.Beneficiary != "ACME Corp" || l.ReceivedMetadata != nil ||
		l.ConsumptionConfiguration.BorrowConfiguration.MaxTimeToLiveInMinutes != 1440 {
		t.Errorf("%+v", l)
	}
	for _, e := range l.Entitlements {
		if e.Name == "streams" && (*e.MaxCount != 7 || !e.AllowCheckIn) ||
			e.Name == "data" && (e.Unit != "Gigabytes" || e.AllowCheckIn) || e.Name == "over" && !e.Overage {
			t.Errorf("%+v", e)
		}
	}
	c.bad(awslm.OpGetLicense, awslm.LicenseRequest{LicenseArn: arn, Version: "2"}, awslm.ErrInvalidParameter)
	c.bad(awslm.OpGetLicense, awslm.LicenseRequest{LicenseArn: otherID}, awslm.ErrInvalidParameter)
	c.bad(awslm.OpGetUsage, awslm.LicenseRequest{LicenseArn: otherID}, awslm.ErrInvalidParameter)
	c.bad(awslm.OpGetAccessToken, awslm.AccessTokenRequest{Token: "x.y.z"}, awslm.ErrAuthorization, "refresh tokens")
	// An ended licence can be read, but not consumed.
	over := native()
	over.Expires = c.desk.Now().Add(-time.Minute)
	c.desk.Judge(over)
	c.good(awslm.OpListReceived, awslm.ListRequest{}, &all)
	if all.Licenses[0].Status != "EXPIRED" {
		t.Errorf("%+v", all)
	}
	c.bad(awslm.OpCheckout, askOf("acme", local, "", ent("seats", "Count", "2")), awslm.ErrResourceNotFound,
		"cannot be consumed")
	c.desk.Judge()
	c.bad(awslm.OpCheckout, askOf("acme", local, "", ent("seats", "Count", "2")), awslm.ErrResourceNotFound)
}

func byProduct(t *testing.T, all awslm.ListResponse, sku string) awslm.License {
	t.Helper()
	for _, l := range all.Licenses {
		if l.ProductSKU == sku {
			return l
		}
	}
	t.Fatalf("there is no %s", sku)
	return awslm.License{}
}

// What is over when its answer is about to be written is denied, in the API's words.
func TestDialectAnswersLate(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	looks := 0
	c.desk.OnLate = func() *enforcer.Denial {
		looks++
		return &enforcer.Denial{Code: enforcer.NotShared, Pool: "streams", Detail: "it was over before it answered"}
	}
	c.bad(awslm.OpCheckout, out("a", awslm.Provisional, ent("streams", "Count", "1")), awslm.ErrNoEntitlements,
		"over before it answered")
	c.bad(awslm.OpCheckout, out("b", awslm.Provisional, ent("rivers", "None")), awslm.ErrNoEntitlements,
		"no such entitlement")
	if looks != 1 {
		t.Errorf("looked %d times, want once, at what gives", looks)
	}
}

// A licence says of every entitlement whether it has overage and a check-in, and of a borrow whether it may come back
// early: AWS sends these members where they are false, too.
func TestDialectStatesWhatIsFalse(t *testing.T) {
	t.Parallel()
	l := native()
	l.MaxBorrow, l.EarlyReturn = 24*time.Hour, false
	c := counter(t, l)
	var all struct{ Licenses []map[string]any }
	c.good(awslm.OpListReceived, awslm.ListRequest{}, &all)
	if len(all.Licenses) == 0 {
		t.Fatal("there is no licence")
	}
	for _, l := range all.Licenses {
		entitlements, _ := l["Entitlements"].([]any)
		for _, e := range entitlements {
			for _, name := range []string{"Overage", "AllowCheckIn"} {
				if _, stated := e.(map[string]any)[name].(bool); !stated {
					t.Errorf("%v has no %s", e, name)
				}
			}
		}
		ways, _ := l["ConsumptionConfiguration"].(map[string]any)
		borrow, _ := ways["BorrowConfiguration"].(map[string]any)
		provisional, _ := ways["ProvisionalConfiguration"].(map[string]any)
		if early, stated := borrow["AllowEarlyCheckIn"].(bool); len(entitlements) == 0 || !stated || early {
			t.Errorf("%v", l)
		}
		if _, stated := provisional["AllowEarlyCheckIn"]; stated {
			t.Errorf("the model has no AllowEarlyCheckIn there: %v", provisional)
		}
	}
}
