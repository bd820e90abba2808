package awslm_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
)

// What is not of the API is said in the API's words.
func TestDialectProtocol(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	send := func(method, target, kind, body string) (int, string) {
		r := httptest.NewRequest(method, "/aws", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		r.Header.Set(awslm.TargetHeader, target)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		var f awslm.Fault
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
			t.Fatal(err)
		}
		return w.Code, f.Code
	}
	const get = awslm.TargetPrefix + awslm.OpGetLicense
	for name, row := range map[string]struct{ method, target, kind, body, code string }{
		"no operation": {http.MethodPost, "", awslm.ContentType, "{}", awslm.ErrUnknownOperation},
		"an unknown one": {http.MethodPost, awslm.TargetPrefix + "CreateLicense", awslm.ContentType, "{}",
			awslm.ErrUnknownOperation},
		"another service": {http.MethodPost, "Kinesis." + awslm.OpGetLicense, awslm.ContentType, "{}",
			awslm.ErrUnknownOperation},
		"GET":          {http.MethodGet, get, awslm.ContentType, "", awslm.ErrUnknownOperation},
		"another type": {http.MethodPost, get, "text/plain", "{}", awslm.ErrValidation},
		"a list":       {http.MethodPost, get, awslm.ContentType, "[]", awslm.ErrValidation},
		"invalid UTF-8": {http.MethodPost, get, awslm.ContentType, "{\"LicenseArn\":\"\xff\"}",
			awslm.ErrValidation},
		"nothing": {http.MethodPost, get, awslm.ContentType, "", awslm.ErrValidation},
		"no entitlements": {http.MethodPost, awslm.TargetPrefix + awslm.OpCheckout, awslm.ContentType,
			`{"ProductSKU":"acme","CheckoutType":"PROVISIONAL","KeyFingerprint":"f","ClientToken":"t",` +
				`"Entitlements":[]}`, awslm.ErrValidation},
		"a charset as well": {http.MethodPost, get, awslm.ContentType + "; charset=utf-8",
			`{"LicenseArn":"` + arn + `"}`, awslm.ErrInvalidParameter},
	} {
		if status, code := send(row.method, row.target, row.kind, row.body); status != 400 || code != row.code {
			t.Errorf("%s: %d %s", name, status, code)
		}
	}
	long := out("t", awslm.Provisional, ent("streams", "Count", "1"))
	long.NodeID = strings.Repeat("n", 5000)
	c.bad(awslm.OpCheckout, long, awslm.ErrValidation)
}

// FuzzDialect: whatever is asked of whatever operation, the answer is one of the API's, and nothing is handed out that
// the licence has not.
func FuzzDialect(f *testing.F) {
	ops := []string{awslm.OpCheckout, awslm.OpBorrow, awslm.OpExtend, awslm.OpCheckIn, awslm.OpGetAccessToken,
		awslm.OpGetLicense, awslm.OpGetUsage, awslm.OpListReceived}
	for i, in := range []any{out("t", awslm.Provisional, ent("streams", "Count", "1"), ent("hd", "None")),
		lend("t", ent("streams", "Count", "1")), awslm.ExtendRequest{LicenseConsumptionToken: "x", DryRun: true},
		awslm.CheckInRequest{LicenseConsumptionToken: "x"}, awslm.AccessTokenRequest{Token: "x"},
		awslm.LicenseRequest{LicenseArn: arn}, awslm.LicenseRequest{LicenseArn: arn},
		awslm.ListRequest{Filters: []awslm.Filter{{Name: awslm.FilterSKU, Values: []string{"acme"}}}}} {
		b, err := json.Marshal(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), string(b))
	}
	f.Add(byte(0), `{"ProductSKU":"acme","CheckoutType":"PERPETUAL","KeyFingerprint":"`+local+
		`","ClientToken":"t","Entitlements":[{"Name":"data","Unit":"Gigabytes","Value":"3"}]}`)
	c := counter(f, native())
	// To make a key takes long where code is watched.
	if err := c.desk.Store().Apply(plugin.Change{Key: "signing-key", Value: []byte("none")}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, i byte, body string) {
		op := ops[int(i)%len(ops)]
		w, _ := c.post(op, body)
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s", w.Body)
		}
		if w.Code != http.StatusOK {
			var fault awslm.Fault
			if err := json.Unmarshal(w.Body.Bytes(), &fault); err != nil || w.Code != 400 && op != awslm.OpBorrow ||
				!awslm.Declared(op, fault.Code) || fault.Message == "" {
				t.Errorf("%s: %d %s", op, w.Code, w.Body)
			}
		}
		if c.used("streams") > 4 || c.used("seats") > 2 || c.used("over") > 3 || c.used("data") > 10 {
			t.Error("more is out than there is")
		}
	})
}

// However much is checked out, what is remembered has its bounds, no caller has all of it, and room comes back.
func TestDialectBounds(t *testing.T) {
	t.Parallel()
	l := native()
	l.Meters["data"] = enforcer.MeterTerm{Max: enforcer.Unlimited, Scope: enforcer.ScopeHost, Unit: "Gigabytes"}
	c := counter(t, l)
	fill := func(most int, list ...awslm.EntitlementData) (n int) {
		kind := awslm.Provisional
		if list[0].Unit == "Gigabytes" {
			kind = awslm.Perpetual
		}
		for ; n < most; n++ {
			if f := c.call(awslm.OpCheckout,
				out(fmt.Sprintf("%d-%d-%d", n, c.desk.Now().Unix(), c.desk.Sender.UID), kind, list...), nil); f != nil {
				if f.Code != awslm.ErrRateLimit {
					t.Fatal(f)
				}
				return n
			}
		}
		return n
	}
	if n := fill(7000, ent("hd", "None")); n != 4500 {
		t.Errorf("one caller has %d", n)
	}
	c.restart()
	// it has its share still
	c.bad(awslm.OpCheckout, out("restarted", awslm.Provisional, ent("hd", "None")), awslm.ErrRateLimit)
	c.desk.Sender = &enforcer.Caller{UID: 8}
	if n := fill(7000, ent("data", "Gigabytes", "1")); n != 2250 {
		t.Errorf("and another %d", n)
	}
	c.desk.Pass(11 * time.Minute) // the oldest draws make room
	if n := fill(400, ent("data", "Gigabytes", "1")); n < 400 {
		t.Errorf("after ten minutes there is room for %d", n)
	}
	c.desk.Pass(time.Hour)
	c.desk.Sender = &enforcer.Caller{UID: 9}
	if n := fill(400, ent("hd", "None")); n != 400 {
		t.Errorf("after an hour there is room for %d", n)
	}
	if n := c.desk.Stored(); n > 9000 {
		t.Errorf("the store has %d keys", n)
	}
}

// No caller fills the store with long records: there is room for the next, in bytes as in number.
func TestDialectBytesOfOne(t *testing.T) {
	t.Parallel()
	c := counter(t, native())
	fill := func(uid uint32) (n int) {
		c.desk.Sender = &enforcer.Caller{UID: uid}
		for ; n < 2000; n++ {
			in := out(fmt.Sprintf("%d-%d", n, uid), awslm.Provisional, ent("hd", "None"))
			in.NodeID = strings.Repeat("n", 15<<10)
			if f := c.call(awslm.OpCheckout, in, nil); f != nil {
				if f.Code != awslm.ErrRateLimit {
					t.Fatal(f)
				}
				return n
			}
		}
		return n
	}
	first, second, third := fill(8), fill(9), fill(10)
	if most := plugin.MaxStore / (15 << 10) / 2; first > most || first < most*9/10 || second > first/2+1 ||
		third > second/2+1 || third < first/5 {
		t.Errorf("three callers have %d, %d and %d long records, where %d fit", first, second, third,
			plugin.MaxStore/(15<<10))
	}
}
