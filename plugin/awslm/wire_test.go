package awslm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/licensemanager/types"

	"github.com/usher-agent/usher/plugin/awslm"
)

// Every unit that the SDK knows means something here.
func TestUnits(t *testing.T) {
	t.Parallel()
	units := types.EntitlementUnitCount.Values()
	if len(units) != 27 {
		t.Errorf("there are %d units", len(units))
	}
	kinds := map[awslm.Kind]int{}
	for _, u := range units {
		kinds[awslm.KindOf(string(u))]++
	}
	if kinds[""] != 0 || kinds[awslm.KindSlots] != 1 || kinds[awslm.KindFeature] != 1 || kinds[awslm.KindRate] != 12 ||
		kinds[awslm.KindAmount] != 13 {
		t.Errorf("%v", kinds)
	}
	for _, u := range []string{"", "count", "Counts", "Seconds/Second", "/Second", "None/Second", "Percent/Second"} {
		if k := awslm.KindOf(u); k != "" {
			t.Errorf("%q is %s", u, k)
		}
	}
}

// Times come in two forms.
func TestTimes(t *testing.T) {
	t.Parallel()
	want := time.Date(2021, 4, 13, 5, 35, 47, 0, time.UTC)
	for _, s := range []string{"2021-04-13T05:35:47", "2021-04-13T05:35:47Z", "2021-04-13T07:35:47+02:00",
		awslm.LocalTime(want), awslm.ZonedTime(want), "2021-04-13T05:35:47.000Z"} {
		if got, err := awslm.ParseTime(s); err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"yesterday", "2021-04-13", "1618292147", "2021-13-13T05:35:47",
		strings.Repeat("9", 1000)} {
		if got, err := awslm.ParseTime(s); err == nil || len(err.Error()) > 100 {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if got, err := awslm.ParseTime(""); err != nil || !got.IsZero() {
		t.Errorf("%v, %v", got, err)
	}
}

type validator interface{ Validate() *awslm.Fault }

func decode[T any, P interface {
	*T
	validator
}](body string) *awslm.Fault {
	r, f := awslm.Decode[T]([]byte(body))
	if f != nil {
		return f
	}
	return P(r).Validate()
}

func TestValidate(t *testing.T) {
	t.Parallel()
	checkout := func(change ...string) string {
		return strings.NewReplacer(change...).Replace(
			`{"ProductSKU":"s","CheckoutType":"PROVISIONAL","KeyFingerprint":"f","ClientToken":"t",` +
				`"Entitlements":[{"Name":"a","Unit":"Count","Value":"1"}],"New":1}`)
	}
	borrow := func(change ...string) string {
		return strings.NewReplacer(change...).Replace(`{"LicenseArn":"` + arn +
			`","DigitalSignatureMethod":"JWT_PS384","ClientToken":"t","Entitlements":[{"Name":"a","Unit":"None"}]}`)
	}
	for name, row := range map[string]struct {
		got  *awslm.Fault
		code string // empty: it is good
		says string
	}{
		"a checkout": {decode[awslm.CheckoutRequest](checkout()), "", ""},
		"PERPETUAL":  {decode[awslm.CheckoutRequest](checkout("PROVISIONAL", "PERPETUAL")), "", ""},
		"no SKU": {decode[awslm.CheckoutRequest](checkout(`"s"`, `""`)), awslm.ErrValidation,
			"ProductSKU"},
		"a type of none": {decode[awslm.CheckoutRequest](checkout("PROVISIONAL", "provisional")),
			awslm.ErrValidation, "CheckoutType"},
		"a token with a space": {decode[awslm.CheckoutRequest](checkout(`"t"`, `"a b"`)), awslm.ErrValidation,
			"ClientToken"},
		"a token too long": {decode[awslm.CheckoutRequest](checkout(`"t"`, `"`+strings.Repeat("x", 2049)+`"`)),
			awslm.ErrValidation, "ClientToken"},
		"the longest token": {decode[awslm.CheckoutRequest](checkout(`"t"`, `"`+strings.Repeat("x", 2048)+`"`)),
			"", ""},
		"no entitlements": {decode[awslm.CheckoutRequest](checkout(`{"Name":"a","Unit":"Count","Value":"1"}`,
			"")), awslm.ErrValidation, "at least one"},
		"a unit of none": {decode[awslm.CheckoutRequest](checkout("Count", "count")), awslm.ErrValidation,
			"Entitlements[0].Unit"},
		"a number that is none": {decode[awslm.CheckoutRequest](checkout(`"1"`, `"+1"`)), awslm.ErrValidation,
			"Value"},
		"a bare number": {decode[awslm.CheckoutRequest](checkout(`"1"`, `1`)), awslm.ErrValidation,
			"not a number"},
		"too large a number": {decode[awslm.CheckoutRequest](checkout(`"1"`, `"9223372036854775808"`)),
			awslm.ErrValidation, "too large"},
		"no number": {decode[awslm.CheckoutRequest](checkout(`,"Value":"1"`, ``)), awslm.ErrValidation,
			"Value"},
		"a number of None": {decode[awslm.CheckoutRequest](checkout("Count", "None")), awslm.ErrValidation,
			"absent"},
		"twice the same": {decode[awslm.CheckoutRequest](checkout(`[{`, `[{"Name":"a","Unit":"None"},{`)),
			awslm.ErrValidation, "twice"},
		"a member twice": {decode[awslm.CheckoutRequest](checkout(`{"ProductSKU"`,
			`{"ProductSKU":"x","ProductSKU"`)), awslm.ErrValidation, "twice"},
		"no JSON":  {decode[awslm.CheckoutRequest]("x"), awslm.ErrValidation, "not JSON"},
		"nothing":  {decode[awslm.CheckoutRequest](""), awslm.ErrValidation, "ProductSKU"},
		"a borrow": {decode[awslm.BorrowRequest](borrow()), "", ""},
		"another method": {decode[awslm.BorrowRequest](borrow("JWT_PS384", "JWT_RS256")),
			awslm.ErrUnsupportedSignature, "JWT_PS384"},
		"no ARN": {decode[awslm.BorrowRequest](borrow(arn, "arn:x")), awslm.ErrValidation,
			"LicenseArn"},
		"an ARN of China": {decode[awslm.BorrowRequest](borrow("arn:aws:", "arn:aws-cn:")), "", ""},
		"metadata without a name": {decode[awslm.BorrowRequest](borrow(`{"LicenseArn"`,
			`{"CheckoutMetadata":[{"Name":""}],"LicenseArn"`)), awslm.ErrValidation, "CheckoutMetadata[0]"},
		"an extend of nothing": {decode[awslm.ExtendRequest](`{"DryRun":true}`), awslm.ErrValidation,
			"LicenseConsumptionToken"},
		"a check-in of nothing": {decode[awslm.CheckInRequest](`{}`), awslm.ErrValidation, "LicenseConsumptionToken"},
		"a token for access":    {decode[awslm.AccessTokenRequest](`{"Token":"a b"}`), awslm.ErrValidation, "Token"},
		"many properties": {decode[awslm.AccessTokenRequest](`{"Token":"a","TokenProperties":["1","2","3","4"]}`),
			awslm.ErrValidation, "TokenProperties"},
		"a list": {decode[awslm.ListRequest](
			`{"MaxResults":100,"Filters":[{"Name":"ProductSKU","Values":["a"]}]}`), "", ""},
		"too long a list":   {decode[awslm.ListRequest](`{"MaxResults":101}`), awslm.ErrValidation, "MaxResults"},
		"a list of nothing": {decode[awslm.ListRequest](`{"MaxResults":0}`), awslm.ErrValidation, "MaxResults"},
		"a filter of none": {decode[awslm.ListRequest](`{"Filters":[{"Name":"productsku","Values":["a"]}]}`),
			awslm.ErrInvalidParameter, "Filters[0]"},
	} {
		switch {
		case row.code == "" && row.got != nil, row.code != "" &&
			(row.got == nil || row.got.Code != row.code || !strings.Contains(row.got.Message, row.says)):
			t.Errorf("%s: %v", name, row.got)
		}
	}
}

func TestDeclared(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		op, code string
		want     bool
	}{{awslm.OpCheckout, awslm.ErrNoEntitlements, true}, {awslm.OpCheckout, awslm.ErrEntitlementNot, false},
		{awslm.OpBorrow, awslm.ErrEntitlementNot, true},
		{awslm.OpCheckIn, awslm.ErrConflict, true}, {awslm.OpCheckout, awslm.ErrConflict, false},
		{awslm.OpGetLicense, awslm.ErrResourceNotFound, false},
		{awslm.OpGetAccessToken, awslm.ErrInvalidParameter, false}, {awslm.OpGetAccessToken, awslm.ErrRateLimit, true},
		{"Nothing", awslm.ErrRateLimit, false}} {
		if got := awslm.Declared(row.op, row.code); got != row.want {
			t.Errorf("%s, %s: %t", row.op, row.code, got)
		}
	}
	if (&awslm.Fault{Code: awslm.ErrServerInternal}).Status() != 500 ||
		(&awslm.Fault{Code: awslm.ErrRateLimit}).Status() != 400 {
		t.Error("the statuses")
	}
}

// FuzzRequests: every request is decoded or refused with a reason.
func FuzzRequests(f *testing.F) {
	f.Add(
		`{"ProductSKU":"s","CheckoutType":"PROVISIONAL","KeyFingerprint":"f","ClientToken":"t",` +
			`"Entitlements":[{"Name":"a","Unit":"Count","Value":"1"}]}`)
	f.Add(`{"LicenseArn":"` + arn + `","MaxResults":1,"Filters":[{"Name":"Status","Values":["a"]}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, fault := range []*awslm.Fault{decode[awslm.CheckoutRequest](body), decode[awslm.BorrowRequest](body),
			decode[awslm.ExtendRequest](body),
			decode[awslm.CheckInRequest](body), decode[awslm.AccessTokenRequest](body),
			decode[awslm.LicenseRequest](body), decode[awslm.ListRequest](body)} {
			if fault != nil && (fault.Message == "" || len(fault.Message) > 400) {
				t.Errorf("%+v", fault)
			}
		}
	})
}
